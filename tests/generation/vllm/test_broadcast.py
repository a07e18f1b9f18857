"""Weights that go to a server over a process group, and come back after its death."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.errors import RecipeError, ServerError
from posttrain.generation.base import Completion, Sampling
from posttrain.generation.probe import probe
from posttrain.generation.vllm.broadcast import (
    Broadcast,
    Kept,
    address_towards,
    keep,
    together,
    weights_of,
)
from posttrain.generation.vllm.client import Lost
from posttrain.generation.vllm.engine import VLLMEngine
from posttrain.generation.vllm.server.posttrain_vllm_group import broadcast, group_of, store_of
from posttrain.generation.vllm.settings import VLLMSettings

PROMPTS = [[5, 7, 9], [11, 3], [40, 41, 42, 43]]
EXACT = {"max_gap": 1e-4, "mean_gap": 1e-5}  # fp32 on both sides


def test_every_member_of_a_group_gets_the_first_ones_tensor() -> None:
    store = store_of("127.0.0.1", 0, lead=True)

    def member(rank: int) -> torch.Tensor:
        group = group_of("gloo", store_of("127.0.0.1", store.port), rank, 3)
        start = torch.arange(6.0) if rank == 0 else torch.zeros(6)
        return broadcast(group, start.to(torch.bfloat16))

    with ThreadPoolExecutor(3) as pool:
        for found in pool.map(member, range(3)):
            assert found.tolist() == [0, 1, 2, 3, 4, 5] and found.dtype == torch.bfloat16


def test_what_is_kept_is_a_copy_in_the_servers_precision(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(tie_word_embeddings=True))
    live = weights_of(model)
    assert "lm_head.weight" not in live  # it is the embedding
    kept = keep(3, live, torch.bfloat16)
    name = "model.embed_tokens.weight"
    assert kept.number == 3 and kept.tensors[name].dtype == torch.bfloat16
    before = kept.tensors[name].clone()
    with torch.no_grad():
        model.get_input_embeddings().weight.add_(1)
    assert torch.equal(kept.tensors[name], before)
    assert live[name].data_ptr() == model.get_input_embeddings().weight.data_ptr()


def test_a_server_that_refuses_ends_what_waits_for_it() -> None:
    freed: list[bool] = []

    def refuse() -> None:
        raise ServerError("no")

    with pytest.raises(ServerError, match="no"):
        together(refuse, lambda: None, lambda: freed.append(True))
    assert freed == [True]

    def fail() -> None:
        raise RuntimeError("connection closed by peer")

    with pytest.raises(Lost, match="could not be sent: connection closed"):
        together(lambda: None, fail)
    assert address_towards("127.0.0.1", 9) == "127.0.0.1"


@pytest.mark.parametrize("given", [{"weights": "post"}, {"weights": "broadcast", "sleep": True}])
def test_settings_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="weights: "):
        VLLMSettings(**given)


# --- a real server --------------------------------------------------------------------------------


@pytest.fixture
def sender(engine: VLLMEngine) -> Iterator[VLLMEngine]:
    """The session's engine, whose weights are broadcast."""
    before = engine.settings
    engine.settings = replace(before, weights="broadcast")
    yield engine
    engine.settings, engine.broadcast = before, None


@pytest.mark.slow
def test_weights_arrive_without_a_file(sender: VLLMEngine, load: Callable[..., Any]) -> None:
    version = sender.version
    for step, seed in enumerate((2, 3), start=1):
        model = load(seed=seed)
        assert sender.push(model) == version + step
        found = probe(sender, model, None, PROMPTS, **EXACT)
        assert found.others == 0 and found.versions == (version + step,)
    assert [type(v) for v in sender.loaded] == [Kept]
    assert isinstance(sender.broadcast, Broadcast)


@pytest.mark.slow
def test_a_server_of_somebody_else_needs_no_common_folder(
    engine: VLLMEngine, load: Callable[..., Any]
) -> None:
    client, settings = engine.client, replace(engine.settings, weights="broadcast")
    with VLLMEngine.connect(client.url, client.token, engine.stop, settings) as second:
        model = load(seed=4)
        engine.version = second.push(model)
        probe(second, model, None, PROMPTS, **EXACT)
        assert second.shelf is None
    engine.push(load())


@pytest.mark.slow
def test_weights_of_another_model_are_refused_before_any_is_sent(
    sender: VLLMEngine, load: Callable[..., Any], checkpoint: Callable[..., str]
) -> None:
    good = load(seed=2)
    version = sender.push(good)
    narrow = AutoModelForCausalLM.from_pretrained(checkpoint(head_dim=64))
    with pytest.raises(ServerError, match=r"k_proj.weight is \[128, 32\] and was \[64, 32\]"):
        sender.push(narrow)
    assert sender.version == version
    probe(sender, good, None, PROMPTS, **EXACT)
    assert sender.push(good) == version + 1


@pytest.mark.slow
def test_killed_in_the_middle_the_next_server_gets_them_again(
    sender: VLLMEngine, load: Callable[..., Any]
) -> None:
    model = load(seed=2)
    sender.push(model)
    prompts, sampling = [[5 + i, 7, 9] for i in range(48)], Sampling(64, 1.0)
    expected = sender(prompts, sampling, num_generations=2, seed=1)
    with torch.no_grad():
        model.model.norm.weight.zero_()  # the model moves on
    assert sender.server is not None and sender.server.process is not None
    killed, seen = sender.server.process.pid, []

    def hear(index: int, group: list[Completion]) -> None:
        seen.append(index)
        if len(seen) == 10:
            os.kill(killed, signal.SIGKILL)

    done = sender(prompts, sampling, num_generations=2, seed=1, on_group=hear)
    assert sender.server.process.pid != killed and sorted(seen) == list(range(48))
    assert [[c.ids for c in group] for group in done] == [[c.ids for c in g] for g in expected]
    again = load(seed=3)
    sender.push(again)  # over a new group
    probe(sender, again, None, PROMPTS, **EXACT)
