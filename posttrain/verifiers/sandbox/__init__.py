"""A jail for code that nobody has read: one process that runs it, another that judges it.

    host.py       starts a jail, waits, says what came of it (`judge_code`, `protection`)
    jail.py       the supervisor: namespaces, limits, the two processes, the clock
    candidate.py  holds the completion's code and answers calls; knows no test
    judge.py      runs the tests against stand-ins for what the completion defined
    closeness.py  the little of numpy that published tests use
    wire.py       how values travel between the two: plain data by value, the rest by reference
    kernel.py     the system calls that Python has no name for

Why a completion cannot pass a test that it fails: `docs/verifiers.md`, "code".
"""
