"""The sync probe: silent where sampler and trainer agree, and clear where they do not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from posttrain.errors import ProbeError
from posttrain.generation.base import Completion, Sampling
from posttrain.generation.local import LocalEngine
from posttrain.generation.probe import compare, probe

PROMPTS = ["What is 12 plus 30?", [20, 21], [30, 31, 32]]
EXACT = {"max_gap": 1e-4, "mean_gap": 1e-5}


@dataclass(frozen=True)
class Told:
    """An engine that says other log-probs than it has: each goes through a function."""

    engine: LocalEngine
    say: Callable[[int, float], float]

    def __call__(self, prompts: Any, sampling: Any, **options: Any) -> list[list[Completion]]:
        done = self.engine(prompts, sampling, **options)
        return [[replace(c, logps=self.each(c.logps)) for c in group] for group in done]

    def each(self, logps: Sequence[float]) -> list[float]:
        return [self.say(i, logp) for i, logp in enumerate(logps)]


@pytest.fixture
def model(checkpoint: Callable[..., str]) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint()).train()


@pytest.fixture
def other(checkpoint: Callable[..., str]) -> Any:
    """Other weights of the same shape."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    torch.manual_seed(2)
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, 0, 0.15)
    return model


def test_the_models_own_engine_passes(model: Any, tokenizer: PreTrainedTokenizerFast) -> None:
    engine = LocalEngine(model, [1])
    for temperature in (0.0, 1.0, 0.5):
        found = probe(engine, model, tokenizer, PROMPTS, temperature=temperature, **EXACT)
        assert found.tokens > 16 and found.versions == (None,)
    assert model.training
    assert probe(engine, model, tokenizer, PROMPTS).others == 0


def test_other_weights_are_named(
    model: Any, other: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    with pytest.raises(ProbeError, match="engine has other weights") as error:
        probe(LocalEngine(other, [1]), model, tokenizer, PROMPTS)
    said = str(error.value)
    assert "(bound: 0.05)" in said and "(bound: 1)" in said and "prompt" in said


def test_gaps_that_begin_after_the_first_token_point_at_positions(
    model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = Told(LocalEngine(model, [1]), lambda i, logp: logp - 0.2 * (i > 0))
    with pytest.raises(ProbeError, match="position encoding"):
        probe(engine, model, tokenizer, PROMPTS)


def test_small_gaps_everywhere_point_at_precision(
    model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    engine = Told(LocalEngine(model, [1]), lambda i, logp: logp + 0.06 * (-1) ** i)
    with pytest.raises(ProbeError, match="different precision"):
        probe(engine, model, tokenizer, PROMPTS)
    probe(engine, model, tokenizer, PROMPTS, mean_gap=0.1)


def test_one_token_out_of_bounds_or_not_a_number_is_enough(
    model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    once = Told(LocalEngine(model, [1]), lambda i, logp: logp - 1.1 * (i == 3))
    with pytest.raises(ProbeError, match=r"by 1\.1 at most"):
        probe(once, model, tokenizer, PROMPTS, mean_gap=1)
    nothing = Told(LocalEngine(model, [1]), lambda i, logp: float("nan"))
    with pytest.raises(ProbeError, match="by inf at most"):
        probe(nothing, model, tokenizer, PROMPTS)


def test_logps_before_the_temperature_are_found(
    model: Any, tokenizer: PreTrainedTokenizerFast
) -> None:
    class Undivided(Told):
        def __call__(self, prompts: Any, sampling: Any, **options: Any) -> list[list[Completion]]:
            return self.engine(prompts, Sampling(sampling.max_new_tokens, 1.0), **options)

    engine = Undivided(LocalEngine(model, [1]), lambda i, logp: logp)
    with pytest.raises(ProbeError, match="before the temperature"):
        probe(engine, model, tokenizer, PROMPTS, temperature=0.3)


def test_the_numbers_by_hand() -> None:
    """Gaps 0, 0.5 and 0.25 over two answers; one of three tokens is not the model's."""
    answers = [Completion([4, 5], True, [-1.0, -2.0], 7), Completion([6], True, [-0.5], 7)]
    forced = [
        (torch.tensor([-1.0, -1.5]), torch.tensor([4, 9])),
        (torch.tensor([-0.75]), torch.tensor([6])),
    ]
    found = compare([[1], [2]], answers, forced)
    assert (found.mean, found.largest, found.tokens) == (0.25, 0.5, 3)
    assert (found.others, found.first, found.versions) == (1 / 3, 0.125, (7,))
    assert "token 1 of the answer to prompt 0 (id 5): -2.0000 by the engine" in found.where
