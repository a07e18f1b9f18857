"""Log-probs of pairs under the reference, as a table that is computed once and kept on disk.

The reference is the model that a stage starts from, the same without its adapters, or another one
that the user gives. A table is filled before the first step, while the model still is the
reference, so no second copy of the weights is held during training. It stands in two places: in
the cache, under a key of what the numbers depend on and nothing else, so that a sweep over learning
rates computes it once; and in the run folder, for a resumed run has no reference to ask.

A table is `[rows, 4]`: summed log-probs of chosen and rejected, and the parts of those sums up to
the length of the shorter answer. Losses that weigh the tail differently share it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from accelerate.utils import broadcast
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback

from posttrain.attention import set_attention
from posttrain.errors import ModelError, RunError
from posttrain.losses.base import segment_sum, within_shared
from posttrain.models import load_model, load_tokenizer, resize_to
from posttrain.packing import Collator, Rows, row_lengths, split_by_tokens
from posttrain.packing.batches import check_budget
from posttrain.store import Writer, cached, key_of
from posttrain.tokens import check_same_words
from posttrain.trainers.fingerprint import rows_hash, weights_hash
from posttrain.trainers.saving import undrawn

if TYPE_CHECKING:
    from posttrain.trainers.dpo import DPOTrainer

FILE = "reference_logps.safetensors"
COLUMNS = {"logps": "float32"}
WIDTH = 4
CHUNK = 1024  # pairs computed between two writes
VERSION = 1  # raised when the same key would give other numbers
PATIENCE = 5.0  # seconds between two looks at a lock that another run holds
WAIT = -1


class ReferenceLogps(TrainerCallback):
    """Fills the tables of the training rows and of the evaluation sets when training begins."""

    def __init__(self, trainer: DPOTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        trainer, path = self.trainer, Path(args.output_dir) / FILE
        sets = {"train": trainer.train_dataset, **evaluation_sets(trainer.eval_dataset)}
        if state.global_step and (path.is_file() or not trainer.has_reference()):
            tables = read_tables(path, len(trainer.train_dataset))
        else:
            tables = tables_of(trainer, sets)
            if trainer.accelerator.is_main_process:
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file(tables, f"{path}.tmp")
                os.replace(f"{path}.tmp", path)
        if isinstance(trainer.ref_model, nn.Module):
            trainer.ref_model = None  # it has said all that it will be asked
        trainer.reference = tables.pop("train").to(args.device)
        for name, values in tables.items():
            if name in sets:
                trainer.keep_reference(sets[name], values)


def tables_of(trainer: DPOTrainer, sets: Mapping[str, Any]) -> dict[str, torch.Tensor]:
    """The tables of some data sets, by name. Neither training's meters nor its draws move."""
    with trainer.apart(), undrawn(trainer.args.device), reference_model(trainer) as model:
        return {name: table(trainer, model, rows) for name, rows in sets.items()}


def read_tables(path: Path, rows: int) -> dict[str, torch.Tensor]:
    """The tables of an interrupted run.

    Raises:
        RunError: they are missing, or of other rows.
    """
    if not path.is_file():
        raise RunError(
            f"{path} is missing, and the reference cannot be computed from a model "
            "that was trained on: put it back, or start again in another folder"
        )
    tables = load_file(path)
    if tables["train"].shape != (rows, WIDTH):
        raise RunError(
            f"{path} is of {len(tables['train'])} rows and the data set has "
            f"{rows}: resume on the same rows, or start again in another folder"
        )
    return tables


def evaluation_sets(value: Any) -> dict[str, Any]:
    """The trainer's evaluation data, one set or several by name."""
    named = value.items() if isinstance(value, Mapping) else [("", value)]
    return {f"eval.{name}": rows for name, rows in named if rows is not None}


# --- the model ------------------------------------------------------------------------------------


def check_reference_words(words: PreTrainedTokenizerBase, path: str, **options: Any) -> None:
    """Refuse a reference whose tokenizer calls other texts by the same ids.

    A folder without a tokenizer passes: nothing in it says what its ids mean.

    Raises:
        ModelError: naming the reference and a token that differs.
    """
    if Path(path).is_dir() and not any(Path(path).glob("tokenizer*")):
        return
    try:
        check_same_words(words, load_tokenizer(path, **options))
    except ModelError as error:
        raise ModelError(f"reference {path!r}: {error}") from error


@contextmanager
def reference_model(trainer: DPOTrainer) -> Iterator[nn.Module]:
    """The reference, ready to be run: the trainer's own model as it is, or the one it was given."""
    given: Any = trainer.ref_model
    if given is None:
        model = trainer.model_wrapped if trainer.model_wrapped is not None else trainer.model
        with adapters_off(trainer.accelerator.unwrap_model(model)):
            yield model
        return
    if isinstance(given, str):
        own: Any = trainer.accelerator.unwrap_model(trainer.model)
        options = trainer.args.ref_model_init_kwargs or {}
        given = load_model(given, dtype=own.dtype, **options)
    resize_to(given, trainer.processing_class)
    set_attention(given)
    home = next(given.parameters()).device
    if trainer.is_deepspeed_enabled:
        from trl.models.utils import prepare_deepspeed

        yield prepare_deepspeed(given, trainer.accelerator)
        return
    yield given.to(trainer.args.device)
    given.to(home)


def adapters_off(model: Any) -> Any:
    """With adapters the reference is the model without them."""
    return model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()


# --- the table ------------------------------------------------------------------------------------


