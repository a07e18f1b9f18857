"""Floating-point operations that a model's training needs, and how many a device can do.

Model FLOPs as in PaLM (Chowdhery et al. 2022, arXiv:2204.02311, appendix B): what the mathematics
asks for, not what is done again to save memory. A multiplication and an addition are two.

    token           6 per weight of a matrix that is trained, 4 per one that is frozen
    trained token   the same for the weights of the language-model head: no other token reaches it
    query and key   12 x layers x heads x head width

6 = 2 forward + 2 for the gradient of the inputs + 2 for the gradient of the weights, which a
frozen matrix does not have. Embeddings are looked up, and cost nothing. Of a mixture of experts
the experts that a token is sent to count.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import Any

import torch

# Dense bf16 / fp16 tensor-core FLOP/s from the vendors' data sheets. A name before those it holds.
PEAKS = {
    "B200": 2250e12, "H200": 989e12, "H100 NVL": 835e12, "H100 PCIe": 756e12, "H100": 989e12,
    "GH200": 989e12, "H20": 148e12, "A100": 312e12, "A800": 312e12, "A10G": 70e12, "A10": 125e12,
    "L40S": 362e12, "L40": 181e12, "L4": 121e12, "V100": 125e12, "T4": 65e12,
    "RTX 4090": 165e12, "RTX 3090": 71e12, "MI300X": 1307e12,
}  # fmt: skip
SIZE = {"cpu": 1024, "cuda": 8192}  # of the square matrices of a measurement
REPEATS = 5


@dataclass(frozen=True)
class ModelFlops:
    """FLOPs of forward and backward per token, per token that the head sees, per query and key."""

    per_token: float
    per_trained: float
    per_pair: float

    def __call__(self, tokens: float, trained: float, pairs: float) -> float:
        return self.per_token * tokens + self.per_trained * trained + self.per_pair * pairs


def model_flops(model: Any) -> ModelFlops:
    """Counts the matrices of a loaded model, whole, partitioned (ZeRO-3) or in 4 bits."""
    bare = model.get_base_model() if hasattr(model, "get_base_model") else model
    config = bare.config.get_text_config()
    head, embedding = bare.get_output_embeddings(), bare.get_input_embeddings()
    looked_up = {id(p) for p in embedding.parameters()}
    in_head = {id(p): p for p in head.parameters()} if head is not None else {}
    used = experts_used(config)
    body = 0.0
    for name, parameter in model.named_parameters():
        if id(parameter) not in looked_up and id(parameter) not in in_head:
            body += cost(parameter) * (used if ".experts." in name else 1)
    heads = getattr(config, "num_attention_heads", 0)
    width = getattr(config, "head_dim", None) or getattr(config, "hidden_size", 0) // max(heads, 1)
    layers = getattr(config, "num_hidden_layers", 0)
    return ModelFlops(body, sum(map(cost, in_head.values())), 12.0 * layers * heads * width)


def cost(parameter: Any) -> float:
    """FLOPs per token of a matrix; vectors (norms, biases) count as nothing."""
    state = getattr(parameter, "quant_state", None)  # 4 bits are packed in bytes
    shape = state.shape if state is not None else getattr(parameter, "ds_shape", parameter.shape)
    if len(shape) < 2:
        return 0.0
    return (6.0 if parameter.requires_grad else 4.0) * torch.Size(shape).numel()


def experts_used(config: Any) -> float:
    """Share of the experts that a token is sent to; 1 without experts."""
    names = ("num_local_experts", "num_experts", "n_routed_experts")
    number = next((n for name in names if (n := getattr(config, name, None))), None)
    return getattr(config, "num_experts_per_tok", number) / number if number else 1.0


def peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """FLOP/s that a device can reach: of its data sheet, else as its own matmul measures."""
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        name = torch.cuda.get_device_name(device)
        for known, peak in PEAKS.items():
            if known in name:
                return peak
    return measured(device, dtype)


@functools.cache
def measured(device: torch.device, dtype: torch.dtype) -> float:
    """The best of a few square matmuls, once per process (0.2 s on one core)."""
    size = SIZE.get(device.type, 2048)
    a = torch.ones(size, size, device=device, dtype=dtype)  # no random number of the run is drawn
    best = float("inf")
    for _ in range(REPEATS):
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        start = time.perf_counter()
        (a @ a)[0, 0].item()
        best = min(best, time.perf_counter() - start)
    return 2.0 * size**3 / best
