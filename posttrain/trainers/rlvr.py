"""Reinforcement learning with verifiable rewards: roll out, verify, credit, policy loss, step.

One optimizer step asks `get_batch_samples` for its micro-batches, and that is where a rollout
happens: the prompts of `num_mini_batches` steps are completed at once by the policy as it is,
verified meanwhile, turned into advantages and packed, every prompt once per micro-batch; they are
then trained on `num_ppo_epochs` times. Groups in which all rewards are equal teach nothing and,
without a KL term, never reach the model.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from posttrain.formats import Row
from posttrain.head.chunks import Answer, Later
from posttrain.losses.base import TokenLogps, segment_sum, token_weights
from posttrain.models import Adapter
from posttrain.packing import GlobalBatches, Rows, check_budget, row_lengths
from posttrain.packing.layout import Table
from posttrain.trainers.ahead import Ahead
from posttrain.trainers.alarms import Alarms
from posttrain.trainers.base import Batch
from posttrain.trainers.micro_batches import each
from posttrain.trainers.policies import FrozenReference
from posttrain.trainers.reward import without_dropout
from posttrain.trainers.rewards import RewardFunction, Rewards
from posttrain.trainers.rlvr_config import Methods, RLVRConfig
from posttrain.trainers.rolling import Rolling
from posttrain.trainers.rollouts import Rollout
from posttrain.trainers.seen import ROLLED, per_verifier, timed
from posttrain.trainers.value import load_value_model
from posttrain.trainers.verifying import check_gold_answers
from posttrain.verifiers.workers.pool import Pool

__all__ = ["RLVRConfig", "RLVRTrainer", "Rollout"]


class StepBatches(GlobalBatches):
    """All prompts of a step in its first micro-batch; the rollout fills the others.

    Attributes:
        repeats: micro-batches of a step.
        together: steps that are rolled out at once.
        passes: how often those steps are taken; the later passes bring no prompts.
    """

    repeats = together = passes = 1

    def __len__(self) -> int:
        return super().__len__() * self.repeats * self.passes

    def __iter__(self) -> Iterator[list[int]]:
        steps = super().__iter__()
        while some := list(islice(steps, self.together)):
            for rows in some:
                yield rows
                yield from ([] for _ in range(self.repeats - 1))
            yield from ([] for _ in range(len(some) * self.repeats * (self.passes - 1)))


class RLVRTrainer(Rolling):
    """Trains a policy on problems that a verifier can check.

    Args:
        model: the policy to start from, which is also the reference of the KL term.
        reward_funcs: names of verifiers, reward models (a folder, hub id or loaded model) and
            TRL-style functions `f(prompts, completions, completion_ids, **columns) ->
            list[float | None]`; default: `verifier`, the one that each row names.
        args, train_dataset, ...: as in the other trainers.
        value_model: a loaded one, in place of what `args.value_model` says.
    """

    args: RLVRConfig
    row_kind = "problem"
    config_class = RLVRConfig
    metric_names: tuple[str, ...] = (
        *ROLLED,
        "kl",
        "clip_share",
        "value_loss",
        "value_grad_norm",
    )
    extreme_names = ("ratio_max", "ratio_min")
    source_metric_names = ("loss", "reward", "pass_rate")

    def __init__(
        self,
        model: Any,
        reward_funcs: str | RewardFunction | Sequence[str | RewardFunction] | None = None,
        args: RLVRConfig | None = None,
        *,
        value_model: Any = None,
        **kwargs: Any,
    ) -> None:
        self.rewards = Rewards.of(reward_funcs, args.reward_weights if args else None)
        if len(self.rewards.functions) > 1:
            own = (f"rewards/{name}" for name in self.rewards.names)
            self.metric_names = (*self.metric_names, *own)
        kwargs.setdefault("data_collator", lambda rows: [row for row in rows if row is not None])
        super().__init__(model, args, **kwargs)
        args, self.methods = self.args, Methods.of(self.args)
        self.metric_names = (*self.metric_names, *per_verifier(self.train_dataset))
        # micro-batches of steps that are rolled out, not yet run
        self.windows: list[list[Batch]] = []
        self.rolled_out = 0
        self.ahead = Ahead(self)
        self.alarms = Alarms()
        self.pool = Pool(max(args.reward_workers, 1), args.reward_seconds)
        without_dropout(self.model)  # or the same tokens would have other log-probs
        self.reference = FrozenReference(self) if args.beta else None
        if self.methods.value_model is not None:
            if value_model is None:
                peft = kwargs.get("peft_config")
                value_model = load_value_model(
                    self.methods.value_model,
                    self.model.config._name_or_path,
                    peft if isinstance(peft, Adapter) else None,
                )
            self.attach(value_model)

    # --- data -------------------------------------------------------------------------------------

    def read(self, raw: Mapping[str, Any]) -> Row:
        """A problem and every other column: reward functions may ask for them."""
        extra = {k: v for k, v in raw.items() if k not in ("prompt", "messages", "dataset")}
        return {**extra, **super().read({**self.rewards.defaults, **raw})}

    def get_train_dataloader(self) -> DataLoader[Any]:
        args, state = self.args, self.accelerator
        per_rank = args.prompts_per_step // state.num_processes
        seed = args.data_seed if args.data_seed is not None else args.seed
        batches = StepBatches(
            len(self.train_dataset),
            args.prompts_per_step,
            per_rank,
            state.process_index,
            state.num_processes,
            seed,
        )
        batches.repeats = args.gradient_accumulation_steps
        batches.together, batches.passes = args.num_mini_batches, args.num_ppo_epochs
        if args.max_tokens_per_device is not None:
            longest = int(row_lengths(self.train_dataset).max()) + args.max_completion_length
            check_budget(longest, args.max_tokens_per_device, "prompt with its completion")
        return DataLoader(
            Rows(self.train_dataset), batch_sampler=batches, collate_fn=self.data_collator
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor]:
        if self.rolled_out:  # prompts of the rollouts that a resumed run starts with
            list(islice(epoch_iterator, self.rolled_out * num_batches))
            self.rolled_out = 0
        if not self.windows:
            with timed(self, "wait"):
                asked = self.ahead.next(partial(self.next_prompts, epoch_iterator, num_batches))
            passes = self.args.num_ppo_epochs
            self.windows = self.roll_out(asked, num_batches) * passes
        batches = self.windows.pop(0)
        items = self.count_items(batches, device)
        return batches if self.args.max_tokens_per_device is None else [batches], items  # type: ignore[list-item]

    def next_prompts(
        self, epoch_iterator: Iterator[Any], num_batches: int
    ) -> list[list[dict[str, Any]]]:
        """The problems of each step of another rollout; none where the epoch ends."""
        parts = list(islice(epoch_iterator, self.args.steps_per_rollout * num_batches))
        parts = parts[: len(parts) // self.args.num_ppo_epochs]
        starts = range(0, len(parts), num_batches)
        return [[row for part in parts[i : i + num_batches] for row in part] for i in starts]

    def training_step(
        self, model: nn.Module, inputs: Any, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        self.said: list[torch.Tensor] = []
        with timed(self, "train", 1 / self.current_gradient_accumulation_steps):
            loss = super().training_step(model, inputs, num_items_in_batch)
        if self.args.num_ppo_epochs > 1:  # the first pass is the policy that the others left
            for batch, logps in zip(each([inputs]), self.said, strict=True):
                batch.setdefault("old_logps", logps)
        return loss

    def num_items(self, batch: Batch) -> torch.Tensor:
        return batch["items"]

    # --- resuming between the steps of one rollout ------------------------------------------------

    def rollout_file(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"rollout-{self.accelerator.process_index}.pt"

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if _internal_call:
            path = self.rollout_file(str(output_dir))
            path.parent.mkdir(parents=True, exist_ok=True)
            state = {
                "windows": self.windows,
                "kl_control": self.methods.kl_control.state_dict(),
                "ahead": self.ahead.state_dict(),
            }
            torch.save(state, path)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As the base's; a checkpoint from between two steps of a rollout goes on with it.

        Raises:
            DataError: too many gold answers are graded wrongly, see `max_wrong_gold`.
        """
        resume_from_checkpoint = self.whole_checkpoint(resume_from_checkpoint)
        self.windows = []
        self.ahead.close()
        if resume_from_checkpoint and self.rollout_file(str(resume_from_checkpoint)).is_file():
            path = self.rollout_file(str(resume_from_checkpoint))
            with torch.serialization.safe_globals([Table]):
                state = torch.load(path, map_location=self.args.device, weights_only=True)
            self.windows = state["windows"]
            self.methods.kl_control.load_state_dict(state["kl_control"])
            self.ahead.load_state_dict(state["ahead"])
        ahead = sum(1 for _ in self.ahead.steps()) * self.args.num_ppo_epochs
        self.rolled_out = len(self.windows) + ahead
        try:
            if not resume_from_checkpoint and self.args.max_wrong_gold is not None:
                check_gold_answers(self)
            return super().train(resume_from_checkpoint, *args, **kwargs)
        finally:
            if self.served is not None:
                self.served.close()
                self.served = None
            self.ahead.close()
            self.pool.close()

    # --- loss -------------------------------------------------------------------------------------

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        total = self.policy_sum(model, batch)
        return total if self.value_model is None else total + self.value_sum(batch)

    def value_sum(self, batch: Batch) -> torch.Tensor:
        """The value model's loss, reduced as the policy's."""
        segment, tokens, found = batch["segment"], batch["tokens"], self.values(batch)
        losses = self.methods.value_loss(found, batch["old_values"], batch["returns"])
        self.meter("value_loss", losses.sum(), len(losses))
        return (losses * token_weights(tokens, segment, self.methods.reduction)).sum()

    def policy_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        """The policy's loss, whose gradient the head is told as soon as it knows log-probs."""
        args, segment, tokens = self.args, batch["segment"], batch["tokens"]
        ends: list[int] = tokens.cumsum(0).tolist()
        factors = token_weights(tokens, segment, self.methods.reduction)

        def weigh(answer: Answer, block: slice) -> torch.Tensor:
            """The gradient at the log-probs of some whole completions."""
            some = slice(bisect_right(ends, block.start), bisect_left(ends, block.stop) + 1)
            with torch.enable_grad():
                policy = answer.logps.detach().requires_grad_()
                _, losses = self.token_losses(policy, batch, block, some)
                (gradient,) = torch.autograd.grad((losses * factors[block]).sum(), policy)
            return gradient

        weights = Later(ends, weigh) if len(segment) else None
        policy = self.logps(model, batch, args.temperature, weights=weights)
        self.said.append(policy.detach())
        if not len(policy):
            return policy.sum()
        logps, losses = self.token_losses(policy, batch, slice(None), slice(None))
        self.source_meter(
            "loss", segment_sum(losses, segment, len(tokens)), tokens, batch["source"]
        )
        clipped = self.methods.loss.clipped(logps, batch["advantages"])
        self.meter("clip_share", clipped.float().sum(), len(clipped))
        gap = (policy - logps.old).detach()
        self.extreme("ratio_max", gap.max().exp())
        self.extreme("ratio_min", gap.min().exp())
        if logps.reference is not None:
            d = policy.detach() - logps.reference
            self.meter("kl", (torch.exp(-d) - 1 + d).sum(), len(d))
        return (losses * factors).sum()

    def token_losses(
        self, policy: torch.Tensor, batch: Batch, block: slice, some: slice
    ) -> tuple[TokenLogps, torch.Tensor]:
        """The loss of each trained token of some completions.

        Args:
            policy: `[k]` their log-probs.
            block: where these tokens stand among all of the batch's.
            some: which of the batch's completions they are.
        """
        first = some.start or 0

        def own(name: str) -> torch.Tensor | None:
            return batch[name][block] if name in batch else None

        old, segment = own("old_logps"), batch["segment"][block] - first
        logps = TokenLogps(
            policy,
            policy.detach() if old is None else old,
            own("ref_logps"),
            own("sampler_logps"),
            segment,
            batch["tokens"][some],
        )
        beta = self.args.beta if self.methods.kl_in_reward is None else 0.0
        return logps, self.methods.loss(logps, batch["advantages"][block], beta)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As the base's, and what the curves look like."""
        super().log(logs, start_time)
        if self.accelerator.is_main_process:
            self.alarms(self.state.log_history)
