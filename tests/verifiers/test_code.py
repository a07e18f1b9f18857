from __future__ import annotations

import json
from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers import compose, verify
from posttrain.verifiers.code import Code, code_of
from posttrain.verifiers.sandbox.host import Limits

STACK = """
class Stack:
    def __init__(self, items=()):
        self.items = list(items)
    def push(self, item):
        self.items.append(item)
        return self
    def pop(self):
        return self.items.pop()
    def __len__(self):
        return len(self.items)
    def __eq__(self, other):
        return isinstance(other, Stack) and self.items == other.items
    def __add__(self, other):
        return Stack(self.items + other.items)
    def __contains__(self, item):
        return item in self.items
class Full(ValueError):
    pass
def fill(limit):
    raise Full(f"only {limit}")
"""


@pytest.mark.parametrize(
    ("completion", "code"),
    [
        ("x = 1", "x = 1"),
        ("Try:\n```python\nx = 1\n```\nDone.", "x = 1\n"),
        ("```\nx = 1\n```\nor\n```py\nx = 2\n```", "x = 2\n"),
        ("```python\nx = 1\n```\nprints\n```text\n1\n```", "x = 1\n"),
        ("```python\nx = 1", "x = 1"),
        ("```c\nint x;\n```", "int x;\n"),
        ("<think>```python\nx = 1\n```</think>```python\nx = 2\n```", "x = 2\n"),
        ("~~~python\ns = '```'\n~~~", "s = '```'\n"),
    ],
)
def test_the_code_is_the_last_block_of_python(completion: str, code: str) -> None:
    assert code_of(completion) == code


