from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from posttrain.errors import VerifierError
from posttrain.verifiers.latex.candidates import candidates, last_boxed
from posttrain.verifiers.latex.normalise import normalise
from posttrain.verifiers.latex.symbolic import Symbolic, equal
from posttrain.verifiers.math import Math


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"first \boxed{1} then \boxed{\frac{1}{\sqrt{2}}}", [r"\frac{1}{\sqrt{2}}"]),
        (r"\fbox{7}", ["7"]),
        (r"\boxed 5 apples", ["5"]),
        (r"\boxed{\{1, 2\}}", [r"\{1, 2\}"]),
        (r"\boxed{\boxed{3}}", ["3"]),
        (r"cut off at \boxed{5", [r"cut off at \boxed{5"]),
        ("Final Answer: The final answer is $5$. I hope it is correct.", ["$5$"]),
        (r"\boxed{4}. The final answer is 5.", ["4", "5"]),
        ("so $a$ is $b + c$.", ["b + c"]),
        (r"it costs \$5, so $x$", ["x"]),
        (r"thus \(x+1\).", ["x+1"]),
        ("So the answer is 5. It took 3 steps.", ["5"]),
        ("**Answer:** 1.5", ["1.5"]),
        ("Answer: $x = 2$ because $y = 3$", ["x = 2", "y = 3"]),
        ("**Final Answer:**\n\n12", ["12"]),
        ("The final answer is **x = 4**.", ["x = 4"]),
        (r"so $\boxed b - 1$ it is", ["b - 1"]),
        ("  42  ", ["42"]),
        ("", []),
    ],
)
def test_candidates(text: str, expected: list[str]) -> None:
    assert candidates(text) == expected


def test_a_box_that_never_closes_is_no_box() -> None:
    assert last_boxed("\\boxed{" * 10_000) is None


@pytest.mark.parametrize(
    ("answer", "same"),
    [
        (r"\dfrac12", r"\frac{1}{2}"),
        (r"\frac1{2}", r"\tfrac{1}2"),
        (r"\sqrt2", r"\sqrt{2}"),
        (r"\left( 1, 2 \right)", "(1,2)"),
        (r"90^\circ", "90"),
        (r"90^{\circ}", "90"),
        (r"\$18", "18"),
        (r"50\%", "50"),
        (r"5\text{ cm}^2", "5"),
        ("10 square units", "10"),
        ("x = 5", "5"),
        (r"x \in [1,2]", "[1,2]"),
        ("1,234,567", "1234567"),
        ("1{,}000", "1000"),
        (".5", "0.5"),
        (r"\text{(C)}", "C"),
        (r"\text{Even}", "even"),
        ("2516_{8}", "2516_8"),
        (r"2 \pi r", r"2\pi r"),
        (r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"\begin{bmatrix} 1 \\[1ex] 2 \end{bmatrix}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"3\text{ apples}", "3"),
        ("60 apples", "60"),
        (r"25\pi \text{ square inches}.", r"25\pi"),
        (r"\mathbf{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\mathbf{87^\circ}", "87"),
        (r"37^{\text{th}}", "37"),
        ("f(x) = x + 1", "x+1"),
        ("26π", r"26\pi"),
        ("√3", r"\sqrt{3}"),
        ("2*sqrt(3)", r"2\sqrt{3}"),
        ("(1, 2)U(3, 4)", r"(1,2)\cup(3,4)"),
        ("2x**2", "2x^2"),
        (r"116 - 75 \cdot i", "116-75i"),
        ("1 1/2", r"1\frac{1}{2}"),
        ("12 000", "12000"),
        (r"\text{June 20}", "june 20"),
    ],
)
def test_normalise(answer: str, same: str) -> None:
    assert normalise(answer) == normalise(same)


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        (r"10\text{ million}", "10"),
        ("5 thousand", "5"),
        (r"9 \text{ a.m.}", "9"),
        (r"3 \sin x", "3"),
        ("1 1/2", "11/2"),
        ("3 4", "34"),
        (r"3 \cdot \frac{1}{2}", r"3\frac{1}{2}"),
        (r"2 \text{ and } 3", "2"),
    ],
)
def test_normalise_keeps_apart(answer: str, other: str) -> None:
    assert normalise(answer) != normalise(other)


