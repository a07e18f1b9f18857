"""What the ecosystem writes, read into our row shapes."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.formats import to_row


def user(content: str) -> dict[str, str]:
    return {"role": "user", "content": content}


def model(content: str) -> dict[str, str]:
    return {"role": "assistant", "content": content}


ASK, GOOD, BAD = user("2+2?"), model("4"), model("5")
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 2}}}
ASKS = {"role": "assistant", "content": "", "tool_calls": [CALL]}
RESULT = {"role": "tool", "content": "4", "tool_call_id": "c1", "name": "add"}
TOOLS = [{"type": "function", "function": {"name": "add"}}]


@pytest.mark.parametrize(
    "raw",
    [
        {"messages": [ASK, GOOD]},
        {"prompt": "2+2?", "completion": "4"},
        {"prompt": [ASK], "completion": [GOOD]},
        {"prompt": [ASK], "completion": "4", "messages": None},
        {"messages": [ASK, GOOD], "prompt": "left alone"},
        {"messages": [ASK, GOOD], "tools": [], "id": 7},
    ],
)
def test_conversations(raw: dict[str, Any]) -> None:
    assert to_row("conversation", raw) == {"messages": [ASK, GOOD]}


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": "2+2?", "chosen": "4", "rejected": "5"},
        {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "2+2?", "chosen": GOOD, "rejected": BAD},
        {"chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"prompt": [ASK], "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
        {"prompt": "2+2?", "chosen": [ASK, GOOD], "rejected": [ASK, BAD]},
    ],
)
def test_preferences(raw: dict[str, Any]) -> None:
    row = {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]}
    assert to_row("preference", raw) == row


def test_whole_conversations_may_be_json_text() -> None:
    """How a table stores them. Answers to a `prompt` may be JSON because that was asked for."""
    sides = {"chosen": json.dumps([ASK, GOOD]), "rejected": json.dumps([ASK, BAD])}
    repairs: Counter[str] = Counter()
    row = to_row("preference", sides, repairs)
    assert row == {"prompt": [ASK], "chosen": [GOOD], "rejected": [BAD]}
    assert repairs == {"messages_parsed": 1}
    row = to_row("preference", {"prompt": "Write messages.", **sides})
    assert row["chosen"] == [model(sides["chosen"])]


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
        ("conversation", {"messages": 3.5}, "got 3.5"),
        ("conversation", {"messages": [ASK]}, "no assistant turn"),
        ("conversation", {"messages": [ASK, model("  ")]}, "no assistant turn"),
        ("conversation", {"messages": ["hi"]}, "`messages` needs a role among system, user"),
        ("conversation", {"messages": [user(None), GOOD]}, "`messages.content` must be text"),
        ("preference", {"chosen": "4"}, "`chosen` and `rejected`; it has ['chosen']"),
        ("preference", {"chosen": "4", "rejected": "5"}, "there is no `prompt`"),
        ("preference", {"prompt": "a", "chosen": "4", "rejected": "4"}, "equals"),
        ("preference", {"chosen": [ASK, GOOD], "rejected": [ASK, GOOD]}, "equals"),
        ("preference", {"chosen": [ASK, user("x")], "rejected": [ASK, BAD]}, "got user"),
        ("problem", {"ground_truth": "4"}, "needs `prompt` or `messages`"),
        ("problem", {"prompt": "a", "verifier": "gsm8k"}, "`ground_truth`"),
        ("problem", {"prompt": "a", "ground_truth": "4"}, "name of a `verifier`, got None"),
        ("problem", {"prompt": "a", "ground_truth": "4", "verifier": 3}, "got 3"),
        ("problem", {"prompt": [GOOD], "ground_truth": "4", "verifier": "math"}, "to answer"),
        (
            "problem",
            {"prompt": "a", "ground_truth": ["4"], "dataset": ["math", "code"]},
            "equally long, got 1 and 2",
        ),
        ("problem", {"prompt": "a", "ground_truth": "4", "verifier": [3]}, "names of its verif"),
        ("problem", {"prompt": "a", "ground_truth": b"4", "verifier": "math"}, "as JSON"),
        ("text", {"text": float("nan")}, "non-empty `text`"),
        ("conversation", {"messages": [ASK, GOOD | {"train": False}]}, "`train: false`"),
        ("conversation", {"messages": [ASK, RESULT, GOOD]}, "follows no assistant turn"),
        ("conversation", {"messages": [ASK, GOOD], "tools": "[add]"}, "`tools` must be JSON"),
        ("conversation", {"messages": [ASK, GOOD], "tools": {"add": 1}}, "list of JSON objects"),
        ("preference", {"prompt": "a", "chosen": " ", "rejected": "5"}, "`chosen` says nothing"),
        ("preference", {"prompt": "a", "chosen": "4", "rejected": ""}, "`rejected` says nothing"),
        ("preference", {"prompt": "a", "chosen": [ASK, GOOD], "rejected": "5"}, "share no turns"),
    ],
)
def test_rows_that_cannot_be_read(kind: str, raw: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as caught:
        to_row(kind, raw)
    assert says in str(caught.value)


@pytest.mark.parametrize("raw", [None, 3, "text", [ASK], float("nan")])
@pytest.mark.parametrize("kind", ["conversation", "preference", "problem", "text"])
def test_a_row_is_an_object(kind: str, raw: Any) -> None:
    with pytest.raises(DataError, match="must be an object"):
        to_row(kind, raw)


def test_tools_and_their_calls_are_kept() -> None:
    raw = {
        "messages": [ASK, ASKS | {"content": None}, RESULT, GOOD | {"train": True}],
        "tools": json.dumps(TOOLS),
    }
    row = to_row("conversation", raw)
    assert row == {"messages": [ASK, ASKS, RESULT, GOOD | {"train": True}], "tools": TOOLS}
    assert to_row("conversation", row) == row


def test_a_row_that_ends_with_a_call_is_learned() -> None:
    assert to_row("conversation", {"messages": [ASK, ASKS]}) == {"messages": [ASK, ASKS]}


def test_turns_after_the_last_answer_are_cut() -> None:
    repairs: Counter[str] = Counter()
    raw = {"messages": [ASK, GOOD, user("And 3+3?"), model(" ")]}
    assert to_row("conversation", raw, repairs) == {"messages": [ASK, GOOD]}
    assert repairs == {"turns_after_last_answer_cut": 1}


def test_an_empty_answer_in_between_is_not_trained() -> None:
    repairs: Counter[str] = Counter()
    raw = {"messages": [ASK, model(""), ASK, GOOD]}
    empty = model("") | {"train": False}
    assert to_row("conversation", raw, repairs) == {"messages": [ASK, empty, ASK, GOOD]}
    assert repairs == {"empty_answer_untrained": 1}


@pytest.mark.parametrize(
    "messages",
    [[GOOD, ASK, GOOD], [ASK, ASK, GOOD], [ASK, {"role": "system", "content": "Now!"}, GOOD]],
    ids=["assistant first", "two user turns", "system in the middle"],
)
def test_unusual_orders_are_left_alone(messages: list[Any]) -> None:
    repairs: Counter[str] = Counter()
    assert to_row("conversation", {"messages": messages}, repairs) == {"messages": messages}
    assert not repairs


def test_an_explicit_prompt_stays_when_multi_turn_answers_share_turns() -> None:
    raw = {"prompt": "2+2?", "chosen": [GOOD, ASK, GOOD], "rejected": [GOOD, ASK, BAD]}
    row = to_row("preference", raw)
    assert row == {"prompt": [ASK, GOOD, ASK], "chosen": [GOOD], "rejected": [BAD]}


@pytest.mark.parametrize(
    ("truth", "names", "expected"),
    [
        (["4"], ["gsm8k"], ("4", "gsm8k")),
        ("4", ["GSM8K"], ("4", "gsm8k")),
        ([["a", "b"]], ["code"], ('["a", "b"]', "code")),
        (["4", {"n": 1}], ["gsm8k", "ifeval"], ('["4", {"n": 1}]', "gsm8k+ifeval")),
    ],
)
def test_lists_of_verifiers(truth: Any, names: list[str], expected: tuple[str, str]) -> None:
    row = to_row("problem", {"messages": [ASK], "ground_truth": truth, "dataset": names})
    assert (row["ground_truth"], row["verifier"]) == expected


def test_one_verifier_may_replace_a_list() -> None:
    raw = {"prompt": "?", "ground_truth": ["4"], "dataset": ["gsm8k"], "verifier": "math"}
    row = to_row("problem", raw)
    assert (row["ground_truth"], row["verifier"]) == ("4", "math")


def test_the_answer_is_cut_from_a_problem() -> None:
    repairs: Counter[str] = Counter()
    raw = {"messages": [ASK, GOOD], "ground_truth": "4", "verifier": "gsm8k", "tools": TOOLS}
    row = to_row("problem", raw, repairs)
    assert (row["prompt"], row["tools"]) == ([ASK], TOOLS)
    assert repairs == {"answer_cut_from_prompt": 1}


def test_a_refused_row_counts_no_repair() -> None:
    repairs: Counter[str] = Counter()
    with pytest.raises(DataError):
        to_row("conversation", {"messages": [user("a\0")]}, repairs)
    assert not repairs
