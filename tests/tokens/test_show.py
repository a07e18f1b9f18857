"""Rows for people: marks in plain text, colour in a terminal, and nothing that drives it."""

from __future__ import annotations

from typing import Any

from posttrain.tokens import IGNORE, Tokenizer, show, show_rich
from posttrain.tokens.show import visible

USER = {"role": "user", "content": "Hi"}
ROW = {"messages": [USER, {"role": "assistant", "content": "Ho\x1b[2J"}]}


def green(text: Any) -> list[str]:
    return [text.plain[s.start : s.end] for s in text.spans if s.style == "green"]


def test_a_conversation(tokenizer: Any) -> None:
    row = Tokenizer(tokenizer, 99).each("conversation", [ROW])[0]
    assert show(row, tokenizer) == "<|user|>\nHi\n<|assistant|>\n⟦Ho\x1b[2J</s>⟧"
    rich = show_rich(row, tokenizer)
    assert rich.plain == "<|user|>\nHi\n<|assistant|>\nHo␛[2J</s>"
    assert green(rich) == ["Ho␛[2J</s>"]


def test_a_pair_and_a_problem(tokenizer: Any) -> None:
    sides = {s: [{"role": "assistant", "content": s}] for s in ("chosen", "rejected")}
    row = Tokenizer(tokenizer, 99).each("preference", [{"prompt": [USER], **sides}])[0]
    prompt = "<|user|>\nHi\n<|assistant|>\n"
    assert show(row, tokenizer) == (
        f"{prompt}\n--- chosen\n⟦chosen</s>⟧\n--- rejected\n⟦rejected</s>⟧"
    )
    assert green(show_rich(row, tokenizer)) == ["chosen</s>", "rejected</s>"]
    problem = {"prompt_ids": row["prompt_ids"], "verifier": "math", "ground_truth": "4"}  # type: ignore[index]
    assert show(problem, tokenizer) == f"{prompt}\n--- ground truth (math)\n4"
    assert green(show_rich(problem, tokenizer)) == []


def test_a_row_without_trained_tokens(tokenizer: Any) -> None:
    ids = tokenizer("a b")["input_ids"]
    assert show({"input_ids": ids, "labels": [IGNORE] * len(ids)}, tokenizer) == "a b"


def test_control_characters() -> None:
    assert visible("a\tb\nc\rd\x00\x7f é") == "a\tb\nc␍d␀␡ é"