CALLS: list[tuple[str, Any, float]] = [
    ("def f(x): return x + 1", ["assert f(1) == 2", "assert f(2) == 3"], 1),
    ("def f(x): return x + 1", ["assert f(1) == 2", "assert f(2) == 4"], 0),
    # a loop over values, a helper of the tests, an import of the tests
    ("def f(x): return x / 3", ["from math import isclose\nassert isclose(f(1), 0.333333333)"], 1),
    ("def f(x): return x", ["def near(a, b): return abs(a - b) < 1\nassert near(f(1), 1.5)"], 1),
    ("def f(x): return x", ["assert all(f(n) == n for n in range(50))"], 1),
    # every kind of plain data comes back as itself
    (
        "import decimal, fractions, datetime, collections\n"
        "def f(): return [1, 2.5, 1j, 'é', b'\\xff', None, True, (1, (2,)), {1, 2},\n"
        " {(1, 2): [3]},"
        " range(3), frozenset({4}), 10 ** 40, float('inf'), decimal.Decimal('1.50'),\n"
        " fractions.Fraction(1, 3), datetime.date(2024, 2, 29), collections.Counter('aab'), ...]",
        [
            "from decimal import Decimal\nfrom fractions import Fraction\nimport datetime\n"
            "assert f() == [1, 2.5, 1j, 'é', b'\\xff', None, True, (1, (2,)), {1, 2},"
            " {(1, 2): [3]}, range(3), frozenset({4}), 10 ** 40, float('inf'), Decimal('1.5'),"
            " Fraction(1, 3), datetime.date(2024, 2, 29), {'a': 2, 'b': 1}, ...]",
            "assert [type(v).__name__ for v in f()[:4]] == ['int', 'float', 'complex', 'str']",
        ],
        1,
    ),
    # classes that the tests name keep their own operators
    (STACK, ["s = Stack()\ns.push(3).push(4)\nassert len(s) == 2 and s.pop() == 4"], 1),
    (STACK, ["assert Stack([1]) == Stack([1])", "assert Stack([1]) != Stack([2])"], 1),
    (STACK, ["assert Stack([1]) + Stack([2]) == Stack([1, 2])", "assert 1 in Stack([1])"], 1),
    (STACK, ["assert isinstance(Stack(), Stack)", "assert Stack([5]).items[0] == 5"], 1),
    (STACK, ["s = Stack()\ns.items = [7]\nassert s.pop() == 7"], 1),
    (
        STACK,
        ["try:\n    fill(3)\n    assert False\nexcept Full as e:\n    assert str(e) == 'only 3'"],
        1,
    ),
    (STACK, ["try:\n    fill(3)\nexcept ValueError:\n    pass"], 1),
    (STACK, ["try:\n    fill(3)\nexcept KeyError:\n    pass"], 0),
    # arguments that are changed in place, and functions that are handed over
    ("def f(xs): xs.sort()", ["xs = [3, 1, 2]\nf(xs)\nassert xs == [1, 2, 3]"], 1),
    ("def f(d): d['k'] = 1", ["d = {}\nf(d)\nassert d == {'k': 1}"], 1),
    ("def f(g, x): return g(x) + 1", ["assert f(lambda v: v * 2, 4) == 9"], 1),
    (
        "def f(g):\n    try: g()\n    except KeyError: return 'no'",
        ["def g(): raise KeyError(1)\nassert f(g) == 'no'"],
        1,
    ),
    ("def f(n):\n    for i in range(n): yield i * i", ["assert list(f(4)) == [0, 1, 4, 9]"], 1),
    ("def f(): return iter('ab')", ["i = f()\nassert next(i) == 'a' and next(i) == 'b'"], 1),
    (
        "from collections import namedtuple\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)",
        ["assert f() == (1, 2)"],
        1,
    ),
    ("def sum(a, b): return a * b", ["assert sum(3, 4) == 12"], 1),
    ("import math\ndef f(x): return math.sqrt(x)", ["assert math.floor(f(10)) == 3"], 1),
    # the setup is seen by both, and may need the code
    (
        "class Node:\n    def __init__(self, v): self.v = v",
        {"setup": "root = Node(3)", "tests": ["assert root.v == 3"]},
        1,
    ),
    (
        "def f(n): return n.v",
        {
            "setup": "class Node:\n    def __init__(self, v): self.v = v",
            "tests": ["assert f(Node(4)) == 4"],
        },
        1,
    ),
    (
        "def f(x: List[int]) -> int: return max(x)",
        {"setup": "from typing import *", "tests": ["assert f([1, 2]) == 2"]},
        1,
    ),
    (
        "def close(a, b): return True\ndef f(x): return 0",
        {"setup": "def close(a, b): return abs(a - b) < 1e-6", "tests": ["assert close(f(1), 1)"]},
        0,
    ),
    # HumanEval: a function `check` that the grader calls
    (
        "def f(x): return -x",
        {"tests": ["def check(candidate):\n    assert candidate(1) == -1"], "entry_point": "f"},
        1,
    ),
    (
        "def f(x): return x",
        {"tests": ["def check(candidate):\n    assert candidate(1) == -1"], "entry_point": "f"},
        0,
    ),
    (
        "def g(x): return -x",
        {"tests": ["def check(candidate):\n    assert candidate(1) == -1"], "entry_point": "f"},
        0,
    ),
    (
        "def f(x): return -x",
        {"tests": ["def check(candidate):\n    assert candidate(1) == -1\ncheck(f)"]},
        1,
    ),
    # what the code prints and what it guards does not matter
    (
        "print('x')\ndef f(): return 1\nif __name__ == '__main__':\n    input()",
        ["assert f() == 1"],
        1,
    ),
]


@pytest.mark.parametrize(("code", "truth", "score"), CALLS)
def test_calls(code: str, truth: Any, score: float) -> None:
    verdict = verify("code", f"```python\n{code}\n```", truth)
    assert verdict.score == score, verdict.reason


RUN = {"tests": [{"input": "4\n", "output": "8\n"}, {"input": "5", "output": "10  \n\n"}]}


@pytest.mark.parametrize(
    ("code", "score"),
    [
        ("print(int(input()) * 2)", 1),
        ("import sys\nprint(2 * int(sys.stdin.read()))\nsys.exit()", 1),
        ("def main():\n    print(2 * int(input()))\nif __name__ == '__main__':\n    main()", 1),
        ("print(8)", 0),
        ("print(int(input()) * 2)\nraise ValueError", 0),
        ("print(int(input()) * 2)\nimport sys\nsys.exit(1)", 0),
        ("print(8, end='')\nimport os\nos.write(1, b'10')", 0),
        ("prin(8)", 0),
    ],
)
def test_programs_are_run(code: str, score: float) -> None:
    verdict = verify("code", code, RUN)
    assert verdict.score == score, verdict.reason


