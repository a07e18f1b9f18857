"""Reinforcement learning with verifiable rewards: roll out, verify, credit, policy loss, step.

One optimizer step asks `get_batch_samples` for its micro-batches, and that is where a rollout
happens: the prompts of `num_mini_batches` steps are completed at once by the policy as it is,
scored, turned into advantages and packed, every prompt once per micro-batch. Groups in which all
rewards are equal teach nothing and, without a KL term, never reach the model.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader

from posttrain.advantages import group_advantage
from posttrain.errors import RecipeError
from posttrain.formats import Row
from posttrain.generation.local import Completion, Sampling, eos_ids, generate_ids
from posttrain.head.chunks import Answer, Later
from posttrain.losses import policy_loss
from posttrain.losses.base import TokenLogps, num_items, segment_sum, token_weights
from posttrain.models import whole
from posttrain.packing import GlobalBatches, Rows, check_budget, row_lengths
from posttrain.packing.layout import Table
from posttrain.trainers.base import Batch, PostTrainer, PostTrainingArguments
from posttrain.trainers.policies import FrozenReference
from posttrain.trainers.rewards import RewardFunction, Rewards
from posttrain.trainers.rollouts import Rollout, by_count, by_tokens, meter_rollouts, pack_answers


@dataclass
class RLVRConfig(PostTrainingArguments):
    """Settings of `RLVRTrainer`; `per_device_train_batch_size` counts completions, as in TRL.

    Attributes:
        num_generations: completions per prompt.
        num_mini_batches: optimizer steps that share one rollout.
        beta: weight of the KL term towards the starting model, in the loss.
        advantage, loss: methods and their options, as in a recipe.
        loss_reduction: `token_mean` or `sequence_mean` over the global batch of completions.
        reward_weights: factor of each reward function in the sum of them; default: 1.
        reward_scale: the sum is multiplied by it: what a verifier's score of 1 is worth.
        missing_eos_reward: replaces the reward of a completion that was cut off.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate."})
    num_generations: int = field(default=8, metadata={"help": "Completions per prompt."})
    num_mini_batches: int = field(default=1, metadata={"help": "Optimizer steps per rollout."})
    max_prompt_length: int | None = field(
        default=1024, metadata={"help": "Longer prompts are dropped."}
    )
    max_completion_length: int = field(
        default=1024, metadata={"help": "New tokens per completion."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling."})
    beta: float = field(default=0.0, metadata={"help": "Weight of the KL term."})
    advantage: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "group"}, metadata={"help": "Advantage."}
    )
    loss: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "grpo"}, metadata={"help": "Policy loss."}
    )
    loss_reduction: str = field(
        default="token_mean", metadata={"help": "token_mean or sequence_mean."}
    )
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Factor of each reward function."}
    )
    reward_scale: float = field(default=1.0, metadata={"help": "Worth of a score of 1."})
    missing_eos_reward: float | None = field(
        default=None, metadata={"help": "Reward of a cut-off completion."}
    )
    generation_batch_size: int = field(
        default=64, metadata={"help": "Prompts completed at a time, per process."}
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.packing:
            raise RecipeError(
                "packing: completions have no length before they are sampled, so there is nothing "
                "to pack ahead; set max_tokens_per_device, which packs them step by step"
            )
        completions = self.global_batch
        if completions % (self.num_generations * self.world_size):
            raise RecipeError(
                f"{completions} completions per step are not whole groups of "
                f"{self.num_generations} on each of "
                f"{self.world_size} processes; change per_device_train_batch_size, "
                "gradient_accumulation_steps or num_generations"
            )

    @property
    def prompts_per_step(self) -> int:
        """Prompts per optimizer step over all processes."""
        return self.global_batch // self.num_generations


class StepBatches(GlobalBatches):
    """All prompts of a step in its first micro-batch; the rollout fills the others."""

    repeats = 1

    def __len__(self) -> int:
        return super().__len__() * self.repeats

    def __iter__(self) -> Iterator[list[int]]:
        for rows in super().__iter__():
            yield rows
            yield from ([] for _ in range(self.repeats - 1))


class RLVRTrainer(PostTrainer):
    """Trains a policy on problems that a verifier can check.

    Args:
        model: the policy to start from, which is also the reference of the KL term.
        reward_funcs: names of verifiers, reward models (a folder, hub id or loaded model) and
            TRL-style functions `f(prompts, completions, completion_ids, **columns) ->
            list[float | None]`; default: `verifier`, the one that each row names.
        args, train_dataset, ...: as in the other trainers.
    """

    args: RLVRConfig
    row_kind = "problem"
    config_class = RLVRConfig
    metric_names: tuple[str, ...] = (
        "reward",
        "pass_rate",
        "completion_length",
        "truncated",
        "useful_groups",
        "kl",
        "clip_share",
    )
    source_metric_names = ("loss", "reward", "pass_rate")

    def __init__(
        self,
        model: Any,
        reward_funcs: str | RewardFunction | Sequence[str | RewardFunction] | None = None,
        args: RLVRConfig | None = None,
        **kwargs: Any,
    ) -> None:
        self.rewards = Rewards.of(reward_funcs, args.reward_weights if args else None)
        if len(self.rewards.functions) > 1:
            own = (f"rewards/{name}" for name in self.rewards.names)
            self.metric_names = (*self.metric_names, *own)
        kwargs.setdefault("data_collator", lambda rows: [row for row in rows if row is not None])
        super().__init__(model, args, **kwargs)
        self.advantage = group_advantage(as_spec(self.args.advantage))
        self.loss = policy_loss(as_spec(self.args.loss))
        # micro-batches of steps that are rolled out, not yet run
        self.windows: list[list[Batch]] = []
        self.rolled_out = 0
        self.reference = FrozenReference(self) if self.args.beta else None
        self.on_rollout: Callable[[list[Rollout]], None] | None = None

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
        if args.max_tokens_per_device is not None:
            longest = int(row_lengths(self.train_dataset).max()) + args.max_completion_length
            check_budget(longest, args.max_tokens_per_device, "prompt with its completion")
        return DataLoader(
            Rows(self.train_dataset), batch_sampler=batches, collate_fn=self.data_collator
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Batch], torch.Tensor]:
        if self.rolled_out:  # prompts of the rollout that a resumed run starts with
            list(islice(epoch_iterator, self.rolled_out * num_batches))
            self.rolled_out = 0
        if not self.windows:
            steps: list[list[dict[str, Any]]] = []
            for _ in range(self.args.num_mini_batches):
                parts = list(islice(epoch_iterator, num_batches))
                if parts:
                    steps.append([row for part in parts for row in part])
            self.windows = self.roll_out(steps, num_batches)
        batches = self.windows.pop(0)
        items = self.count_items(batches, device)
        return batches if self.args.max_tokens_per_device is None else [batches], items  # type: ignore[list-item]

    def num_items(self, batch: Batch) -> torch.Tensor:
        return batch["items"]

    # --- resuming between the steps of one rollout ------------------------------------------------

    def rollout_file(self, checkpoint: str) -> Path:
        return Path(checkpoint) / f"rollout-{self.accelerator.process_index}.pt"

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        super().save_model(output_dir, _internal_call)
        if _internal_call and self.windows:
            path = self.rollout_file(str(output_dir))
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(self.windows, path)

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As the base's; a checkpoint from between two steps of a rollout goes on with it."""
        resume_from_checkpoint = self.whole_checkpoint(resume_from_checkpoint)
        self.windows = []
        if resume_from_checkpoint and self.rollout_file(str(resume_from_checkpoint)).is_file():
            path = self.rollout_file(str(resume_from_checkpoint))
            with torch.serialization.safe_globals([Table]):
                self.windows = torch.load(path, map_location=self.args.device, weights_only=True)
        self.rolled_out = len(self.windows)
        return super().train(resume_from_checkpoint, *args, **kwargs)

    # --- rollout ----------------------------------------------------------------------------------

    def roll_out(self, steps: list[list[dict[str, Any]]], num_batches: int) -> list[list[Batch]]:
        """Complete the prompts of several steps at once -> per step its micro-batches."""
        args, rows = self.args, [row for step in steps for row in step]
        completions = self.complete([row["prompt_ids"] for row in rows])
        texts = [[self.text(c) for c in group] for group in completions]
        scores = self.rewards.each(rows, texts, completions, trainer_state=self.state)
        rewards = self.rewards.weighted(scores) * args.reward_scale
        if args.missing_eos_reward is not None:
            finished = torch.tensor(
                [[c.finished for c in g] for g in completions], dtype=torch.bool
            )
            rewards = torch.where(
                finished.view_as(rewards), rewards, torch.tensor(float(args.missing_eos_reward))
            )
        advantages = self.advantage(rewards)
        names = {name: i for i, name in enumerate(self.sources)}
        rollouts = [
            Rollout(row, group, r, a, names.get(row.get("source") or "", 0))
            for row, group, r, a in zip(rows, completions, rewards, advantages, strict=True)
        ]
        meter_rollouts(self, rollouts, scores)
        if self.on_rollout:
            self.on_rollout(rollouts)
        windows, start = [], 0
        for step in steps:
            windows.append(self.micro_batches(rollouts[start : start + len(step)], num_batches))
            start += len(step)
        self.fill_logps([batch for window in windows for batch in window])
        return windows

    def complete(self, prompts: list[list[int]]) -> list[list[Completion]]:
        """Sample from the policy as it is; the draw depends on seed, step and process only."""
        args, model = self.args, self.accelerator.unwrap_model(self.model_wrapped)
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        draw = args.seed * 1_000_003 + self.state.global_step
        seed = draw * 4096 + self.accelerator.process_index
        sampling = Sampling(args.max_completion_length, args.temperature, args.top_p)
        with whole(self.model_wrapped, bare):
            return generate_ids(
                bare,
                prompts,
                sampling,
                eos_ids(bare, self.processing_class),
                num_generations=args.num_generations,
                batch_size=args.generation_batch_size,
                seed=seed,
            )

    def text(self, completion: Completion) -> str:
        return str(self.processing_class.decode(completion.ids, skip_special_tokens=True))

    def micro_batches(self, rollouts: list[Rollout], num_batches: int) -> list[Batch]:
        """Pack a step's completions, each prompt once in each micro-batch.

        There are `num_batches`, or under a token budget as many as the process that needs most.
        """
        args = self.args
        useful = [r for r in rollouts if args.beta or bool(r.advantages.abs().sum() > 0)]
        if args.max_tokens_per_device is None:
            parts = by_count(useful, args.per_device_train_batch_size, num_batches)
        else:
            parts = by_tokens(useful, args.max_tokens_per_device)
            needed = self.accelerator.gather(torch.tensor([len(parts)], device=args.device))
            parts = by_tokens(useful, args.max_tokens_per_device, int(needed.max()))
        batches = [pack_answers(part) for part in parts]
        for batch in batches:
            batch["items"] = torch.zeros(())
        # groups of equal rewards count, though they are not run
        lengths = [len(c.ids) for r in rollouts for c in r.completions]
        batches[0]["items"] = num_items(
            torch.tensor(lengths, dtype=torch.long), args.loss_reduction, args.max_completion_length
        )
        return batches

    @torch.no_grad()
    def fill_logps(self, batches: list[Batch]) -> None:
        """Old log-probs where the policy will have moved, reference ones for the KL term."""
        args = self.args
        model = self.model_wrapped
        for batch in batches:
            inputs = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                if args.num_mini_batches > 1:
                    batch["old_logps"] = self.logps(model, inputs, args.temperature)
                if self.reference is not None:
                    batch["ref_logps"] = self.reference.logps(inputs, args.temperature)

    # --- loss -------------------------------------------------------------------------------------

    def loss_sum(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        args, segment, tokens = self.args, batch["segment"], batch["tokens"]
        ends: list[int] = tokens.cumsum(0).tolist()

        def weigh(answer: Answer, block: slice) -> torch.Tensor:
            """The gradient at the log-probs of some whole completions."""
            some = slice(bisect_right(ends, block.start), bisect_left(ends, block.stop) + 1)
            with torch.enable_grad():
                policy = answer.logps.detach().requires_grad_()
                _, losses = self.token_losses(policy, batch, block, some)
                weights = token_weights(tokens, segment, args.loss_reduction)[block]
                (gradient,) = torch.autograd.grad((losses * weights).sum(), policy)
            return gradient

        weights = Later(ends, weigh) if len(segment) else None
        policy = self.logps(model, batch, args.temperature, weights=weights)
        if not len(policy):
            return policy.sum()
        logps, losses = self.token_losses(policy, batch, slice(None), slice(None))
        self.source_meter(
            "loss", segment_sum(losses, segment, len(tokens)), tokens, batch["source"]
        )
        clipped = self.loss.clipped(logps, batch["advantages"])
        self.meter("clip_share", clipped.float().sum(), len(clipped))
        if logps.reference is not None:
            d = policy.detach() - logps.reference
            self.meter("kl", (torch.exp(-d) - 1 + d).sum(), len(d))
        return (losses * token_weights(tokens, segment, args.loss_reduction)).sum()

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
        return logps, self.loss(logps, batch["advantages"][block], self.args.beta)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Not a loss: policies are evaluated on tasks (`posttrain.evals`)."""
        return {}


def as_spec(value: Any) -> dict[str, Any]:
    """A method given by name or by mapping."""
    return {"name": value} if isinstance(value, str) else dict(value)
