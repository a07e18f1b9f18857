"""Rollouts that are completed while earlier ones are trained on (`rollouts_ahead`).

With `rollouts_ahead: 1` and a server, training costs a run the longer of the two instead of their
sum (Noukhovitch et al. 2024, arXiv:2410.18252):

    server   | write 2 with the weights before 1 | write 3 with those before 2 | ...
    trainer  | train on 1                        | train on 2                  | ...

Tokens then come from weights that are one rollout old, never more than `rollouts_ahead`: the
importance weight corrects for it, log-probs called "old" are computed anew, and `staleness` is
logged. Weights change only while nothing is being written, so every answer is of one version, and
which version it is depends on the step alone, never on how fast either side was.
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posttrain.generation.base import Completion
from posttrain.generation.vllm.settings import VLLMSettings
from posttrain.packing import Rows
from posttrain.trainers.verifying import Verification

if TYPE_CHECKING:
    from posttrain.trainers.rolling import Rolling

logger = logging.getLogger(__name__)
Row = dict[str, Any]
Groups = list[list[Completion]]


@dataclass
class Asked:
    """Prompts of one rollout, which are being completed or were.

    Attributes:
        steps: the problems of each optimizer step.
        step: of the weights that complete them.
        verification: grades every group as it comes, where verifiers do.
        future: the groups, in the order of the problems.
        seconds: from asking to the last group.
    """

    steps: list[list[Row]]
    step: int
    verification: Verification | None = None
    future: Future[Groups] = field(default_factory=Future)
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.began = time.perf_counter()
        self.found: dict[int, list[Completion]] = {}
        self.settle()  # a process may have no prompts

    @property
    def rows(self) -> list[Row]:
        """The problems of all steps."""
        return [row for step in self.steps for row in step]

    def take(self, index: int, group: list[Completion]) -> None:
        """One problem's answers."""
        self.found[index] = group
        if self.verification is not None:
            self.verification(index, group)
        self.settle()

    def settle(self) -> None:
        if len(self.found) == len(self.rows):
            self.seconds = time.perf_counter() - self.began
            self.future.set_result([self.found[i] for i in range(len(self.found))])

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps; waits until all is written."""
        return {
            "rows": [[int(row["index"]) for row in step] for step in self.steps],
            "step": self.step,
            "groups": [
                [(c.ids, c.finished, c.logps, c.version) for c in group]
                for group in self.future.result()
            ],
        }


class Ahead:
    """The rollouts of a trainer, some of them asked for before they are needed.

    Attributes:
        waiting: those that were asked for and not taken, the next one first.
    """

    def __init__(self, trainer: Rolling) -> None:
        self.trainer = trainer
        self.waiting: deque[Asked] = deque()
        self.thread: ThreadPoolExecutor | None = None
        if trainer.args.rollouts_ahead and not isinstance(trainer.methods.engine, VLLMSettings):
            logger.warning(
                "rollouts_ahead is %d, but completions are written in process, where nothing runs"
                " meanwhile: tokens get older and no time is won; use generation: {name: vllm}",
                trainer.args.rollouts_ahead,
            )

    def next(self, prompts: Callable[[], list[list[Row]]]) -> Asked:
        """The next rollout, whole; where it was the last one asked for, others are asked for.

        An epoch begins with a rollout of its own, for the prompts of the one before had run out.

        Args:
            prompts: the problems of another rollout, per step; without a step: no more in this
                epoch.
        """
        trainer, ahead = self.trainer, self.trainer.args.rollouts_ahead
        if not self.waiting:
            self.ask([prompts()])
        asked = self.waiting.popleft()
        asked.future.result()
        if ahead and not self.waiting:
            each = trainer.args.steps_per_rollout
            left = trainer.state.max_steps - trainer.state.global_step - each
            some = [prompts() for _ in range(min(ahead, math.ceil(left / each)))]
            self.ask([steps for steps in some if steps])
        return asked

    def ask(self, rollouts: Sequence[list[list[Row]]]) -> None:
        """Let the engine complete the prompts of some rollouts, in order.

        In process that is done when this returns. A server is asked from a thread of its own.
        """
        if not rollouts:
            return
        trainer = self.trainer
        trainer.follow()
        new = [trainer.asked(steps) for steps in rollouts]
        self.waiting += new
        seed = trainer.draw_seed
        if trainer.served is None or not trainer.args.rollouts_ahead:
            return trainer.write(new, seed)
        if self.thread is None:
            self.thread = ThreadPoolExecutor(1, "rollouts")
        self.thread.submit(self.write, new, seed)

    def write(self, new: Sequence[Asked], seed: int) -> None:
        """In the thread: what goes wrong is raised where the rollout is waited for."""
        try:
            self.trainer.write(new, seed)
        except BaseException as error:
            for asked in new:
                if not asked.future.done():
                    asked.future.set_exception(error)

    def wait(self) -> None:
        """Until nothing is being written."""
        for asked in self.waiting:
            asked.future.result()

    def close(self) -> None:
        """Forget what was asked for; the server must be gone, or have answered."""
        self.waiting.clear()
        if self.thread is not None:
            self.thread.shutdown(wait=True)
            self.thread = None

    # --- checkpoints ------------------------------------------------------------------------------

    def steps(self) -> Iterator[list[Row]]:
        """The prompts of each step that is waiting."""
        for asked in self.waiting:
            yield from asked.steps

    def state_dict(self) -> list[dict[str, Any]]:
        """Rollouts that are waiting, whole."""
        return [asked.state_dict() for asked in self.waiting]

    def load_state_dict(self, state: Sequence[dict[str, Any]]) -> None:
        """Go on with the rollouts of a checkpoint; verifiers grade them again."""
        data: Any = Rows(self.trainer.train_dataset)
        self.waiting.clear()
        for one in state:
            steps = [[data[i] for i in step] for step in one["rows"]]
            asked = self.trainer.asked(steps, one["step"])
            for index, group in enumerate(one["groups"]):
                asked.take(index, [Completion(*answer) for answer in group])
            self.waiting.append(asked)
