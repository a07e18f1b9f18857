"""`model.generate` under our draw: the tokens that the engine would choose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from posttrain.generation import fallback
from posttrain.generation.local import Sampling, generate_ids

PROMPTS = [[10, 11, 12, 13, 14, 15, 16], [20], [30, 31, 32]]
STOPS = list(range(1, 320, 12))


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_it_draws_what_the_engine_draws(temperature: float, build: Callable[..., Any]) -> None:
    model = build()
    sampling = Sampling(16, temperature)
    ours = generate_ids(model, PROMPTS, sampling, STOPS, num_generations=3, seed=4)
    theirs = fallback.generate(model, PROMPTS, sampling, STOPS, 3, 4, range(3))
    assert theirs == ours
    for a, b in zip(ours, theirs, strict=True):
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(torch.tensor(x.logps), torch.tensor(y.logps))


def test_a_model_without_our_attention_is_completed_all_the_same(
    build: Callable[..., Any],
) -> None:
    model = build("bloom")
    came: list[int] = []
    done = generate_ids(
        model, PROMPTS, Sampling(8, 0), STOPS, batch_size=2, on_group=lambda i, g: came.append(i)
    )
    assert sorted(came) == [0, 1, 2]
    for prompt, group in zip(PROMPTS, done, strict=True):
        alone = model.generate(
            torch.tensor([prompt]), max_new_tokens=8, do_sample=False, eos_token_id=STOPS,
            pad_token_id=0, attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        )  # fmt: skip
        assert group[0].ids == alone[0, len(prompt) :].tolist()
        assert group[0].finished == (group[0].ids[-1] in STOPS)
