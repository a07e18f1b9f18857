"""The best policy of an RL stage by its held-out reward, and when to stop looking for one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback

NAME = "eval_reward"
FOLDER = "best"


class Best(TrainerCallback):
    """Keeps the weights with the best held-out reward in `<output_dir>/best`.

    What was best so far is read from the log, so that a resumed run goes on as if it had not ended.

    Args:
        keep: whether weights are kept.
        patience: stop after so many evaluations in a row without a better one; `None`: do not.
    """

    def __init__(self, trainer: Any, keep: bool, patience: int | None) -> None:
        self.trainer, self.keep, self.patience = trainer, keep, patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        values = [row[NAME] for row in state.log_history if NAME in row]
        if self.keep and is_new_best(values):
            self.trainer.save_model(str(Path(args.output_dir) / FOLDER))
        if self.patience is not None and waited(values) >= self.patience:
            control.should_training_stop = True


def is_new_best(values: list[float]) -> bool:
    """Whether the last of some values is above all others; of equal ones the first is the best."""
    return bool(values) and all(value < values[-1] for value in values[:-1])


def waited(values: list[float]) -> int:
    """Evaluations since the best one."""
    return len(values) - 1 - values.index(max(values)) if values else 0
