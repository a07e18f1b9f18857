"""A real vLLM server: its tokens, log-probs and weights are the trainer's, whatever happens."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from posttrain.errors import ProbeError, RecipeError, ServerError
from posttrain.generation.base import Completion, Sampling
from posttrain.generation.local import generate_ids
from posttrain.generation.probe import compare, forced_logps, probe
from posttrain.generation.vllm.engine import VLLMEngine

pytestmark = pytest.mark.slow

PROMPTS = [[10, 11, 12, 13, 14, 15, 16], [20], [30, 31, 32], [40, 41, 42, 43]]
GREEDY = Sampling(max_new_tokens=12, temperature=0)
EXACT = {"max_gap": 1e-4, "mean_gap": 1e-5}  # fp32 on both sides
Answers = Sequence[Sequence[Completion]]


def ids(answers: Answers) -> list[list[list[int]]]:
    return [[c.ids for c in group] for group in answers]


def adapted(model: Any, seed: int) -> Any:
    """An adapter that changes what the model says."""
    torch.manual_seed(seed)
    config = LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM")
    model = get_peft_model(model, config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, 0, 0.3)
    return model.eval()


def test_greedy_is_the_models_own_token_for_token(
    engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    model = load()
    done = engine(PROMPTS, GREEDY, num_generations=2)
    for prompt, group in zip(PROMPTS, done, strict=True):
        out = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=12,
            do_sample=False,
            eos_token_id=engine.stop,
            pad_token_id=0,
        )
        expected = out[0, len(prompt) :].tolist()
        assert [c.ids for c in group] == [expected, expected]
        assert {c.finished for c in group} == {expected[-1] in engine.stop}
        assert {c.version for c in group} == {engine.version}
    assert len({len(group[0].ids) for group in done}) > 1


@pytest.mark.parametrize(
    "sampling",
    [Sampling(12, 1.0), Sampling(12, 0.7), Sampling(12, 0.7, top_p=0.6), Sampling(12, 1.3, 1, 5)],
    ids=["plain", "temperature", "nucleus", "top 5"],
)
def test_logps_are_those_of_the_trainer_at_the_temperature_over_the_whole_vocabulary(
    sampling: Sampling, engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    done = engine(PROMPTS, sampling, num_generations=3, seed=4)
    prompts = [p for p in PROMPTS for _ in range(3)]
    answers = [c for group in done for c in group]
    forced = forced_logps(load(), prompts, answers, sampling.temperature)
    assert compare(prompts, answers, forced).largest < 1e-5


def test_a_draw_depends_on_seed_and_numbers_alone(engine: VLLMEngine) -> None:
    sampling = Sampling(12, 1.0)
    seen: list[int] = []
    done = engine(
        PROMPTS, sampling, num_generations=3, seed=4, on_group=lambda i, group: seen.append(i)
    )
    assert sorted(seen) == [0, 1, 2, 3]
    turned = engine(PROMPTS[::-1], sampling, num_generations=2, seed=4, numbers=[3, 2, 1, 0])
    assert [group[:2] for group in done] == turned[::-1]
    assert engine(PROMPTS, sampling, num_generations=3, seed=5) != done
    assert len({tuple(c.ids) for c in done[0]}) == 3


def test_more_prompt_tokens_than_vllm_takes_at_once(
    engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    prompts = [[(7 * i + j) % 300 + 5 for j in range(150)] for i in range(40)]
    sampling = Sampling(4, 1.0)
    together = engine(prompts, sampling, num_generations=2, seed=1)
    alone = [engine([prompts[i]], sampling, seed=1, numbers=[i])[0][0] for i in (0, 13, 39)]
    assert alone == [together[i][0] for i in (0, 13, 39)]
    flat, answers = [p for p in prompts for _ in range(2)], [c for g in together for c in g]
    assert compare(flat, answers, forced_logps(load(), flat, answers, 1.0)).largest < 1e-5


def test_pushed_weights_are_those_that_answer(engine: VLLMEngine, load: Callable[..., Any]) -> None:
    new = load(seed=2)
    before, version = ids(engine(PROMPTS, GREEDY)), engine.version
    assert engine.push(new) == version + 1
    done = engine(PROMPTS, GREEDY)
    assert ids(done) == ids(generate_ids(new, PROMPTS, GREEDY, engine.stop)) != before
    assert {c.version for group in done for c in group} == {version + 1}
    found = probe(engine, new, None, PROMPTS, **EXACT)
    assert found.others == 0 and found.versions == (version + 1,)


def test_a_pushed_adapter_goes_on_the_weights_before_and_off_with_the_next(
    engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    base, model = load(), adapted(load(), seed=3)
    plain = ids(engine(PROMPTS, GREEDY))
    for seed in (3, 4):
        model = adapted(load(), seed)
        engine.push(model)
        expected = ids(generate_ids(model.get_base_model(), PROMPTS, GREEDY, engine.stop))
        assert ids(engine(PROMPTS, GREEDY)) == expected != plain
        probe(engine, model, None, PROMPTS, **EXACT)
    engine.push(base)
    assert ids(engine(PROMPTS, GREEDY)) == plain


def test_a_probe_finds_weights_that_were_not_pushed(
    engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    with pytest.raises(ProbeError, match="the engine has other weights"):
        probe(engine, load(seed=2), None, PROMPTS)
    nearly = load()
    with torch.no_grad():
        nearly.model.layers[0].mlp.down_proj.weight.mul_(1.05)  # one step that went missing
    with pytest.raises(ProbeError, match=f"version {engine.version}"):
        probe(engine, nearly, None, PROMPTS, **EXACT)


def test_killed_in_the_middle_nothing_is_lost_or_counted_twice(
    engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    prompts = [[5 + i, 7, 9] for i in range(48)]
    sampling = Sampling(64, 1.0)
    engine.push(load(seed=2))
    engine.push(adapted(load(seed=2), seed=3))  # both have to come back
    expected = engine(prompts, sampling, num_generations=2, seed=1)
    assert engine.server is not None and engine.server.process is not None
    killed, seen = engine.server.process.pid, []

    def hear(index: int, group: list[Completion]) -> None:
        seen.append(index)
        if len(seen) == 10:
            os.kill(killed, signal.SIGKILL)

    done = engine(prompts, sampling, num_generations=2, seed=1, on_group=hear)
    assert engine.server.process.pid != killed
    assert sorted(seen) == list(range(48))
    assert ids(done) == ids(expected)
    assert {c.version for group in done for c in group} == {engine.version}


def test_what_the_server_cannot_do_it_says_and_lives(
    engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    with pytest.raises(ServerError, match="no sleep mode"):
        engine.sleep()
    with pytest.raises(ServerError, match="cannot complete prompt 1"):
        engine([[5], [5] * 600], GREEDY)
    with pytest.raises(ServerError, match="raise max_length"):
        engine([[5] * 508], Sampling(600, 1.0))
    with pytest.raises(RecipeError, match=r"at least 0\.01"):
        engine(PROMPTS, Sampling(12, 0.001))
    version = engine.version
    wide = get_peft_model(load(), LoraConfig(r=64, target_modules="all-linear"))
    with pytest.raises(ServerError, match="rank"):
        engine.push(wide)
    assert engine.version == version
    probe(engine, load(), None, PROMPTS, **EXACT)


def test_weights_that_do_not_fit_leave_those_before(
    engine: VLLMEngine, load: Callable[..., Any], checkpoint: Callable[..., str]
) -> None:
    good = load(seed=2)
    version = engine.push(good)
    narrow = AutoModelForCausalLM.from_pretrained(checkpoint(head_dim=64))
    with pytest.raises(ServerError, match=r"k_proj.weight is \[128, 32\] and was \[64, 32\]"):
        engine.push(narrow)
    assert engine.version == version
    probe(engine, good, None, PROMPTS, **EXACT)
    assert engine.push(good) == version + 1


def test_a_connection_needs_the_token_and_ends_nothing(
    engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    client = engine.client
    with pytest.raises(ServerError, match="token is missing or wrong"):
        VLLMEngine.connect(client.url, "guess", engine.stop)
    with VLLMEngine.connect(client.url, client.token, engine.stop) as second:
        assert second.version == engine.version
        assert second(PROMPTS, GREEDY) == engine(PROMPTS, GREEDY)
        second.version = engine.push(load(seed=2))  # as the other processes of a launch do
        assert second(PROMPTS, GREEDY) == engine(PROMPTS, GREEDY)
    assert engine.server is not None and engine.server.alive
