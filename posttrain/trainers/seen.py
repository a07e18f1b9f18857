"""What is seen of RL while it runs: metrics of what was drawn and credited, and where time goes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from posttrain.trainers.refill import Draw
from posttrain.trainers.rollouts import Rollout

if TYPE_CHECKING:
    from posttrain.trainers.rolling import Rolling

ROLLED = (
    "reward",
    "pass_rate",
    "completion_length",
    "truncated",
    "entropy",
    "useful_groups",
    "effective_batch",
    "resampled",
    "staleness",
    "kl_completion",
    "kl_beta",
    "verifier/timeout",
    "verifier/crash",
    "seconds/sync",
    "seconds/wait",
    "seconds/generate",
    "seconds/verify",
    "seconds/train",
)


def meter_draw(trainer: Rolling, draw: Draw) -> None:
    """Rewards, lengths and the like of what was drawn, whole, per source and per verifier.

    `entropy` is the mean of -log p of the tokens drawn: an estimate without bias of the policy's
    own, where nothing is cut off by `top_p`.
    """
    device = trainer.args.device
    if not draw.rows:
        return
    rewards = draw.rewards.to(device)
    per_group = draw.completions[0]
    for name, own in zip(trainer.rewards.names, draw.scores, strict=False):
        trainer.meter(f"rewards/{name}", own.sum().to(device), own.numel())
    passed = (trainer.rewards.verdicts(draw.scores) >= 1).all(0).float().to(device)
    trainer.meter("reward", rewards.sum(), rewards.numel())
    trainer.meter("pass_rate", passed.sum(), passed.numel())
    every = [c for group in draw.completions for c in group]
    logps = [p for c in every for p in c.logps]
    for name, total, count in (
        ("completion_length", sum(len(c.ids) for c in every), len(every)),
        ("truncated", sum(not c.finished for c in every), len(every)),
        # one completion is no group
        ("useful_groups", len(draw.rows) - len(draw.flat()), len(draw.rows) * (len(per_group) > 1)),
        ("entropy", -sum(logps), len(logps)),
    ):
        trainer.meter(name, torch.tensor(float(total), device=device), count)
    source = torch.tensor([trainer.source_of(row) for row in draw.rows], device=device)
    per = torch.full((len(draw.rows),), float(rewards.shape[1]), device=device)
    trainer.source_meter("reward", rewards.sum(1), per, source)
    trainer.source_meter("pass_rate", passed.sum(1), per, source)
    for i, row in enumerate(draw.rows):
        at = f"verifier/{row.get('verifier')}"
        if f"{at}/reward" in trainer.metric_names:
            trainer.meter(f"{at}/reward", rewards[i].sum(), per[i])
            trainer.meter(f"{at}/pass_rate", passed[i].sum(), per[i])


def per_verifier(rows: Any) -> tuple[str, ...]:
    """Names of the metrics of every verifier that rows name; none where all name the same."""
    columns = getattr(rows, "column_names", None) or ()
    names = rows.unique("verifier") if "verifier" in columns else []
    if len(names) < 2:
        return ()
    return tuple(f"verifier/{n}/{what}" for n in sorted(names) for what in ("reward", "pass_rate"))


def meter_credit(
    trainer: Rolling, rollouts: Sequence[Rollout], batches: Sequence[dict[str, Any]]
) -> None:
    """Share of the tokens drawn that reach the model with an advantage other than 0."""
    drawn = sum(len(c.ids) for r in rollouts for c in r.completions)
    if drawn:
        used = sum((b["advantages"] != 0).sum().to(trainer.args.device) for b in batches)
        trainer.meter("effective_batch", torch.as_tensor(used), float(drawn))


@contextmanager
def timed(trainer: Rolling, name: str, share: float = 1.0) -> Iterator[None]:
    """Meter the seconds that something takes: of a rollout, or of `share` of a step."""
    began = time.perf_counter()
    yield
    took = torch.tensor(time.perf_counter() - began, device=trainer.args.device)
    trainer.meter(f"seconds/{name}", took, share)
