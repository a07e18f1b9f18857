"""FLOPs counted by hand, and the rate of this machine's own matmul."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForTokenClassification

from posttrain.models import Adapter, add_adapter
from posttrain.trainers.flops import ModelFlops, cost, measured, model_flops, peak_flops

# tests/conftest.py: width 32, inner 64, 2 layers, 4 heads of 8, 2 of them for keys and values
LAYER = 32 * 32 * 2 + 32 * 16 * 2 + 3 * 32 * 64
BODY = 2 * LAYER


def test_a_token_costs_six_per_weight_and_the_head_only_where_it_is_used(
    checkpoint: Callable[..., str], tokenizer: Any
) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    vocabulary = model.lm_head.weight.shape[0]
    found = model_flops(model)
    assert found == ModelFlops(6 * BODY, 6 * 32 * vocabulary, 12 * 2 * 4 * 8)
    assert found(10, 3, 55) == 60 * BODY + 18 * 32 * vocabulary + 55 * 768


def test_tied_embeddings_are_the_head(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(tie_word_embeddings=True))
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert model_flops(model).per_token == 6 * BODY
    assert model_flops(model).per_trained == 6 * model.lm_head.weight.numel()


def test_frozen_matrices_have_no_gradient_of_their_own(checkpoint: Callable[..., str]) -> None:
    model = add_adapter(AutoModelForCausalLM.from_pretrained(checkpoint()), Adapter(r=4))
    adapters = sum(p.numel() for p in model.parameters() if p.requires_grad)
    head = model.get_base_model().lm_head.weight.numel()
    assert model_flops(model) == ModelFlops(4 * BODY + 6 * adapters, 4 * head, 768)


def test_a_scalar_head_is_a_matrix_like_any_other(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForTokenClassification.from_pretrained(checkpoint(), num_labels=1)
    assert model_flops(model) == ModelFlops(6 * (BODY + 32), 0.0, 768)


def test_of_experts_those_that_work_count(checkpoint: Callable[..., str]) -> None:
    folder = checkpoint("mixtral", num_local_experts=4, num_experts_per_tok=1)
    model = AutoModelForCausalLM.from_pretrained(folder)
    attention, router, expert = 32 * 32 * 2 + 32 * 16 * 2, 4 * 32, 3 * 32 * 64
    assert model_flops(model).per_token == 6 * 2 * (attention + router + expert)


def test_partitioned_and_quantised_matrices_have_their_whole_shape() -> None:
    shard = torch.nn.Parameter(torch.zeros(0))
    shard.ds_shape = torch.Size([5, 7])  # type: ignore[attr-defined]
    assert cost(shard) == 6 * 35
    packed = torch.nn.Parameter(torch.zeros(18, 1, dtype=torch.uint8), requires_grad=False)
    packed.quant_state = type("State", (), {"shape": torch.Size([6, 6])})()  # type: ignore[attr-defined]
    assert cost(packed) == 4 * 36
    assert cost(torch.nn.Parameter(torch.zeros(9))) == 0


def test_the_rate_of_a_cpu_is_measured_once() -> None:
    cpu = torch.device("cpu")
    rate = peak_flops(cpu, torch.float32)
    assert rate == measured(cpu, torch.float32) == peak_flops(cpu, torch.float32)
    assert 1e9 < rate < 1e14
    state = torch.get_rng_state()
    measured.cache_clear()
    measured(cpu, torch.float32)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator")
def test_a_matmul_is_below_the_data_sheet() -> None:
    device = torch.device("cuda")
    rate = measured(device, torch.bfloat16)
    assert 0.3 < rate / peak_flops(device, torch.bfloat16) < 1.05
