"""The rule on words, and brackets around what a row repeats."""

from __future__ import annotations

from posttrain.decontamination.overlap import mark, matched, ngrams, row_ngrams


def test_words_that_lie_in_shared_ngrams() -> None:
    assert ngrams("A b, c", 2) == [("a", "b"), ("b", "c")]
    assert ngrams("a b c", 4) == []
    assert row_ngrams(["a b", "c d"], 2) == {("a", "b"), ("c", "d")}
    shared = row_ngrams(["b c", "a b"], 2)
    assert matched(ngrams("a b c d a b", 2), shared) == [True, True, True, False, True, True]
    assert matched(ngrams("a b c", 2), row_ngrams(["c", "a"], 2)) == [False] * 3


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
