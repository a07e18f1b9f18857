"""A trained model as a folder that stands alone, compared with what it was made from.

Adapters are folded into the weights they were trained on, in float32. Before anything gets its
name, logits of the model with its adapter, of the merged one and of the written files are compared.
"""

from __future__ import annotations

import gc
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from posttrain.errors import ModelError, RunError
from posttrain.models import (
    QUANTISATION,
    adapted_model,
    check_checkpoint,
    load_config,
    load_model,
    load_tokenizer,
    save_model,
)
from posttrain.packing import Group, forward_inputs, pack
from posttrain.pipeline.counting import say

PROBES = (
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "def add(a, b):\n    return a + b\n",
    "12 + 30 = 42. Therefore, the answer is 42.",
)
# largest gap that is let pass, as a share of the logits' own spread
MERGE_GAP = 1e-3
WRITE_GAP = {torch.float32: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.25}
DTYPES = {str(dtype).removeprefix("torch."): dtype for dtype in WRITE_GAP}
ADAPTER = "adapter_config.json"


@dataclass(frozen=True)
class Origin:
    """What is exported: a whole model at `path`, or the adapter at `path` of the model `base`."""

    path: str
    base: str | None = None
    head: str = "lm"
    four_bit: bool = False


def export_model(
    source: str, out: Path, *, merge: bool, dtype: str | None = None, base: str | None = None
) -> dict[str, float]:
    """Write a model folder: safetensors, tokenizer, template and generation settings.

    Args:
        source: a stage's folder, a checkpoint, an adapter, a model folder or a hub id.
        merge: fold the adapter in, where there is one.
        dtype: of the written weights; default: that of the base, or of the model.
        base: the model that the adapter goes on; default: the one it was trained on.

    Returns:
        Largest gaps between logits, as shares of their spread: `adapter` (what the adapter moves),
        `merge` (merged against adapter) and `write` (written files against merged).

    Raises:
        ModelError: there is no such model, or a gap is above its bound.
        RunError: `out` is there already.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ModelError(f"--dtype: got {dtype!r}; allowed are {', '.join(DTYPES)}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"--out {out} is there already; choose another folder, or move it away")
    aside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        gaps = write(origin_of(source, merge, base, aside / "whole"), aside / "model", dtype)
        if out.is_dir():
            out.rmdir()
        os.replace(aside / "model", out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return gaps


def write(origin: Origin, folder: Path, dtype: str | None) -> dict[str, float]:
    """Load, merge, write and compare."""
    check_checkpoint(origin.base or origin.path)
    tokenizer = tokenizer_of(origin)
    probes, gaps = [tokenizer(text)["input_ids"] for text in PROBES], {}
    config = load_config(origin.base or origin.path)
    model: Any
    chosen = DTYPES[dtype] if dtype else getattr(config, "dtype", None) or torch.float32
    if origin.base is None:
        model = load_model(origin.path, head=origin.head)
        expected = logits(model, probes)
    else:
        adapted = adapted_model(origin.path, origin.base, origin.head, tokenizer=tokenizer)
        with adapted.disable_adapter():
            without = logits(adapted, probes)
        unmerged = logits(adapted, probes)
        gaps["adapter"] = gap(without, unmerged)
        model = adapted.merge_and_unload()
        expected = logits(model, probes)
        gaps["merge"] = check("the merged model", gap(unmerged, expected), MERGE_GAP)
        say(
            f"merged {origin.path} into {origin.base}: on {len(probes)} probes the adapter moves"
            f" logits by {gaps['adapter']:.2g} of their spread, merging by {gaps['merge']:.2g}"
        )
        if origin.four_bit:
            say(
                "the adapter was trained on weights in 4 bits and is merged into those in full"
                " precision: its answers differ a little from those in training"
            )
    save_model(model.to(chosen), tokenizer, folder)
    del model
    gc.collect()
    written = logits(load_model(str(folder), head=origin.head), probes)
    limit = WRITE_GAP.get(chosen, 0.25)
    gaps["write"] = check(f"what was written as {chosen}", gap(expected, written), limit)
    say(f"written as {chosen}: logits differ by {gaps['write']:.2g} of their spread")
    return gaps


def origin_of(source: str, merge: bool, base: str | None, room: Path) -> Origin:
    """What a folder (or hub id) is, and what has to be done with it."""
    folder = Path(source)
    if (folder / "adapter" / ADAPTER).is_file() and merge:  # a stage's folder
        folder = folder / "adapter"
    elif (folder / "model" / "config.json").is_file():
        folder = folder / "model"
    if not (folder / ADAPTER).is_file():
        path = str(folder) if folder.is_dir() else source
        if (folder / "latest").is_file() and not any(folder.glob("*.safetensors*")):
            consolidate(folder, room)
            path = str(room)
        return Origin(path, head=head_of(load_config(path).architectures))
    if not merge:
        raise ModelError(
            f"{folder} holds an adapter, which is no model of its own: add --merge to fold it in"
        )
    settings = json.loads((folder / ADAPTER).read_text(encoding="utf-8"))
    base = base or settings.get("base_model_name_or_path")
    if not base:
        raise ModelError(f"{folder / ADAPTER} names no base model: give it with --base")
    return Origin(
        str(folder),
        base,
        "lm" if settings.get("task_type") == "CAUSAL_LM" else "scalar",
        (folder / QUANTISATION).is_file(),
    )


def head_of(architectures: list[str] | None) -> str:
    """`scalar` for a reward model."""
    names = "".join(architectures or [])
    scalar = "ForSequenceClassification" in names or "ForTokenClassification" in names
    return "scalar" if scalar else "lm"


def consolidate(checkpoint: Path, out: Path) -> None:
    """Whole weights from a ZeRO-3 checkpoint that holds only each process's share."""
    from deepspeed.utils.zero_to_fp32 import convert_zero_checkpoint_to_fp32_state_dict

    convert_zero_checkpoint_to_fp32_state_dict(str(checkpoint), str(out), safe_serialization=True)
    for path in checkpoint.iterdir():
        if path.suffix in (".json", ".jinja") and path.name != "trainer_state.json":
            shutil.copy(path, out)


def tokenizer_of(origin: Origin) -> Any:
    """The tokenizer that was trained with: an adapter's own, where it lies beside it."""
    own = origin.base is None or any(Path(origin.path).glob("tokenizer*"))
    return load_tokenizer(origin.path if own else str(origin.base))


@torch.no_grad()
def logits(model: Any, probes: list[list[int]]) -> torch.Tensor:
    """`[tokens, V]` (a reward model: `[tokens, 1]`) of all probes, in one packed pass."""
    model.eval()
    batch = pack([Group([], [(ids, ids)]) for ids in probes])
    return model(**forward_inputs(batch), use_cache=False).logits[0].float()


def gap(one: torch.Tensor, other: torch.Tensor) -> float:
    """Largest difference, as a share of the standard deviation of the first."""
    rows = min(one.shape[-1], other.shape[-1])
    return float((one[:, :rows] - other[:, :rows]).abs().max() / one.std().clamp(min=1e-12))


def check(what: str, value: float, limit: float) -> float:
    """Refuse a gap above its limit; NaN is above any."""
    if not value <= limit:
        raise ModelError(
            f"{what} is another model: its logits differ by {value:.3g} of their spread, and at"
            f" most {limit:g} is let pass; nothing was written"
        )
    return value