def table(trainer: DPOTrainer, model: nn.Module, rows: Any) -> torch.Tensor:
    """`[rows, 4]` log-probs of every pair, from the cache where they were computed before.

    The first process reads and writes the cache and tells the others what is left to compute. It
    also keeps them company while another run computes the same: a collective would time out.
    """
    state = trainer.accelerator
    lengths = row_lengths(rows)
    order = np.argsort(-lengths, kind="stable")  # rows of like length run together
    chunks = [order[start : start + CHUNK] for start in range(0, len(order), CHUNK)]
    key, told = key_for(trainer, model, rows), False

    def build(writer: Writer) -> None:
        nonlocal told
        told = agree(trainer, len(writer.chunks)) >= 0
        for rows_of_chunk in chunks[len(writer.chunks) :]:
            values = logps_of(trainer, model, rows, lengths, rows_of_chunk).numpy()
            widths = np.full(len(values), WIDTH, np.int64)
            writer.append({"logps": (values.ravel(), widths)}, {})

    values = torch.zeros(len(rows), WIDTH)
    if state.is_main_process:
        store = cached(key, COLUMNS, build, waiting=lambda: wait(trainer))
        if not told:
            agree(trainer, len(chunks))
        values[torch.from_numpy(order)] = torch.from_numpy(store.column("logps").reshape(-1, WIDTH))
    else:
        while (done := agree(trainer, 0)) == WAIT:
            continue
        for rows_of_chunk in chunks[done:]:
            logps_of(trainer, model, rows, lengths, rows_of_chunk)
    return from_main(trainer, values)


def key_for(trainer: DPOTrainer, model: nn.Module, rows: Any) -> str | None:
    """What the numbers of a table depend on; `None`, if a collator of the user's hides it.

    Template and lengths are in the tokens. How rows are batched is not in it, nor anything of the
    optimizer: they move the numbers by no more than rounding.
    """
    if type(trainer.data_collator) is not Collator:
        return None
    return key_of(
        what="reference log-probs of pairs",
        version=VERSION,
        rows=rows_hash(rows),
        weights=weights_hash(trainer.accelerator.unwrap_model(model)),
        precision=[str(trainer.accelerator.mixed_precision), bool(trainer.args.tf32)],
    )


def logps_of(
    trainer: DPOTrainer, model: nn.Module, rows: Any, lengths: np.ndarray, some: np.ndarray
) -> torch.Tensor:
    """`[len(some), 4]` log-probs of some pairs, computed by all processes together.

    Raises:
        RunError: a value is not finite.
    """
    state = trainer.accelerator
    seats = {int(row): i for i, row in enumerate(some)}
    mine = micro_batches(trainer, lengths, some)[state.process_index :: state.num_processes]
    loader = DataLoader(Rows(rows), batch_sampler=mine, collate_fn=trainer.data_collator)
    values = torch.zeros(len(some), WIDTH, device=trainer.args.device)
    training = model.training
    model.eval()
    for batch in loader:
        seat = [seats[row] for row in batch["index"].tolist()]
        batch = trainer._prepare_inputs(batch)
        with torch.no_grad(), state.autocast():
            logps = trainer.logps(model, batch)
        if seat:
            values[seat] = pair_sums(logps, batch)
    model.train(training)
    values = state.reduce(values, reduction="sum").cpu()
    if not values.isfinite().all():
        bad = int(some[int((~values.isfinite()).any(1).nonzero()[0])])
        raise RunError(
            f"the reference's log-prob of row {bad} is not finite: its weights or the precision "
            "(fp16 overflows where bf16 does not) cannot be used"
        )
    return values


def micro_batches(trainer: DPOTrainer, lengths: np.ndarray, some: np.ndarray) -> list[list[int]]:
    """Rows per forward pass, as many passes for each process; -1 is no row."""
    args, world = trainer.args, trainer.accelerator.num_processes
    budget, rows = args.max_tokens_per_device, args.per_device_train_batch_size
    if budget is None and args.packing:
        budget = max(2 * args.max_length * rows, int(lengths.max()))
    if budget is None:
        parts = [some[i : i + rows].tolist() for i in range(0, len(some), rows)]
    else:
        check_budget(int(lengths[some].max()), budget)
        parts = [some[part].tolist() for part in split_by_tokens(lengths[some], budget, world)]
    parts += [[]] * (-len(parts) % world)
    return [part or [-1] for part in parts]


def pair_sums(logps: torch.Tensor, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """`[B, 4]` sums of `[K]` log-probs: chosen, rejected, and their parts of the shared length."""
    segment, tokens = batch["segment"], batch["tokens"]
    shared = logps * within_shared(segment, tokens)
    sums = [segment_sum(part, segment, len(tokens)).view(-1, 2) for part in (logps, shared)]
    return torch.cat(sums, 1)


# --- processes ------------------------------------------------------------------------------------


def from_main(trainer: DPOTrainer, values: torch.Tensor) -> torch.Tensor:
    """The main process's values, on every process."""
    if trainer.accelerator.num_processes == 1:
        return values
    shared: torch.Tensor = broadcast(values.to(trainer.args.device), from_process=0)
    return shared.cpu()


def agree(trainer: DPOTrainer, number: int) -> int:
    """The main process's number, on every process."""
    return int(from_main(trainer, torch.tensor(number)))


def wait(trainer: DPOTrainer) -> None:
    """Another run holds the lock: let a moment pass, and let the other processes know."""
    time.sleep(PATIENCE)
    agree(trainer, WAIT)
