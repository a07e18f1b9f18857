"""Continuous batching: what is forwarded, when answers come, and what they depend on."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.generation import engine, run
from posttrain.generation.base import Completion, Sampling
from posttrain.generation.engine import unfit
from posttrain.generation.local import generate_ids

STOPS = list(range(1, 320, 12))
LONG = Sampling(max_new_tokens=24, temperature=1.0)


def prompts(count: int, seed: int = 0) -> list[list[int]]:
    draw = random.Random(seed)
    return [[draw.randrange(2, 320) for _ in range(draw.randrange(1, 30))] for _ in range(count)]


@pytest.fixture
def model(checkpoint: Callable[..., str]) -> Any:
    return AutoModelForCausalLM.from_pretrained(checkpoint()).eval()


@pytest.fixture
def forwarded(model: Any) -> list[int]:
    """Tokens of every forward pass from now on; the engine has looked at the model before."""
    unfit(model)
    seen: list[int] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].numel()), with_kwargs=True
    )
    return seen


def test_nothing_is_forwarded_twice_or_padded(model: Any, forwarded: list[int]) -> None:
    given = prompts(12)
    done = generate_ids(model, given, LONG, STOPS, num_generations=3, batch_size=4)
    new = sum(len(c.ids) for group in done for c in group)
    # each prompt once for its three answers; the last token of an answer never
    assert sum(forwarded) == sum(map(len, given)) + new - 36


def test_finished_rows_leave_and_waiting_prompts_enter(model: Any, forwarded: list[int]) -> None:
    done = generate_ids(model, [[9]] * 40, LONG, STOPS, batch_size=8)
    lengths = [len(group[0].ids) for group in done]
    assert len(set(lengths)) > 3
    assert max(forwarded) == 8
    # five batches that each wait for their longest row would take as many passes as these
    waiting = sum(max(lengths[i : i + 8]) for i in range(0, 40, 8))
    assert len(forwarded) < 0.9 * waiting + 8


def test_a_draw_does_not_depend_on_the_company(model: Any) -> None:
    given = prompts(11)

    def draw(**options: Any) -> list[list[Completion]]:
        return generate_ids(model, given, LONG, STOPS, num_generations=4, **options)

    whole = draw(batch_size=64, seed=5)
    for size in (1, 2, 3):
        assert draw(batch_size=size, seed=5) == whole
    assert draw(seed=6) != whole
    assert all(len({tuple(c.ids) for c in group}) > 1 for group in whole if len(group[0].ids) > 1)
    alone = generate_ids(model, given[3:4], LONG, STOPS, num_generations=2, seed=5, numbers=[3])
    assert alone[0] == whole[3][:2]
    torch.manual_seed(0)
    assert draw(seed=5) == whole


def test_log_probs_are_those_of_a_plain_forward(model: Any) -> None:
    given = prompts(6)
    for sampling in (
        LONG,
        Sampling(max_new_tokens=24, temperature=0.7, top_p=0.9),
        Sampling(max_new_tokens=24, temperature=0),
    ):
        done = generate_ids(model, given, sampling, STOPS, num_generations=2, batch_size=2)
        for prompt, group in zip(given, done, strict=True):
            for completion in group:
                ids = torch.tensor([prompt + completion.ids])
                with torch.no_grad():
                    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
                logps = (logits / (sampling.temperature or 1)).log_softmax(-1)
                own = logps.gather(-1, ids[0, len(prompt) :, None])[:, 0]
                torch.testing.assert_close(torch.tensor(completion.logps), own)


def test_groups_come_while_others_are_under_way(model: Any, forwarded: list[int]) -> None:
    came: list[tuple[int, int]] = []
    groups: dict[int, list[Completion]] = {}

    def note(index: int, group: list[Completion]) -> None:
        came.append((index, len(forwarded)))
        groups[index] = group

    done = generate_ids(
        model, prompts(10), LONG, STOPS, num_generations=2, batch_size=3, on_group=note
    )
    assert [groups[i] for i in range(10)] == done
    assert len(came) == 10
    assert came[0][1] < len(forwarded) / 3
    assert came[-1][1] == len(forwarded)


def test_waves_are_joined_and_the_answers_stay_the_same(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = prompts(60)
    expected = generate_ids(model, given, LONG, STOPS, batch_size=64)
    joined: list[int] = []
    join = engine.Wave.join

    def counted(self: engine.Wave, younger: engine.Wave) -> None:
        joined.append(len(younger))
        join(self, younger)

    monkeypatch.setattr(engine.Wave, "join", counted)
    monkeypatch.setattr(engine, "MOST_WAVES", 1)
    assert generate_ids(model, given, LONG, STOPS, batch_size=8) == expected
    assert joined


def test_prompts_of_many_tokens_enter_in_parts(
    model: Any, forwarded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = prompts(9)
    expected = generate_ids(model, given, LONG, STOPS)
    monkeypatch.setattr(run, "PREFILL_TOKENS", 20)
    forwarded.clear()
    assert generate_ids(model, given, LONG, STOPS) == expected
    assert forwarded[0] <= 20


def test_an_answer_of_one_token(model: Any) -> None:
    once = generate_ids(model, prompts(5), Sampling(max_new_tokens=1), [], num_generations=2)
    assert [[len(c.ids) for c in group] for group in once] == [[1, 1]] * 5
    assert not any(c.finished for group in once for c in group)


@pytest.mark.parametrize(
    ("kind", "fields", "why"),
    [
        ("bloom", {}, "does not go through"),
        ("gemma2", {"head_dim": 16}, "does not go through"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}}, "longest row"),
    ],
)
def test_what_the_engine_cannot_run_and_why(
    kind: str,
    fields: dict[str, Any],
    why: str,
    build: Callable[..., Any],
    caplog: pytest.LogCaptureFixture,
) -> None:
    other = build(kind, **fields)
    with caplog.at_level("WARNING"):
        assert why in unfit(other)
        assert unfit(other)
    assert sum("model.generate" in r.message for r in caplog.records) == 1


def test_a_model_that_the_engine_would_get_wrong_is_found_out(model: Any) -> None:
    assert unfit(model) == ""
    odd = type(model)(model.config)
    attention = odd.model.layers[0].self_attn
    first = attention.forward
    calls = iter(range(10**6))

    def drifting(*args: Any, **kwargs: Any) -> Any:  # as one that keeps a state of its own would
        out, weights = first(*args, **kwargs)
        return out * (1 + next(calls)), weights

    attention.forward = drifting
    assert "off by" in unfit(odd)
