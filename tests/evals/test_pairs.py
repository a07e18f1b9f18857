"""Which answer a model picks: by hand, and on the shapes that benchmarks come in."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import DataError, ModelError
from posttrain.evals.pairs import best_of, by_source, choose, picked
from posttrain.evals.run import evaluate, evaluate_path, load, task_rows
from posttrain.evals.tasks import get_task
from posttrain.evals.tasks.reward_bench import SECTIONS
from posttrain.models import load_model, load_tokenizer, save_model
from posttrain.recipe import Task
from posttrain.scratch import new_model, new_tokenizer
from posttrain.trainers.scorer import Scorer

PAIR = {"prompt": "Name an animal.", "chosen": "A cat.", "rejected": "A car."}
LLMBAR = Path(__file__).resolve().parents[2].parent / "shared/data/llmbar"


class Told(Scorer):
    """A scorer whose numbers are told by the answers themselves."""

    def __init__(self, numbers: dict[str, float]) -> None:
        self.numbers, self.cut, self.reference = numbers, 0, None

    @property
    def scalar(self) -> bool:
        return True

    def __call__(self, rows: Sequence[dict[str, Any]]) -> list[list[float]]:
        texts = [[a if isinstance(a, str) else a["content"] for a in r["answers"]] for r in rows]
        return [[self.numbers[text] for text in row] for row in texts]


def written(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    path = folder / name
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(lines.encode()) if name.endswith(".gz") else lines.encode())
    return str(path)


def rows_of(name: str, path: str) -> list[dict[str, Any]]:
    return task_rows(get_task(name), Task(name=name, path=path))


def test_the_highest_number_is_picked_and_ties_are_shared() -> None:
    assert picked([0.1, 0.3], [1, 0]) == 0
    assert picked([0.3, 0.3], [1, 0]) == 0.5
    assert picked([1, 2, 2, 2], [0, 1, 0, 1]) == pytest.approx(2 / 3)


def test_best_of_k_by_hand() -> None:
    values, correct = [0.1, 0.2, 0.3], [1.0, 0.0, 1.0]
    assert best_of(1, values, correct) == pytest.approx(2 / 3)
    # subsets {1,2} -> the second: 0, {1,3} -> 1, {2,3} -> 1
    assert best_of(2, values, correct) == pytest.approx(2 / 3)
    assert best_of(3, values, correct) == 1
    assert best_of(2, [1.0, 1.0], [1.0, 0.0]) == best_of(1, [1.0, 1.0], [1.0, 0.0]) == 0.5


def test_accuracy_by_source_ties_and_calibration(tmp_path: Path) -> None:
    rows = [
        {**PAIR, "chosen": "2", "rejected": "0", "source": "a"},
        {**PAIR, "chosen": "1", "rejected": "1!", "source": "a"},
        {**PAIR, "chosen": "0", "rejected": "2", "source": "b"},
        {**PAIR, "chosen": "3", "rejected": "0", "source": "b"},
    ]
    read = rows_of("pairs", written(tmp_path, "rows.jsonl", rows))
    numbers = {"0": 0.0, "1": 1.0, "1!": 1.0, "2": 2.0, "3": 3.0}
    result = choose(Told(numbers), get_task("pairs"), read)
    assert (result.score, result.n) == (2.5 / 4, 4)
    # scores 1, .5, 0, 1: variance .229167
    assert result.stderr == pytest.approx((0.229167 / 4) ** 0.5, abs=1e-6)
    summary = result.summary()
    assert {k: v["score"] for k, v in summary["by_source"].items()} == {"a": 0.75, "b": 0.5}
    # sigmoid 2 = .880797 twice, one right; sigmoid 3 = .952574, right; .5 half right
    error = (abs(1 - 2 * 0.880797) + abs(1 - 0.952574)) / 4
    assert summary["calibration_error"] == pytest.approx(error, abs=1e-5)
    assert result.transcripts[2]["completion"] == "2"
    assert result.transcripts[2]["ground_truth"] == "0"


def test_best_of_n_reads_three_shapes(tmp_path: Path) -> None:
    rows = [
        {"prompt": "1", "answers": ["a", "b", "c"], "correct": [0, 1, 0]},
        {"prompt": "2", "answers": ["c", "a"], "correct": 1},
        {"prompt": "3", "chosen": ["b"], "rejected": ["a", "c", "d"], "subset": "four"},
        {
            "prompt": "4",
            "answers": ["It is 5.", "It is 6."],
            "ground_truth": "5",
            "verifier": "gsm8k",
        },
    ]
    read = rows_of("best_of_n", written(tmp_path, "rows.jsonl.gz", rows))
    assert [row["correct"] for row in read] == [[0, 1, 0], [0, 1], [1, 0, 0, 0], [1, 0]]
    numbers = {"a": 1.0, "b": 3.0, "c": 2.0, "d": 0.0, "It is 5.": 1.0, "It is 6.": 0.0}
    result = choose(Told(numbers), get_task("best_of_n"), read)
    assert result.score == 0.75  # b, c (wrong), b, "It is 5."
    assert result.more["ceiling"] == 1
    curve = result.more["best_of"]
    assert curve["1"] == pytest.approx((1 / 3 + 1 / 2 + 1 / 4 + 1 / 2) / 4)
    assert curve["2"] == pytest.approx((2 / 3 + 0 + 1 / 2 + 1) / 4)  # of all pairs of answers
    assert list(curve) == ["1", "2"]  # the fewest answers of a row


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "1", "answers": ["a"], "correct": [1]}, "two or more texts"),
        ({"prompt": "1", "answers": ["a", "b"], "correct": [1]}, "how right it is"),
        ({"prompt": "1", "answers": ["a", "b"], "correct": 2}, "and there are 2 answers"),
        ({"prompt": "1", "answers": ["a", "b"]}, "needs `correct`, or `ground_truth`"),
        ({"prompt": "1", "chosen": "a", "rejected": "b"}, "needs `answers`, or lists"),
    ],
)
def test_choices_that_cannot_be_judged_are_refused(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, "rows.jsonl", [row])
    with pytest.raises(DataError, match=f"task best_of_n: .*row 1: .*{message}"):
        rows_of("best_of_n", path)


def test_llmbar_rows(tmp_path: Path) -> None:
    row = {"input": "Name an animal.", "output_1": "A car.", "output_2": "A cat.", "label": 2}
    written(tmp_path, "Natural.jsonl", [row, {**row, "label": 1}])
    written(tmp_path, "Adversarial_GPTInst.jsonl.gz", [row])
    read = rows_of("llmbar", str(tmp_path))
    assert [r["source"] for r in read] == ["Adversarial_GPTInst", "Natural", "Natural"]
    assert [r["chosen"][0]["content"] for r in read] == ["A cat.", "A cat.", "A car."]
    assert read[0]["prompt"] == [{"role": "user", "content": "Name an animal."}]
    bad = written(tmp_path, "bad.jsonl", [{**row, "label": 3}])
    with pytest.raises(DataError, match="row 1: `label` must be 1 or 2, got 3"):
        rows_of("llmbar", bad)


@pytest.mark.skipif(not LLMBAR.is_dir(), reason="the LLMBar rows are not on this machine")
def test_the_real_llmbar_is_read_whole() -> None:
    rows = rows_of("llmbar", str(LLMBAR))
    sources = {row["source"] for row in rows}
    assert {"Natural", "Adversarial_Manual"} <= sources and len(sources) == 5
    assert len(rows) > 300


def test_pairs_come_in_the_shapes_that_stages_read(tmp_path: Path) -> None:
    before = "\n\nHuman: Name an animal.\n\nAssistant:"
    rows = [{"chosen": f"{before} A cat.", "rejected": f"{before} A car."}]
    [row] = rows_of("pairs", written(tmp_path, "hh.jsonl", rows))
    assert row["chosen"] == [{"role": "assistant", "content": "A cat."}]
    assert row["prompt"] == [{"role": "user", "content": "Name an animal."}]


def test_tasks_without_rows_ask_for_a_path() -> None:
    with pytest.raises(DataError, match="task llmbar brings no rows: give its `path`"):
        task_rows(get_task("llmbar"), Task(name="llmbar"))


def test_reward_bench_sections_count_alike() -> None:
    task = get_task("reward_bench")
    counts = {"alpacaeval-easy": 100, "mt-bench-hard": 30, "llmbar-natural": 10}
    weights = task.weights(counts)
    assert weights == pytest.approx(
        {"alpacaeval-easy": 0.5, "mt-bench-hard": 0.375, "llmbar-natural": 0.125}
    )
    code = {name: 164 for name in SECTIONS["reasoning"] if name != "math-prm"}
    weights = task.weights({"math-prm": 447, **code})
    assert weights["math-prm"] == pytest.approx(0.5)
    assert weights["hep-go"] == pytest.approx(1 / 12)
    assert task.weights({"something else": 3, **counts}) is None


def test_weighted_score_and_error() -> None:
    sources = ["alpacaeval-easy"] * 3 + ["mt-bench-hard"] * 2
    score, stderr, more = by_source(get_task("reward_bench"), sources, [1, 1, 0, 0, 1])
    assert score == pytest.approx((2 / 3 + 1 / 2) / 2)
    # variances of the means: (1/3) / 3 and (1/2) / 2
    assert stderr == pytest.approx(((1 / 9) / 4 + (1 / 4) / 4) ** 0.5)
    assert more["by_source"]["alpacaeval-easy"]["n"] == 3


def test_reward_bench_rows_of_a_file(tmp_path: Path) -> None:
    path = written(tmp_path, "rb.jsonl", [{**PAIR, "subset": "donotanswer", "id": 3}])
    [row] = rows_of("reward_bench", path)
    assert row["source"] == "donotanswer"


def test_a_reference_that_says_nothing_is_refused(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """A reward model picks by its scores, and other tokens are other texts."""
    model = load_model(checkpoint(), head="scalar")
    save_model(model, load_tokenizer(checkpoint()), tmp_path / "rm")
    policy, rm = checkpoint(), str(tmp_path / "rm")
    rows = tmp_path / "pairs.jsonl"
    rows.write_text('{"prompt": "Hi", "chosen": "Hello", "rejected": "No"}\n', encoding="utf-8")
    tasks = [f"pairs={rows}"]
    with pytest.raises(ModelError, match="is a reward model and picks by its scores"):
        evaluate_path(rm, tasks, reference=policy)
    with pytest.raises(ModelError, match="it is a reward model; give the policy"):
        evaluate_path(policy, tasks, reference=rm)
    words = new_tokenizer(["zebra yak " * 9] * 9, 300, "tulu")
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    new_model({"model_type": "llama", **shape}, words, tmp_path / "others", seed=1)
    with pytest.raises(ModelError, match="its tokenizer is another one"):
        evaluate_path(policy, tasks, reference=str(tmp_path / "others"))


def test_a_policy_and_its_reference_pick(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    policy, tokenizer = load(checkpoint())
    reference, _ = load(checkpoint(initializer_range=0.12))
    answers = ["A cat.", "A cat, a dog or a horse.", "A car."]
    rows = [{"prompt": "Name an animal.", "answers": answers, "correct": [1, 0.5, 0]}]
    path = written(tmp_path, "n.jsonl", rows)
    tasks = [(get_task("best_of_n"), rows_of("best_of_n", path))]
    for options in ({}, {"length_normalise": True}, {"reference": reference}):
        result = evaluate(policy, tokenizer, tasks, **options)["best_of_n"]
        [values] = Scorer.of(policy, tokenizer, **options)(tasks[0][1])
        expected = [1, 0.5, 0][values.index(max(values))]
        assert result.score == expected
        assert "calibration_error" not in result.more
    assert result.transcripts[0]["reason"].startswith("implicit rewards of the answers: ")


def test_one_task_on_two_files_keeps_both_scores(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    paths = [written(tmp_path, f"{i}.jsonl", [PAIR] * (i + 1)) for i in range(2)]
    scores = evaluate_path(checkpoint(), [f"pairs={path}" for path in paths])
    assert {name: score["n"] for name, score in scores.items()} == {"pairs": 1, "pairs-2": 2}


def test_pairs_that_prefer_nothing_are_left_out_and_counted(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows = [PAIR, {**PAIR, "rejected": PAIR["chosen"]}, {**PAIR, "chosen": ""}]
    path = written(tmp_path, "rows.jsonl", rows)
    said: list[str] = []
    score = evaluate_path(checkpoint(), [f"pairs={path}"], progress=said.append)["pairs"]
    assert score["n"] == 1
    assert list(score["left_out"].values()) == [1, 1]
    assert said[0].endswith("(n=1, 2 rows left out)")
    bad = written(tmp_path, "bad.jsonl", rows[1:2])
    with pytest.raises(DataError, match="no rows; 1 rows: `chosen` equals `rejected`"):
        rows_of("pairs", bad)
