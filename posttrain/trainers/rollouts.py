"""Rollouts, and how a step's completions are cut into micro-batches, by count or by tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from posttrain.generation.local import Completion
from posttrain.packing import EMPTY, Group, pack, split_by_tokens


@dataclass(frozen=True)
class Rollout:
    """Completions of one prompt, scored.

    Attributes:
        row: the problem.
        completions: G of them.
        rewards: `[G]`.
        advantages: `[G]`, or `None` where they are made later, from log-probs or values.
        source: index of the source.
        first: number of the first completion among all of the rollout.
    """

    row: dict[str, Any]
    completions: list[Completion]
    rewards: torch.Tensor
    advantages: torch.Tensor | None
    source: int
    first: int = 0


Answer = tuple[Rollout, int]  # a rollout and the number of one of its completions


def by_count(rollouts: Sequence[Rollout], size: int, num: int) -> list[list[Answer]]:
    """Completions in order, `size` to each of `num` micro-batches; the last may stay empty."""
    flat = [(r, g) for r in rollouts for g in range(len(r.completions))]
    return [flat[start : start + size] for start in range(0, num * size, size)]


def by_tokens(
    rollouts: Sequence[Rollout], max_tokens: int, at_least: int = 1
) -> list[list[Answer]]:
    """As few micro-batches of at most `max_tokens` as best-fit finds, but `at_least` so many.

    A prompt and its completions stay together while they fit, for then it is forwarded once.
    """
    pieces: list[list[Answer]] = []
    lengths: list[int] = []
    for rollout in rollouts:
        prompt, last = len(rollout.row["prompt_ids"]), None
        for g, completion in enumerate(rollout.completions):
            more = len(completion.ids)
            if last is None or lengths[last] + more > max_tokens:
                last = len(pieces)
                pieces.append([])
                lengths.append(prompt)
            pieces[last].append((rollout, g))
            lengths[last] += more
    parts = split_by_tokens(lengths, max_tokens, at_least=at_least)
    return [[answer for i in part for answer in pieces[i]] for part in parts]


def pack_answers(answers: Sequence[Answer]) -> dict[str, torch.Tensor]:
    """A packed batch of completions, each prompt once, with the advantage of every token.

    Beside the fields of `packing.layout`: `number` `[S]` of each completion (-1: of none),
    `advantages` `[K]` where they are known, and `sampler_logps` `[K]`, NaN where the engine that
    sampled did not say.
    """
    together: dict[int, list[Answer]] = {}
    for rollout, g in answers:
        together.setdefault(id(rollout), []).append((rollout, g))
    groups, values, numbers, logps = [], [], [], []
    for mine in together.values():
        rollout = mine[0][0]
        ids = [rollout.completions[g].ids for _, g in mine]
        groups.append(Group(rollout.row["prompt_ids"], [(i, i) for i in ids], rollout.source))
        numbers += [rollout.first + g for _, g in mine]
        for _, g in mine:
            said = rollout.completions[g].logps
            logps += said if said else [math.nan] * len(rollout.completions[g].ids)
        if rollout.advantages is not None:
            values += [float(rollout.advantages[g]) for _, g in mine]
    batch = pack(groups or [EMPTY])
    batch["number"] = torch.tensor(numbers or [-1])
    batch["sampler_logps"] = torch.tensor(logps, dtype=torch.float32)
    if values or not groups:
        batch["advantages"] = torch.tensor(values or [0.0])[batch["segment"]]
    return batch
