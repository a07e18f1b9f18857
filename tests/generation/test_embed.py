"""Texts as the mean of a model's last hidden states."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from posttrain.decontamination import Decontaminator, EvalSet
from posttrain.errors import ModelError
from posttrain.generation.embed import ModelEmbed

TEXTS = ["What is 1 plus 2?", "Hi", "", "a much longer text about numbers and their sums", "Hi"]


@pytest.fixture
def embed(checkpoint: Callable[..., str]) -> ModelEmbed:
    return ModelEmbed.load(checkpoint())


def test_the_mean_over_the_tokens_of_each_text_alone(embed: ModelEmbed) -> None:
    vectors = embed(TEXTS)
    for text, vector in zip(TEXTS, vectors, strict=True):
        ids = embed.tokenizer(text)["input_ids"]
        if not ids:
            assert not vector.any()
            continue
        with torch.no_grad():
            hidden = embed.model(input_ids=torch.tensor([ids])).last_hidden_state
        np.testing.assert_allclose(vector, hidden[0].mean(0).numpy(), rtol=1e-4, atol=1e-5)
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


def test_batches_and_their_order_change_nothing(embed: ModelEmbed) -> None:
    small = ModelEmbed(embed.model, embed.tokenizer, batch_size=2)
    np.testing.assert_allclose(small(TEXTS[::-1])[::-1], embed(TEXTS), rtol=1e-4, atol=1e-5)


def test_long_texts_are_cut(embed: ModelEmbed) -> None:
    short = ModelEmbed(embed.model, embed.tokenizer, max_length=3)
    ids = embed.tokenizer("abc def ghi")["input_ids"]
    start = embed.tokenizer.decode(ids[:3])
    np.testing.assert_allclose(short(["abc def ghi"]), embed([start]), rtol=1e-4, atol=1e-5)


def test_a_training_model_stays_one(embed: ModelEmbed) -> None:
    embed.model.train()
    first = embed(TEXTS)
    assert embed.model.training
    np.testing.assert_array_equal(embed(TEXTS), first)


def test_it_is_an_embedder_for_decontamination(embed: ModelEmbed) -> None:
    sets = [EvalSet("e", ["What is 1 plus 2?", "name a city"])]
    finder = Decontaminator(sets, "embedding", threshold=0.999, embed=embed)
    rows: list[dict[str, Any]] = [{"text": "What is 1 plus 2?"}, {"text": "zzz"}]
    found = finder.matches(rows)
    assert [(m.eval_set, m.eval_row) for m in found[0]] == [(0, 0)]
    assert found[1] == []


def test_a_missing_model() -> None:
    with pytest.raises(ModelError, match=r"\./no/such/model cannot be loaded to embed texts"):
        ModelEmbed.load("./no/such/model")
