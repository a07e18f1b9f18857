"""What reference log-probs depend on, as short texts: a model's weights, the tokens of rows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn

from posttrain.packing.collate import PAIR
from posttrain.partitions import gathered

AT_ONCE = 10_000  # rows
PIECE = 2**22  # values of a tensor mixed at a time: bounds the memory
INTEGERS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
# odd 64-bit numbers of splitmix64 (Steele, Lea and Flood 2014), as signed
STEP, FIRST, SECOND = -7046029254386353131, -4658895280553007687, -7723592293110705685
# of a configuration: says where a model came from or how it is served, not what it computes
NOT_COMPUTED = {
    "architectures", "bos_token_id", "dtype", "eos_token_id", "pad_token_id", "torch_dtype",
    "transformers_version", "use_cache",
}  # fmt: skip


def rows_hash(rows: Any) -> str:
    """SHA-256 of the tokens of pairs, in order, however the rows are held.

    Args:
        rows: a `datasets.Dataset`, or any sequence of mappings.
    """
    mark = hashlib.sha256()
    for columns in token_columns(rows):
        for lengths, values in columns:
            mark.update(np.ascontiguousarray(lengths, np.int64).data)
            mark.update(np.ascontiguousarray(values, np.int32).data)
    return mark.hexdigest()


def token_columns(rows: Any) -> Iterator[list[tuple[np.ndarray, np.ndarray]]]:
    """Lengths and values of prompt, chosen and rejected, `AT_ONCE` rows at a time."""
    if not hasattr(rows, "select_columns"):
        for start in range(0, len(rows), AT_ONCE):
            some = [rows[i] for i in range(start, min(start + AT_ONCE, len(rows)))]
            parts = [[np.asarray(row[field], np.int32) for row in some] for field in PAIR]
            yield [(np.array([len(p) for p in part]), np.concatenate(part)) for part in parts]
        return
    import pyarrow.compute as pc

    for table in rows.select_columns(list(PAIR)).with_format("arrow").iter(AT_ONCE):
        columns = [table[field] for field in PAIR]
        yield [
            (pc.list_value_length(column).to_numpy(), pc.list_flatten(column).to_numpy())
            for column in columns
        ]


def weights_hash(model: nn.Module) -> str:
    """Fingerprint of everything that decides what a model computes: weights, buffers, settings.

    Tensors are mixed where they lie, in integers modulo 2^64, so the answer is exact, the same on
    any device and number of processes, and costs about one reading of the weights. Adapters are
    left out: the reference is the model without them. On several processes all must call it.
    """
    mark = hashlib.sha256(json.dumps(settings(model), sort_keys=True, default=str).encode())
    prefix = getattr(getattr(model, "base_model", None), "prefix", None)
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in sorted(tensors, key=lambda pair: bare(pair[0])):
        if (
            prefix
            and hasattr(model, "disable_adapter")
            and (prefix in name or ".modules_to_save." in name)
        ):
            continue
        with gathered([tensor]), torch.no_grad():
            whole = tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor.detach()
            facts = f"{bare(name)} {whole.dtype} {list(whole.shape)} {mixed(whole)}"
        mark.update(facts.encode())
    return mark.hexdigest()


def bare(name: str) -> str:
    """The name that a weight has in the model without adapters."""
    for part in ("base_model.model.", "base_layer.", "original_module."):
        name = name.replace(part, "")
    return name


def settings(model: Any) -> dict[str, Any]:
    """The part of a model's configuration that its outputs may depend on."""
    config = getattr(model, "config", None)
    values: dict[str, Any] = config.to_dict() if config is not None else {}
    return {k: v for k, v in values.items() if k not in NOT_COMPUTED and not k.startswith("_")}


def mixed(tensor: torch.Tensor) -> int:
    """One number of all bits of a tensor and their places; equal tensors have equal numbers."""
    bits = tensor.contiguous().view(-1).view(INTEGERS[tensor.element_size()])
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for start in range(0, len(bits), PIECE):
        value = bits[start : start + PIECE].to(torch.int64, copy=True)  # it is written into
        value += torch.arange(start, start + len(value), device=bits.device).add_(1).mul_(STEP)
        value = (value ^ (value >> 30)).mul_(FIRST)
        value = (value ^ (value >> 27)).mul_(SECOND)
        total += (value ^ (value >> 31)).sum()
    return int(total)
