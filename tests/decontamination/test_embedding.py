"""Similar texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from posttrain.decontamination import embedding
from posttrain.decontamination.embedding import Embeddings, Lexical, buckets, unit
from posttrain.decontamination.prompts import read_eval_file, user_turns


def count_ab(texts: Sequence[str]) -> NDArray[np.floating]:
    """`[a's, b's]`: angles that can be worked out by hand."""
    return np.array([[text.count("a"), text.count("b")] for text in texts], np.float64)


def test_cosines_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [{0: 1.0, 2: pytest.approx(0.8)}, {1: 1.0, 2: pytest.approx(0.6)}, {}, {2: 1.0}]
    batch = [["aa"], ["x", "bbb"], ["x", " "], ["aaaabbb"]]
    for size in (1024, 1):  # blocks of one text and one prompt give the same
        monkeypatch.setattr(embedding, "_BLOCK", size)
        monkeypatch.setattr(embedding, "_COLUMNS", size)
        found = Embeddings(["a", "bb", "aaaabbb"], 0.59, count_ab)(batch)
        found[3] = {doc: cosine for doc, cosine in found[3].items() if cosine > 0.9}
        assert found == expected


def test_a_row_is_as_similar_as_its_most_similar_turn() -> None:
    (found,) = Embeddings(["a"], 0.1, count_ab)([["aaaabbb", "a", "aaabbbb"]])
    assert found == {0: 1.0}


def test_nothing_is_similar_to_nothing() -> None:
    np.testing.assert_allclose(unit(np.array([[0, 0], [3, 4]])), [[0, 0], [0.6, 0.8]], rtol=1e-6)
    assert Embeddings(["xyz"], 0.01, count_ab)([["xyz"]]) == [{}]


def test_runs_of_letters_by_hand() -> None:
    place, weight = buckets("aaaa", 256)  # " aaaa ": 3 of " aaaa "[i:i+3], aaa twice, ...
    assert sorted(abs(weight).round(4)) == [1.0] * 7 + [round(1 + float(np.log(2)), 4)]
    assert place.min() >= 0
    assert place.max() < 256
    assert len(buckets("", 256)[0]) == 0
    assert np.array_equal(buckets("Aa!", 256)[0], buckets("aa", 256)[0])


def test_rare_letters_weigh_more() -> None:
    texts = ["the common words here"] * 9 + ["zebra"]
    embed = Lexical.fit(texts, 4096)
    common, rare = embed.idf[buckets("common", 4096)[0]], embed.idf[buckets("zebra", 4096)[0]]
    assert common.mean() < 1.5 < rare.mean()  # two runs may share a bucket
    assert embed(["zebra", ""]).shape == (2, 4096)
    assert not embed([""]).any()


def test_paraphrases_of_gsm8k(
    data: Callable[[str], Path], rows: Callable[[str], list[dict[str, Any]]]
) -> None:
    """The measured recall of the built-in embedder, and what it flags by accident."""
    prompts = read_eval_file(data("gsm8k/test.jsonl.gz")).prompts
    find = Embeddings(prompts, 0.5)
    texts = [row["text"] for row in rows("decontamination/rephrase_gsm8k.jsonl.gz")]
    questions = [t.removeprefix("Question: ").split("\nAnswer:")[0] for t in texts]
    found = find([[question] for question in questions])
    recall = sum(i in docs for i, docs in enumerate(found)) / len(found)
    wrong = sum(any(doc != i for doc in docs) for i, docs in enumerate(found)) / len(found)
    assert 0.55 < recall < 0.62
    assert wrong < 0.01
    train = [user_turns(row) for row in rows("gsm8k/train.jsonl.gz")[:1000]]
    assert sum(map(bool, find(train))) / 1000 < 0.02
