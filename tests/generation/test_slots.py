"""Static shapes: the same answers, few shapes, room that grows and is given back."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch

from posttrain.attention import use_attention
from posttrain.generation import slots
from posttrain.generation.base import Completion, Sampling
from posttrain.generation.engine import unfit
from posttrain.generation.local import generate_ids
from posttrain.generation.slots import Static
from posttrain.generation.waves import NAME

STOPS = list(range(1, 320, 12))
SAMPLINGS = (Sampling(24), Sampling(24, 0), Sampling(24, 0.7, top_k=9), Sampling(1))
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"kind": "llama"},
    "window": {"kind": "mistral", "sliding_window": 7},
    "gpt2": {"kind": "gpt2"},
}


def prompts(count: int) -> list[list[int]]:
    draw = random.Random(0)
    return [[draw.randrange(2, 320) for _ in range(draw.randrange(1, 30))] for _ in range(count)]


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a few rows meet every case."""
    monkeypatch.setattr(slots, "BLOCK", 8)
    monkeypatch.setattr(slots, "FEWEST", 2)


def logps(groups: list[list[Completion]]) -> torch.Tensor:
    return torch.tensor([logp for group in groups for c in group for logp in c.logps])


@pytest.mark.parametrize("fields", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("sampling", SAMPLINGS, ids=("sampled", "greedy", "top_k", "one token"))
def test_answers_are_those_of_the_packed_engine(
    fields: dict[str, Any], sampling: Sampling, build: Callable[..., Any]
) -> None:
    model, given = build(**fields), prompts(17)
    options = {"num_generations": 3, "seed": 4}
    packed = generate_ids(model, given, sampling, STOPS, **options, static_shapes=False)
    for size in (64, 5, 1):
        static = generate_ids(
            model, given, sampling, STOPS, **options, batch_size=size, static_shapes=True
        )
        assert static == packed
        torch.testing.assert_close(logps(static), logps(packed), rtol=0, atol=1e-5)


def test_there_are_few_shapes(build: Callable[..., Any]) -> None:
    """Prompts aside, a step has all places, half of them once there is room, and so on."""
    model = build("llama")
    unfit(model)
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    generate_ids(model, [[9, 8]] * 4, Sampling(60), STOPS, num_generations=8, static_shapes=True)
    assert seen[0] == 8  # four prompts, once each
    assert set(seen[1:]) <= {32, 16, 8, 4, 2} and len(set(seen)) >= 4
    assert seen[1:] == sorted(seen[1:], reverse=True)


def test_columns_come_in_blocks_and_a_pass_is_made_for_each(
    build: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[int, int, int]] = []
    plain = Static.forward_pass

    def note(self: Static, columns: int) -> Any:
        made.append((len(self.owner), columns, self.keys.room))
        return plain(self, columns)

    monkeypatch.setattr(Static, "forward_pass", note)
    model = build("llama")
    generate_ids(model, [[5] * 3, [7] * 12], Sampling(20), [], batch_size=1, static_shapes=True)
    # tokens 4 to 23 of the short one in three blocks, 13 to 32 of the long one: room grows by half
    assert made == [(1, 8, 8), (1, 16, 16), (1, 24, 24), (1, 16, 24), (1, 32, 40)]


def test_a_pass_can_be_repeated(build: Callable[..., Any]) -> None:
    """A CUDA graph is recorded from calls that must not leave anything behind."""
    model = build("llama")
    model.eval()
    with torch.no_grad(), use_attention(model, NAME):
        run = Static(
            model, prompts(4), Sampling(9), [], 2, 64, 0, range(4), lambda index, group: None
        )
        run.enter(run.entering())
        run.step()
        columns = slots.blocks(max(run.length))
        run.grow(slots.blocks(columns))
        again = run.forward_pass(columns)
        first = again().clone()
        assert torch.equal(again(), first)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_on_a_gpu_steps_are_graphs(
    build: Callable[..., Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, given = build("llama").cuda(), prompts(17)
    replayed: list[int] = []
    replay = torch.cuda.CUDAGraph.replay
    monkeypatch.setattr(
        torch.cuda.CUDAGraph, "replay", lambda self: (replayed.append(1), replay(self))[1]
    )
    static = generate_ids(model, given, Sampling(24), STOPS, num_generations=3)
    assert "no CUDA graph" not in caplog.text and len(replayed) > 24
    packed = generate_ids(model, given, Sampling(24), STOPS, num_generations=3, static_shapes=False)
    same = [a == b for a, b in zip(static, packed, strict=True)]
    assert sum(same) >= 0.9 * len(same)  # rounding may move a draw
