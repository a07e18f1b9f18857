"""Dynamic sampling (DAPO, Yu et al. 2025, arXiv:2503.14476, section 3.2).

A group whose rewards are all equal has no advantage and teaches nothing. Such groups are replaced
by groups of other prompts until the batch is full again, or for so many rounds. The prompts of a
round depend on seed and step alone, so that a resumed run draws the same ones and the data's own
order stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from posttrain.generation.local import Completion
from posttrain.packing import Rows

if TYPE_CHECKING:
    from posttrain.trainers.rolling import Rolling


@dataclass
class Draw:
    """Problems, their completions and what these earned.

    Attributes:
        rows: P problems.
        completions: G of each.
        scores: `[F, P, G]` of every reward function.
        rewards: `[P, G]`.
    """

    rows: list[dict[str, Any]]
    completions: list[list[Completion]]
    scores: torch.Tensor
    rewards: torch.Tensor

    def flat(self) -> list[int]:
        """Groups without a spread."""
        if not self.rows:
            return []
        same = self.rewards.amax(1) == self.rewards.amin(1)
        return [int(i) for i in torch.nonzero(same).flatten()]

    def replaced(self, places: list[int], other: Draw) -> Draw:
        """This, with groups of another draw in some places."""
        rows, completions = list(self.rows), list(self.completions)
        scores, rewards = self.scores.clone(), self.rewards.clone()
        for place, i in zip(places, range(len(other.rows)), strict=False):
            rows[place], completions[place] = other.rows[i], other.completions[i]
            scores[:, place], rewards[place] = other.scores[:, i], other.rewards[i]
        return Draw(rows, completions, scores, rewards)

    def some(self, chosen: list[int]) -> Draw:
        """Some of its groups."""
        return Draw(
            [self.rows[i] for i in chosen],
            [self.completions[i] for i in chosen],
            self.scores[:, chosen],
            self.rewards[chosen],
        )


def refill(trainer: Rolling, draw: Draw) -> Draw:
    """Replace groups without a spread, for `resample_rounds` rounds at most.

    All processes take part in every round, those that miss nothing without a prompt: completing is
    collective where weights are partitioned. Metered: `resampled`, groups drawn anew over groups.
    """
    fresh, extra = others(trainer, draw), 0
    for _ in range(trainer.args.resample_rounds):
        places = draw.flat()
        if not float(trainer.over_all(torch.tensor(float(len(places))))):
            break
        rows = [row for _, row in zip(places, fresh, strict=False)]
        extra += len(rows)
        completions, scores = trainer.scored(rows)
        found = Draw(rows, completions, scores, trainer.totals(scores, completions))
        flat = set(found.flat())
        useful = [i for i in range(len(rows)) if i not in flat]
        draw = draw.replaced(places, found.some(useful))
    if draw.rows:
        total = torch.tensor(float(extra), device=trainer.args.device)
        trainer.meter("resampled", total, len(draw.rows))
    return draw


def others(trainer: Rolling, draw: Draw) -> Iterator[dict[str, Any]]:
    """This process's share of the problems that are not in the rollout, in an order of its own."""
    state, args = trainer.accelerator, trainer.args
    seed = args.data_seed if args.data_seed is not None else args.seed
    generator = torch.Generator().manual_seed(
        (seed * 1_000_003 + trainer.state.global_step) * 2 + 1  # not one of the data's own orders
    )
    rows: Any = Rows(trainer.train_dataset)
    used = {int(row["index"]) for row in draw.rows}
    order = torch.randperm(len(rows), generator=generator).tolist()
    for index in order[state.process_index :: state.num_processes]:
        if index not in used:
            yield rows[index]
