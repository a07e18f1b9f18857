"""Sources drawn, filtered, shuffled and accounted for, on rows written by hand."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.mixture import Mixture, build_mixture
from posttrain.recipe import Source
from posttrain.sources import Opened


def say(text: str) -> dict[str, Any]:
    return {"prompt": f"Say {text}.", "completion": text}


def mix(rows: dict[str, list[Any]], *entries: dict[str, Any], **options: Any) -> Mixture:
    """A mixture of sources that are given as lists."""

    def opener(source: Source, seed: int) -> Opened:
        return Opened(rows[source.path], f"commit of {source.path}", None)

    return build_mixture(entries, opener=opener, **options)


def answers(mixture: Mixture) -> list[str]:
    return [row["messages"][-1]["content"] for row in mixture.rows]


LETTERS = [say(letter) for letter in "abcdefghij"]


@pytest.mark.parametrize(
    ("amount", "counts"),
    [
        ({}, {1: 10}),
        ({"fraction": 0.3}, {1: 3}),
        ({"fraction": 0.01}, {1: 1}),  # never nothing
        ({"fraction": 1.0}, {1: 10}),
        ({"num_samples": 4}, {1: 4}),
        ({"num_samples": 10}, {1: 10}),
        ({"num_samples": 23}, {2: 7, 3: 3}),  # two whole passes and three rows of a third
        ({"repeat": 2.0}, {2: 10}),
        ({"repeat": 2.5}, {2: 5, 3: 5}),
    ],
)
def test_amounts(amount: dict[str, float], counts: dict[int, int]) -> None:
    """How many rows were taken how often."""
    mixture = mix({"letters": LETTERS}, {"path": "letters", **amount})
    assert Counter(Counter(answers(mixture)).values()) == counts
    [entry] = mixture.manifest["sources"]
    assert (entry["rows_read"], entry["rows_taken"]) == (10, len(mixture.rows))


def test_weights_share_a_token_budget() -> None:
    """Of 40 tokens `short` (1 token a row) gets 10 and `long` (5 tokens a row) gets 30."""
    rows = {"short": [say("s")], "long": [say("l" * 5), say("m" * 5)]}
    entries = {"path": "short", "weight": 1.0}, {"path": "long", "weight": 3.0}
    options = {
        "token_budget": 40,
        "count_tokens": lambda row: len(row["messages"][-1]["content"]),
    }
    mixture = mix(rows, *entries, **options)
    assert Counter(answers(mixture)) == {"s": 10, "lllll": 3, "mmmmm": 3}


def test_a_weight_needs_tokens_to_count() -> None:
    entry = {"path": "letters", "weight": 1.0}
    with pytest.raises(DataError, match="needs a tokenizer"):
        mix({"letters": LETTERS}, entry, token_budget=5)
    with pytest.raises(DataError, match="no row has a token"):
        mix({"letters": LETTERS}, entry, token_budget=5, count_tokens=lambda row: 0)


def test_the_seed_decides_draw_and_order() -> None:
    rows = {"letters": LETTERS, "more": [say(letter) for letter in "klmnopqrst"]}
    entries = {"path": "letters", "num_samples": 6}, {"path": "more", "fraction": 0.5}
    one, same, other = (mix(rows, *entries, seed=seed) for seed in (1, 1, 2))
    assert one.rows == same.rows
    assert one.manifest["order_sha256"] == same.manifest["order_sha256"]
    assert sorted(answers(one)) != sorted(answers(other))
    assert one.manifest["order_sha256"] != other.manifest["order_sha256"]
    assert one.manifest["seed"] == 1


def test_the_draw_of_one_source_does_not_depend_on_the_next() -> None:
    rows = {"letters": LETTERS, "more": [say("z")]}
    entry = {"path": "letters", "num_samples": 4}
    alone, beside = mix(rows, entry), mix(rows, entry, {"path": "more"})
    assert sorted([*answers(alone), "z"]) == sorted(answers(beside))


def test_sources_are_shuffled_into_each_other() -> None:
    rows = {"letters": LETTERS, "data/more.jsonl.gz": [say(letter) for letter in "klmnopqrst"]}
    mixture = mix(rows, {"path": "letters"}, {"path": "data/more.jsonl.gz"})
    sources = [row["source"] for row in mixture.rows]
    assert Counter(sources) == {"letters": 10, "more": 10}
    assert sources not in (sorted(sources), sorted(sources, reverse=True))
    assert answers(mixture) != sorted(answers(mixture))


def test_every_row_and_the_manifest_name_the_source() -> None:
    mixture = mix({"letters": LETTERS}, {"path": "letters", "source": "abc", "split": "dev"})
    assert {row["source"] for row in mixture.rows} == {"abc"}
    [entry] = mixture.manifest["sources"]
    assert (entry["source"], entry["path"], entry["split"]) == ("abc", "letters", "dev")
    assert entry["revision"] == "commit of letters"


def test_columns_are_renamed() -> None:
    rows = {"qa": [{"question": "2+2?", "answer": "4", "completion": "no"}]}
    columns = {"prompt": "question", "completion": "answer"}
    mixture = mix(rows, {"path": "qa", "columns": columns})
    assert mixture.rows == [
        {
            "messages": [
                {"role": "user", "content": "2+2?"},
                {"role": "assistant", "content": "4"},
            ],
            "source": "qa",
        }
    ]
    with pytest.raises(DataError, match="'frage' is not a column; there are answer, completion"):
        mix(rows, {"path": "qa", "columns": {"prompt": "frage"}})


BAD = [say("a"), {"prompt": "?"}, say("b"), {"prompt": "?", "completion": " "}, {"prompt": "!"}]


def test_bad_rows_stop_the_run_and_are_listed() -> None:
    with pytest.raises(DataError) as caught:
        mix({"bad": BAD}, {"path": "bad"})
    message = str(caught.value)
    assert "source 'bad'" in message and "bad_rows: drop" in message
    assert "row 2: an SFT row needs" in message
    assert "row 4: the row has no assistant turn" in message and "row 5" in message
    assert "row 1:" not in message and "row 3" not in message


def test_bad_rows_are_dropped_and_counted_by_reason() -> None:
    mixture = mix({"bad": BAD}, {"path": "bad"}, bad_rows="drop")
    assert sorted(answers(mixture)) == ["a", "b"]
    [entry] = mixture.manifest["sources"]
    assert sorted(entry["dropped"].values()) == [1, 2]
    assert (entry["rows_read"], entry["rows_taken"]) == (5, 2)


def test_reasons_do_not_hold_what_the_rows_hold() -> None:
    rows = [{"messages": [{"role": name, "content": "x"}]} for name in ("me", "you", "they")]
    mixture = mix({"r": [*rows, say("a")]}, {"path": "r"}, bad_rows="drop")
    [(reason, count)] = mixture.manifest["sources"][0]["dropped"].items()
    assert count == 3 and "needs a role among" in reason and "they" not in reason


def test_a_long_bad_row_is_cut_in_the_message() -> None:
    rows = {"long": [{"messages": [{"role": "me", "content": "x" * 10_000}]}]}
    with pytest.raises(DataError) as caught:
        mix(rows, {"path": "long"})
    assert len(str(caught.value)) < 600


def test_at_most_five_bad_rows_are_listed() -> None:
    with pytest.raises(DataError) as caught:
        mix({"bad": [{"prompt": "?"}] * 20}, {"path": "bad"})
    assert str(caught.value).count("row needs") == 5


def test_nothing_left_is_an_error() -> None:
    with pytest.raises(DataError, match=r"'none' has no usable row.*no rows"):
        mix({"none": []}, {"path": "none"})
    with pytest.raises(DataError, match=r"no usable row .2 rows: an SFT row needs"):
        mix({"bad": [{"prompt": "?"}] * 2}, {"path": "bad"}, bad_rows="drop")


def test_filters_drop_with_their_reason() -> None:
    rows = [say("a"), say("b"), say("a"), {"prompt": " ", "completion": "c"}]
    filters = ["exact_duplicates", {"name": "empty_turns"}]
    mixture = mix({"rows": rows}, {"path": "rows"}, filters=filters)
    assert sorted(answers(mixture)) == ["a", "b"]
    [entry] = mixture.manifest["sources"]
    assert entry["dropped"] == {"an earlier row is the same": 1, "a turn is empty": 1}


def test_duplicates_are_found_across_sources() -> None:
    rows = {"one": [say("a"), say("b")], "two": [say("b"), say("c")]}
    mixture = mix(rows, {"path": "one"}, {"path": "two"}, filters=["exact_duplicates"])
    assert sorted(answers(mixture)) == ["a", "b", "c"]


SUM = {"prompt": "2+2?", "ground_truth": "4", "verifier": "gsm8k"}


@pytest.mark.parametrize(
    ("row", "entry", "remap", "verifier"),
    [
        (SUM, {}, {}, "gsm8k"),
        (SUM, {"verifier": "math"}, {}, "math"),
        (SUM, {}, {"gsm8k": "string_match"}, "string_match"),
        ({"prompt": "2+2?", "ground_truth": 4, "dataset": "gsm8k"}, {}, {}, "gsm8k"),
        (SUM | {"verifier": "GSM8K"}, {}, {}, "gsm8k"),
    ],
)
def test_the_verifier_of_a_problem(
    row: dict[str, Any], entry: dict[str, str], remap: dict[str, str], verifier: str
) -> None:
    entry = {"path": "sums", **entry}
    mixture = mix({"sums": [row]}, entry, kind="problem", remap_verifier=remap)
    [row] = mixture.rows
    assert (row["verifier"], row["ground_truth"]) == (verifier, "4")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"verifier": "gsm9k"}, "did you mean 'gsm8k'"),
        ({"ground_truth": "four"}, "'four'"),
        ({"verifier": None}, "name of a `verifier`"),
    ],
)
def test_problems_that_cannot_be_verified(change: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        mix({"sums": [SUM | change]}, {"path": "sums"}, kind="problem")


def test_a_real_file_twice_is_the_same(tmp_path: Path) -> None:
    path = tmp_path / "letters.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in LETTERS))
    entry = {"path": str(path), "num_samples": 25}
    one, two = build_mixture([entry]), build_mixture([Source(**entry)])
    assert one.rows == two.rows and one.manifest == two.manifest
    assert len(one.manifest["sources"][0]["sha256"]) == 64