@pytest.mark.parametrize(
    ("truth", "answer", "score"),
    [
        (r"\frac{14}{3}", "14/3", 1.0),
        (r"\frac{14}{3}", r"-\frac{14}{3}", 0.0),
        ("0.5", r"\frac{1}{2}", 1.0),
        (r"1\frac{1}{2}", "3/2", 1.0),
        (r"\frac{1}{3}", "0.333333", 0.0),
        ("p - q", "-q + p", 1.0),
        ("p - q", "q - p", 0.0),
        (r"2\sqrt{3}", r"\sqrt{12}", 1.0),
        (r"2\sqrt{3}", r"\sqrt{11}", 0.0),
        (r"\pi r^2", r"r^2 \pi", 1.0),
        ("x^2+2x+1", "(x+1)^2", 1.0),
        ("(1,2)", "(1, 2)", 1.0),
        ("(1,2)", "(2,1)", 0.0),
        ("(1,2)", "[1,2]", 0.0),
        ("(1,2)", r"\{1,2\}", 0.0),
        (r"\{1,2\}", r"\{2,1\}", 1.0),
        ("2516_8", "2516_9", 0.0),
        (r"\text{evil}", r"\text{live}", 0.0),
        (r"\frac{1}{0}", "1", 0.0),
        ("4", "4t", 0.0),
        ("4t", "x = 4", 0.0),
        ("9", r"9 \text{ a.m.}", 0.0),
        ("1000", r"1.0 \times 10^3", 1.0),
        ("3", "3", 1.0),
    ],
)
def test_equality(truth: str, answer: str, score: float) -> None:
    verdict = Math()(f"Therefore $x$ is \\boxed{{{answer}}}.", truth)
    assert verdict.score == score, verdict.reason


def test_any_candidate_may_match() -> None:
    assert Math()(r"\boxed{4}. The final answer is 5.", "5").score == 1.0
    assert Math()("The answer is 5", "5").score == 1.0
    assert Math()("The answers differ: 5", "5").score == 0.0
    assert Math()("So <answer> 5 </answer> it is", "5").score == 1.0


def test_a_solution_with_a_box_may_be_the_ground_truth() -> None:
    assert Math()("$24$", r"We get $4! = \boxed{24}$.").score == 1.0
    assert Math()("24", 24).score == 1.0
    assert Math()("$0.5$", 0.5).score == 1.0


@pytest.mark.parametrize("truth", ["$$", r"\boxed{}", "x" * 3000, [5]])
def test_unreadable_ground_truth(truth: Any) -> None:
    with pytest.raises(VerifierError, match="math needs an answer in LaTeX"):
        Math().check_ground_truth(truth)


@pytest.mark.parametrize(
    "answer",
    ["9**9**9", "9^{9^{9}}", "((9^9)^9)^9", "99999!", "9^{99999}", "1" * 1_000_000, "(" * 300],
)
def test_hostile_answers_are_refused_unread(answer: str) -> None:
    start = time.perf_counter()
    assert Math()(f"\\boxed{{{answer}}}", "x+1").score == 0.0
    assert time.perf_counter() - start < 1.0


def test_a_computation_that_does_not_end_is_ended() -> None:
    verdict = Math(cpu_seconds=0.2)(r"\boxed{9^{3+9^{9+9^9}}}", "9")
    assert verdict.score == 0.0
    assert "took too long to compare with '9'" in verdict.reason
    assert Math()("$q+p$", "p+q").score == 1.0


def test_symbolic_equality_works_off_the_main_thread() -> None:
    results: list[float] = []
    threads = [
        threading.Thread(target=lambda answer=answer: results.append(Math()(answer, "p+q").score))
        for answer in ("$q+p$", "$q-p$")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == [0.0, 1.0]


def test_a_forked_process_asks_a_helper_of_its_own() -> None:
    assert equal("p+q", "q+p", 5.0) is True
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, b"1" if equal("p+q", "p+q+q-q", 5.0) else b"0")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reader, 1) == b"1"
    os.close(reader)
    os.close(writer)
    assert equal("p+q", "q-p", 5.0) is False


def test_a_helper_that_does_not_start_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    broken = tmp_path / "helper.py"
    broken.write_text("raise SystemExit(1)")
    monkeypatch.setattr("posttrain.verifiers.latex.symbolic._HELPER", broken)
    with pytest.raises(VerifierError, match="import math_verify"):
        Symbolic().equal("p", "q", 1.0)


def test_gold_answers_of_math(shared_rows: Callable[[str], list[Any]]) -> None:
    verifier = Math()
    for row in shared_rows("math/math500.jsonl.gz"):
        verifier.check_ground_truth(row["answer"])
        assert verifier(row["solution"], row["answer"]).score == 1.0
        assert verifier(f"${row['answer']}$", row["solution"]).score == 1.0
        assert verifier("", row["answer"]).score == 0.0
