"""What the ecosystem writes, read into our row shapes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.formats import to_messages, to_row


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def model(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


ASK, GOOD, BAD = user("2+2?"), model("4"), model("5")


@pytest.mark.parametrize(
    "raw",
    [
        {"messages": [ASK, GOOD]},
        {"prompt": "2+2?", "completion": "4"},
        {"prompt": [ASK], "completion": [GOOD]},
        {"prompt": [ASK], "completion": "4", "messages": None},
        {"messages": [ASK | {"name": "Ada"}, GOOD], "prompt": "left alone"},
    ],
)
def test_conversations(raw: dict[str, Any]) -> None:
    assert to_row("conversation", raw) == {"messages": [ASK, GOOD]}


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"prompt": "2+2?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    ],
)
def test_preferences(raw: dict[str, Any]) -> None:
    row = {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]}
    assert to_row("preference", raw) == row


def test_sides_that_part_before_their_last_turn() -> None:
    raw = {"chosen": [ASK, GOOD, user("Sure?"), GOOD], "rejected": [ASK, BAD, user("No!"), GOOD]}
    row = to_row("preference", raw)
    assert row["prompt"] == [ASK]
    assert (len(row["chosen"]), len(row["rejected"])) == (3, 3)


@pytest.mark.parametrize(
    ("raw", "truth", "verifier"),
    [
        ({"prompt": "2+2?", "ground_truth": "4", "verifier": "gsm8k"}, "4", "gsm8k"),
        ({"prompt": [ASK], "ground_truth": 4, "verifier": "GSM8K"}, "4", "gsm8k"),
        ({"messages": [ASK, GOOD], "ground_truth": "4", "dataset": "math"}, "4", "math"),
        (
            {"messages": [ASK], "ground_truth": {"n": "ä"}, "dataset": "ifeval"},
            '{"n": "ä"}',
            "ifeval",
        ),
    ],
)
def test_problems(raw: dict[str, Any], truth: str, verifier: str) -> None:
    row = to_row("problem", raw)
    assert row == {"prompt": [ASK], "ground_truth": truth, "verifier": verifier}


def test_a_list_as_truth_is_kept_as_json() -> None:
    raw = {"prompt": "?", "ground_truth": ["assert f(1) == 2"], "verifier": "code"}
    assert json.loads(to_row("problem", raw)["ground_truth"]) == raw["ground_truth"]


def test_text() -> None:
    assert to_row("text", {"text": " a ", "id": 3}) == {"text": " a "}


@pytest.mark.parametrize(
    ("kind", "raw", "says"),
    [
        ("text", {"body": "a"}, "it has ['body']"),
        ("text", {"text": "  "}, "non-empty `text`"),
        ("conversation", {"question": "a"}, "name the fields with `columns:"),
        ("conversation", {"prompt": "a"}, "`prompt` and `completion`"),
        ("conversation", {"messages": []}, "non-empty list"),
        ("conversation", {"messages": 3}, "got 3"),
        ("conversation", {"messages": [ASK]}, "no assistant turn"),
        ("conversation", {"messages": [ASK, model("  ")]}, "no assistant turn"),
        ("conversation", {"messages": ["hi"]}, "`messages[0]` needs a role among system, user"),
        ("conversation", {"messages": [ASK, {"role": "gpt", "content": ""}]}, "`messages[1]`"),
        ("conversation", {"messages": [user(None), GOOD]}, "`messages[0].content` must be text"),
        ("preference", {"chosen": "4"}, "`chosen` and `rejected`; it has ['chosen']"),
        ("preference", {"chosen": "4", "rejected": "5"}, "there is no `prompt`"),
        ("preference", {"prompt": "a", "chosen": "4", "rejected": "4"}, "equals"),
        ("preference", {"chosen": [ASK, GOOD], "rejected": [ASK, GOOD]}, "equals"),
        ("preference", {"chosen": [ASK, user("x")], "rejected": [ASK, BAD]}, "got user"),
        ("problem", {"ground_truth": "4"}, "needs `prompt` or `messages`"),
        ("problem", {"prompt": "a", "verifier": "gsm8k"}, "`ground_truth`"),
        ("problem", {"prompt": "a", "ground_truth": "4"}, "name of a `verifier`, got None"),
        ("problem", {"prompt": "a", "ground_truth": "4", "verifier": 3}, "got 3"),
    ],
)
def test_rows_that_cannot_be_read(kind: str, raw: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        to_row(kind, raw)
    assert says in str(caught.value)


def test_a_string_is_one_turn() -> None:
    assert to_messages("hi", "user", "prompt") == [user("hi")]
