"""Brackets around what a row repeats."""

from __future__ import annotations

from posttrain.decontamination.marks import mark


def test_runs_of_shared_words() -> None:
    prompt = "Well: one, two three! And then four-five six. End"
    assert mark(prompt, ["ONE TWO THREE", "so four five six then"], 3) == (
        "Well: ⟦one, two three⟧! And then ⟦four-five six⟧. End"
    )
    assert mark(prompt, ["nothing"], 3) == prompt
    assert mark("a b c", ["a b c"], 2) == "⟦a b c⟧"


def test_a_short_prompt_is_marked_whole() -> None:
    assert mark("(Who wrote it?)", ["who wrote it"], 8) == "(⟦Who wrote it⟧?)"
    assert mark("?", ["?"], 8) == "?"
