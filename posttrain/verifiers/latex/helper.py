"""The process that compares expressions: one JSON question a line in, one JSON answer a line out.

Run as a script by `symbolic.py`; it imports nothing of this package.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import sys

_MAX_MEMORY = 4 << 30


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints must not pass for a reply
    logging.disable(logging.CRITICAL)
    from math_verify import parse, verify

    def equal(expected: str, answer: str) -> bool:
        sides = [parse(f"${side}$", parsing_timeout=None) for side in (expected, answer)]
        return all(sides) and verify(*sides, timeout_seconds=None)

    equal("x^2+2x+1", r"\frac{(x+1)^3}{x+1}")  # the first question loads what is loaded late
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY, _MAX_MEMORY))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        expected, answer, cpu_seconds = json.loads(line)
        signal.setitimer(signal.ITIMER_PROF, cpu_seconds)
        try:
            result = equal(expected, answer)
        except Exception:  # a malformed expression equals nothing
            result = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(bool(result)), file=replies, flush=True)


if __name__ == "__main__":
    main()