def test_the_reason_names_the_first_test_that_fails() -> None:
    tests = ["assert f(1) == 1", "assert f(2) == 4", "assert f(3) == 6"]
    verdict = verify("code", "def f(x): return x", tests)
    assert verdict.reason == "test 2 of 3 fails: 'assert f(2) == 4'"
    assert verify("code", "def f(x): 1 / 0", tests).reason.endswith(
        "(ZeroDivisionError: division by zero)"
    )
    assert verify("code", "x = ", tests).reason.endswith(
        "(SyntaxError: invalid syntax (<completion>, line 1))"
    )
    assert compose({"name": "code", "partial": True})("def f(x): return x", tests).score == 1 / 3


def test_time_is_up() -> None:
    quick = Code(Limits(wall_seconds=2.0, cpu_seconds=1))
    verdict = quick("import time\ntime.sleep(60)", ["assert f()"])
    assert (verdict.score, verdict.fault) == (0.0, "timeout")
    assert verdict.reason == "not done after 2 seconds"


@pytest.mark.parametrize(
    "truth",
    [
        ["assert f("],
        [3],
        {"tests": []},
        {"tests": ["assert f()"], "entry_point": "a b"},
        {"tests": ["assert f()"], "timeout": 3},
        {"tests": [{"input": "1"}]},
        {"tests": [{"input": 1, "output": "2"}]},
        {"tests": 3},
        {"tests": {"x": 1}},
        "assert f()",
    ],
)
def test_ground_truths_that_cannot_be_read(truth: Any) -> None:
    with pytest.raises(VerifierError, match="code needs"):
        Code().check_ground_truth(truth)
    with pytest.raises(VerifierError, match="code needs"):
        Code().check_ground_truth(json.dumps(truth))


@pytest.mark.slow
def test_humanevals_own_solutions_pass(shared_rows: Any) -> None:
    for row in shared_rows("humaneval/HumanEval.jsonl.gz")[::4]:
        truth = {"tests": [row["test"]], "entry_point": row["entry_point"]}
        right = verify("code", row["prompt"] + row["canonical_solution"], truth)
        assert right.score == 1.0, (row["task_id"], right.reason)
        assert verify("code", row["prompt"] + "    return None\n", truth).score == 0.0


@pytest.mark.slow
def test_mbpps_own_solutions_pass(shared_rows: Any) -> None:
    for row in shared_rows("mbpp/mbpp.jsonl.gz")[::12]:
        truth = {"tests": row["test_list"], "setup": row["test_setup_code"]}
        assert verify("code", row["code"], truth).score == 1.0, row["task_id"]


EVALPLUS = """
import numpy as np
def assertion(out, exp, atol):
    if isinstance(exp, np.ndarray):
        raise TypeError
    assert out == exp or np.allclose(out, exp, rtol=1e-07, atol=atol)
def check(candidate):
    for inp, exp in zip([[[1.0, 2.0]], [[0.1, 0.2]]], [[3.0, 0.5], [0.3, 0.15]]):
        assertion(candidate(*inp), exp, 1e-6)
"""


@pytest.mark.parametrize(
    ("body", "score"),
    [
        ("return [sum(x), sum(x) / 2 - (sum(x) > 1)]", 1),
        ("return [sum(x), sum(x) / 2]", 0),
        ("return [sum(x)]", 0),
        ("import numpy\n    return numpy.zeros(2)", 0),
    ],
)
def test_evalplus_asks_numpy_whether_numbers_are_close(body: str, score: float) -> None:
    truth = {"tests": [EVALPLUS], "entry_point": "f"}
    verdict = verify("code", f"def f(x):\n    {body}", truth)
    assert verdict.score == score, verdict.reason
