"""Hashes of rows and weights: what changes them and what does not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForCausalLM

from posttrain.models import Adapter, add_adapter
from posttrain.trainers import fingerprint
from posttrain.trainers.fingerprint import mixed, rows_hash, weights_hash

ROWS = [
    {"prompt_ids": [1, 2], "chosen_ids": [3, 4], "rejected_ids": [5], "source": "a"},
    {"prompt_ids": [6], "chosen_ids": [7], "rejected_ids": [8, 9], "source": "b"},
]


def load(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder)


def test_rows_are_their_tokens_however_they_are_held() -> None:
    known = rows_hash(ROWS)
    assert rows_hash(Dataset.from_list(ROWS)) == known
    assert rows_hash([{**row, "source": "c"} for row in ROWS]) == known
    assert rows_hash(Dataset.from_list(ROWS[::-1])) != known
    # a selection does not start where its Arrow buffers do
    assert rows_hash(Dataset.from_list([ROWS[0], *ROWS]).select([1, 2])) == known


def test_a_token_on_the_other_side_of_a_border_is_another_row() -> None:
    moved = {**ROWS[0], "prompt_ids": [1], "chosen_ids": [2, 3, 4]}
    assert rows_hash([moved, ROWS[1]]) != rows_hash(ROWS)


def test_rows_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fingerprint, "AT_ONCE", 2)
    rows = [*ROWS, *ROWS, ROWS[0]]
    assert rows_hash(rows) == rows_hash(Dataset.from_list(rows))


WIDE = [torch.float64, torch.int64]  # as wide as the numbers that they are mixed in


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float16, torch.uint8, *WIDE]
)
def test_every_bit_and_its_place_count(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.arange(100).to(dtype)
    known = mixed(values)
    assert torch.equal(values, torch.arange(100).to(dtype))  # it is only read
    swapped = values.clone()
    swapped[[3, 90]] = swapped[[90, 3]]
    assert mixed(swapped) != known
    values[50] += 1
    assert mixed(values) != known
    values[50] -= 1
    monkeypatch.setattr(fingerprint, "PIECE", 7)  # how it is cut does not count
    assert mixed(values) == known


def test_the_smallest_change_of_a_weight_counts(checkpoint: Callable[..., str]) -> None:
    model = load(checkpoint())
    known = weights_hash(model)
    assert weights_hash(load(checkpoint())) == known
    weight = model.model.layers[1].mlp.down_proj.weight
    with torch.no_grad():
        weight[3, 5] = torch.nextafter(weight[3, 5], torch.tensor(10.0))
    assert weights_hash(model) != known


def test_precision_and_settings_count(checkpoint: Callable[..., str]) -> None:
    known = weights_hash(load(checkpoint()))
    assert weights_hash(load(checkpoint()).bfloat16()) != known
    model = load(checkpoint())
    model.config.rms_norm_eps = 1e-3
    assert weights_hash(model) != known


def test_where_a_model_lies_and_how_it_generates_does_not_count(
    checkpoint: Callable[..., str],
) -> None:
    model = load(checkpoint())
    known = weights_hash(model)
    model.config._name_or_path, model.config.use_cache = "elsewhere", False
    model.config.pad_token_id, model.config.architectures = 7, None
    assert weights_hash(model) == known


def test_adapters_do_not_count(checkpoint: Callable[..., str]) -> None:
    known = weights_hash(load(checkpoint()))
    model = add_adapter(load(checkpoint()), Adapter(r=2))
    assert weights_hash(model) == known
