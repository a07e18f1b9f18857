"""Packing and the collators: examples -> one packed row in which no two sequences see each other.

Every trainer is fed the same batch:

    input_ids, position_ids   [1, T]   each prompt once, then its answers one after another
    packed_rows, packed_back           how attention finds the sequences (see attention.py)
    keep        [K]   packed positions whose hidden state predicts a trained token
    targets     [K]   those tokens
    segment     [K]   the sequence each belongs to, 0 <= segment < S
    tokens      [S]   trained tokens per sequence
    source      [S]   index of the source of each sequence
    last        [S]   packed position of each sequence's last token

so that only K positions ever reach the language-model head.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import Dataset, Sampler

from posttrain.errors import DataError

IGNORE = -100


@dataclass(frozen=True)
class Group:
    """A prompt and the answers that share it; without one the first answer token is not predicted.

    Attributes:
        prompt_ids: tokens forwarded once, never trained.
        branches: per answer its tokens and its labels (-100 where nothing is learned).
        source: index of the source.
    """

    prompt_ids: Sequence[int]
    branches: Sequence[tuple[Sequence[int], Sequence[int]]]
    source: int = 0


def forward_inputs(batch: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The part of a packed batch that the model reads."""
    names = ("input_ids", "position_ids", "packed_rows", "packed_back")
    return {name: batch[name] for name in names}


def pack(groups: Sequence[Group]) -> dict[str, torch.Tensor]:
    """Lay groups out in one packed row; see the module docstring for the fields."""
    ids: list[int] = []
    positions: list[int] = []
    rows: list[list[int]] = []
    home: list[tuple[int, int]] = []  # (sequence, column) of each packed token
    keep: list[int] = []
    targets: list[int] = []
    segment: list[int] = []
    tokens: list[int] = []
    source: list[int] = []
    for group in groups:
        start, length = len(ids), len(group.prompt_ids)
        prompt = list(range(start, start + length))
        ids.extend(group.prompt_ids)
        positions.extend(range(length))
        home.extend((len(rows), column) for column in range(length))
        for branch, labels in group.branches:
            begin, sequence = len(ids), len(rows)
            answer = list(range(begin, begin + len(branch)))
            ids.extend(branch)
            positions.extend(range(length, length + len(branch)))
            home.extend((sequence, column) for column in range(length, length + len(branch)))
            count = 0
            for i, label in enumerate(labels):
                before = begin + i - 1 if i else (prompt[-1] if prompt else None)
                if label != IGNORE and before is not None:
                    keep.append(before)
                    targets.append(label)
                    segment.append(sequence)
                    count += 1
            rows.append(prompt + answer)
            tokens.append(count)
            source.append(group.source)
    width = max((len(r) for r in rows), default=0)
    return {
        "input_ids": torch.tensor([ids]),
        "position_ids": torch.tensor([positions]),
        "packed_rows": torch.tensor([r + [0] * (width - len(r)) for r in rows]),
        "packed_back": torch.tensor([s * width + c for s, c in home]),
        "keep": torch.tensor(keep, dtype=torch.long),
        "targets": torch.tensor(targets, dtype=torch.long),
        "segment": torch.tensor(segment, dtype=torch.long),
        "tokens": torch.tensor(tokens, dtype=torch.long),
        "source": torch.tensor(source, dtype=torch.long),
        "last": torch.tensor([r[-1] for r in rows], dtype=torch.long),
    }


EMPTY = Group([0], [([0], [IGNORE])])


class GlobalBatches(Sampler[list[int]]):
    """Batches of row indices, so that the global batch is the same whatever the machine.

    Step `i` of an epoch takes rows `order[i * batch_size : (i + 1) * batch_size]`, dealt out over
    processes and micro-batches. `-1` stands for "no row": it fills up the last, partial batch.

    Args:
        num_rows: rows in the data set.
        batch_size: rows per optimizer step, over all processes.
        micro_batch: rows per process and forward pass.
        rank, world: this process and how many there are.
        seed: the order depends on it and on the epoch, on nothing else.
        shuffle: off, rows come in the order of the data set.
    """

    def __init__(
        self,
        num_rows: int,
        batch_size: int,
        micro_batch: int,
        rank: int,
        world: int,
        seed: int,
        shuffle: bool = True,
    ) -> None:
        if batch_size % (micro_batch * world):
            raise DataError(
                f"batch_size {batch_size} is not divisible by {micro_batch} x {world} processes"
            )
        self.num_rows, self.batch_size, self.micro_batch = num_rows, batch_size, micro_batch
        self.rank, self.world, self.seed, self.shuffle = rank, world, seed, shuffle
        self.epoch = 0
        self.accumulation = batch_size // (micro_batch * world)
        self.batch_sampler = self  # transformers' Trainer looks for `set_epoch` under this name

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def order(self) -> list[int]:
        """The rows of this epoch in the order in which they are used."""
        if not self.shuffle:
            return list(range(self.num_rows))
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return torch.randperm(self.num_rows, generator=generator).tolist()

    def __len__(self) -> int:
        return -(-self.num_rows // self.batch_size) * self.accumulation

    def __iter__(self) -> Iterator[list[int]]:
        order = self.order()
        for start in range(0, self.num_rows, self.batch_size):
            rows = order[start : start + self.batch_size]
            rows += [-1] * (self.batch_size - len(rows))
            slots = self.accumulation * self.world
            for step in range(self.accumulation):
                slot = step * self.world + self.rank
                yield rows[slot::slots]  # dealt like cards: a partial batch stays balanced


class Rows(Dataset[dict[str, Any] | None]):
    """A data set that answers `None` for index -1 and tells each row its index."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any] | None:
        return None if index < 0 else {**self.rows[index], "index": index}


@dataclass(frozen=True)
class Collator:
    """Rows of tokens -> a packed batch. The kind of row is read from its fields.

    Attributes:
        sources: name -> index of every source.
    """

    sources: Mapping[str, int]

    def group(self, row: Mapping[str, Any]) -> Group:
        """One tokenised row as a group: an SFT row alone, or a pair under its prompt."""
        source = self.sources.get(row.get("source") or "", 0)
        if "prompt_ids" in row:
            pair = [(row[f"{side}_ids"],) * 2 for side in ("chosen", "rejected")]
            return Group(row["prompt_ids"], pair, source)
        return Group([], [(row["input_ids"], row["labels"])], source)

    def __call__(self, rows: Sequence[Mapping[str, Any] | None]) -> dict[str, torch.Tensor]:
        real = [row for row in rows if row is not None]
        batch = pack([self.group(row) for row in real] or [EMPTY])
        batch["index"] = torch.tensor([row["index"] for row in real], dtype=torch.long)
        return batch
