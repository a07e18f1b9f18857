"""How examples are laid out: one packed row in which no two sequences see each other.

Every trainer is fed the same batch:

    input_ids, position_ids   [1, T]   each prompt once, then its answers one after another
    packed_rows, packed_back           how attention finds the sequences (see attention/)
    packed_parts  P pairs, on the host: length of each prompt or answer, what it follows (-1: none)
    keep        [K]   packed positions whose hidden state predicts a trained token
    targets     [K]   those tokens
    segment     [K]   the sequence each belongs to, 0 <= segment < S
    tokens      [S]   trained tokens per sequence
    source      [S]   index of the source of each sequence
    last        [S]   packed position of each sequence's last token

so that only K positions ever reach the language-model head.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch

IGNORE = -100


class Table(tuple[tuple[int, int], ...]):
    """Numbers that stay on the host, where the launching of kernels needs them."""

    def to(self, *_: Any, **__: Any) -> Self:
        return self


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


def forward_inputs(batch: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a packed batch that the model reads."""
    names = ("input_ids", "position_ids", "packed_rows", "packed_back", "packed_parts")
    return {name: batch[name] for name in names}


def pack(groups: Sequence[Group]) -> dict[str, Any]:
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
    parts: list[tuple[int, int]] = []
    for group in groups:
        start, length = len(ids), len(group.prompt_ids)
        prompt = list(range(start, start + length))
        ids.extend(group.prompt_ids)
        positions.extend(range(length))
        home.extend((len(rows), column) for column in range(length))
        shared = len(parts) if length else -1
        if length:
            parts.append((length, -1))
        for branch, labels in group.branches:
            begin, sequence = len(ids), len(rows)
            parts.append((len(branch), shared))
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
        "packed_parts": Table(parts),
        "keep": torch.tensor(keep, dtype=torch.long),
        "targets": torch.tensor(targets, dtype=torch.long),
        "segment": torch.tensor(segment, dtype=torch.long),
        "tokens": torch.tensor(tokens, dtype=torch.long),
        "source": torch.tensor(source, dtype=torch.long),
        "last": torch.tensor([r[-1] for r in rows], dtype=torch.long),
    }


EMPTY = Group([0], [([0], [IGNORE])])
