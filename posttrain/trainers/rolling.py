"""The half of RL that comes before the loss: complete, verify, reward, pack, credit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from posttrain.generation.base import OnGroup, ignore
from posttrain.generation.local import Completion, Sampling, eos_ids, generate_ids
from posttrain.generation.vllm.settings import VLLMSettings
from posttrain.losses.base import num_items
from posttrain.packing import Rows
from posttrain.partitions import whole
from posttrain.trainers.ahead import Ahead, Asked
from posttrain.trainers.base import Batch
from posttrain.trainers.credit import credit_groups, credit_tokens, kl_per_completion
from posttrain.trainers.keeping import keep
from posttrain.trainers.policies import FrozenReference
from posttrain.trainers.refill import Draw, refill
from posttrain.trainers.rewards import Rewards
from posttrain.trainers.rlvr_config import Methods, RLVRConfig
from posttrain.trainers.rollouts import Rollout, by_count, by_tokens, pack_answers
from posttrain.trainers.seen import meter_credit, meter_draw, timed
from posttrain.trainers.served import Served
from posttrain.trainers.value import Valued
from posttrain.trainers.verifying import Verification
from posttrain.verifiers.workers.pool import Pool


class Rolling(Valued):
    """A trainer that turns prompts into packed batches with the advantage of every token.

    Attributes:
        pool: workers for verifiers.
        reference: the model that the KL term compares with, where there is one.
        served: the server that completes prompts, once there is one.
        ahead: rollouts that were asked for.
        on_rollout: called with every rollout, scored.
    """

    args: RLVRConfig
    rewards: Rewards
    methods: Methods
    pool: Pool
    ahead: Ahead
    reference: FrozenReference | None = None
    served: Served | None = None
    on_rollout: Callable[[list[Rollout]], None] | None = None

    def _prepare_input(self, data: Any) -> Any:
        """Log-probs and values stay fp32: under DeepSpeed they would be made bfloat16."""
        if isinstance(data, torch.Tensor):
            return data.to(self.args.device)
        return super()._prepare_input(data)

    def roll_out(self, asked: Asked, num_batches: int) -> list[list[Batch]]:
        """Credit the completions of several steps at once -> per step its micro-batches."""
        steps, rows = asked.steps, asked.rows
        completions, scores = self.judged(asked)
        draw = Draw(rows, completions, scores, self.totals(scores, completions))
        if self.args.rollouts_ahead:
            late = torch.tensor(float(self.state.global_step - asked.step))
            self.meter("staleness", late.to(self.args.device), 1.0)
        meter_draw(self, draw)  # as drawn: what replaces groups is chosen by its reward
        if self.args.resample_rounds:
            draw = refill(self, draw)
        rewards = draw.rewards
        known = None if self.methods.late else self.methods.advantage(rewards, self.over_all)
        rollouts = self.rollouts(draw, known)
        if self.args.save_rollouts:
            keep(self, rollouts)
        if self.on_rollout:
            self.on_rollout(rollouts)
        windows, start = [], 0
        for step in steps:
            windows.append(self.micro_batches(rollouts[start : start + len(step)], num_batches))
            start += len(step)
        batches = [batch for window in windows for batch in window]
        self.fill(batches, fresh=asked.step == self.state.global_step)
        if known is None:
            self.credit(rewards, batches)
        meter_credit(self, rollouts, batches)
        return windows

    def rollouts(self, draw: Draw, known: torch.Tensor | None) -> list[Rollout]:
        """The groups of a draw, numbered, with the `[P, G]` advantages that are known already."""
        return [
            Rollout(
                row,
                draw.completions[i],
                draw.rewards[i],
                None if known is None else known[i],
                self.source_of(row),
                i * self.args.num_generations,
            )
            for i, row in enumerate(draw.rows)
        ]

    def source_of(self, row: dict[str, Any]) -> int:
        """The number of a problem's source."""
        name = row.get("source") or ""
        return self.sources.index(name) if name in self.sources else 0

    def scored(
        self, rows: list[dict[str, Any]], greedy: bool = False
    ) -> tuple[list[list[Completion]], torch.Tensor]:
        """Completions of some prompts, and `[F, P, G]` what each reward function makes of them."""
        self.ahead.wait()
        self.follow()
        asked = self.asked([rows])
        self.write([asked], self.draw_seed, greedy)
        return self.judged(asked)

    def asked(self, steps: list[list[dict[str, Any]]], step: int | None = None) -> Asked:
        """Problems whose completions are verified as they come; `step` is that of the weights."""
        rows, verification = [row for one in steps for row in one], None
        if self.rewards.verifiers and rows and self.args.reward_workers:
            verification = Verification(self.pool, self.rewards.verifiers, rows, self.text)
        return Asked(steps, self.state.global_step if step is None else step, verification)

    def write(self, new: Sequence[Asked], seed: int, greedy: bool = False) -> None:
        """Complete the prompts of some rollouts together, those of the first one first."""
        places = [(asked, i) for asked in new for i in range(len(asked.rows))]
        rows = [asked.rows[i] for asked, i in places]

        def on_group(index: int, group: list[Completion]) -> None:
            asked, i = places[index]
            asked.take(i, group)

        prompts, numbers = [row["prompt_ids"] for row in rows], [int(row["index"]) for row in rows]
        for index, group in enumerate(self.complete(prompts, numbers, on_group, greedy, seed)):
            asked, i = places[index]
            if i not in asked.found:  # whoever overrides `complete` need not tell of each group
                asked.take(i, group)
        if self.served is not None:
            self.served.rest()

    def judged(self, asked: Asked) -> tuple[list[list[Completion]], torch.Tensor]:
        """The completions of a rollout and `[F, P, G]` their scores, whatever they come from."""
        rows, completions = asked.rows, asked.future.result()
        texts = [[self.text(c) for c in group] for group in completions]
        seconds = torch.tensor(asked.seconds, device=self.args.device)
        self.meter("seconds/generate", seconds, 1.0)
        with timed(self, "verify"):  # what is left to wait for
            known = asked.verification.scores() if asked.verification else {}
            each = self.rewards.each
            scores = each(rows, texts, completions, known, trainer_state=self.state)
        if asked.verification:
            count = sum(map(len, texts)) * len(self.rewards.verifiers)
            for name, found in asked.verification.faults().items():
                total = torch.tensor(float(found), device=self.args.device)
                self.meter(f"verifier/{name}", total, count)
        return completions, scores

    def totals(self, scores: torch.Tensor, completions: list[list[Completion]]) -> torch.Tensor:
        """`[P, G]` rewards: weighted, scaled, and replaced where the EOS is missing."""
        rewards, instead = self.rewards.weighted(scores), self.args.missing_eos_reward
        rewards = rewards * self.args.reward_scale
        if instead is None:
            return rewards
        finished = [[c.finished for c in group] for group in completions]
        kept = torch.tensor(finished, dtype=torch.bool).view_as(rewards)
        return torch.where(kept, rewards, torch.tensor(float(instead)))

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Greedy answers to held-out problems, one to each, rewarded as in training.

        Returns:
            The means that training logs of its rollouts, as `eval_reward`, `eval_pass_rate` and so
            on; nothing where there are no problems.
        """
        rows = eval_dataset if eval_dataset is not None else self.eval_dataset
        if rows is None:
            return {}
        if isinstance(rows, Mapping):
            merged: dict[str, float] = {}
            for name, part in rows.items():
                merged |= self.evaluate(part, ignore_keys, f"{metric_key_prefix}_{name}")
            return merged
        state, data = self.accelerator, Rows(self.prepare(rows))
        mine: Any = [data[i] for i in range(state.process_index, len(data), state.num_processes)]
        with self.apart():
            completions, scores = self.scored(mine, greedy=True)
            meter_draw(self, Draw(mine, completions, scores, self.totals(scores, completions)))
            found = {name: value for name, value in self.drain().items() if name != "entropy"}
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in found.items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics

    def complete(
        self,
        prompts: list[list[int]],
        numbers: list[int],
        on_group: OnGroup = ignore,
        greedy: bool = False,
        seed: int | None = None,
    ) -> list[list[Completion]]:
        """Sample from the policy as it is; the draw depends on seed and row only.

        Args:
            numbers: of the rows in the data set, so that processes may share them as they like.
            on_group: called with every group that is whole.
            greedy: one answer each, of the most probable tokens.
            seed: of the draw; default: this step's.
        """
        args, model = self.args, self.accelerator.unwrap_model(self.model_wrapped)
        bare = model.get_base_model() if hasattr(model, "get_base_model") else model
        heat = 0.0 if greedy else args.temperature
        sampling = Sampling(args.max_completion_length, heat, args.top_p)
        each = 1 if greedy else args.num_generations
        seed = self.draw_seed if seed is None else seed
        if self.served is not None:
            return self.served.engine(
                prompts,
                sampling,
                num_generations=each,
                seed=seed,
                numbers=numbers,
                on_group=on_group,
            )
        with whole(self.model_wrapped, bare, self.value_model):
            return generate_ids(
                bare,
                prompts,
                sampling,
                eos_ids(bare, self.processing_class),
                num_generations=each,
                batch_size=args.generation_batch_size,
                seed=seed,
                numbers=numbers,
                on_group=on_group,
                static_shapes=getattr(self.methods.engine, "static_shapes", None),
            )

    @property
    def draw_seed(self) -> int:
        """Of what is sampled at this step."""
        return self.args.seed * 1_000_003 + self.state.global_step

    def follow(self) -> None:
        """Let the server, where there is one, have the policy as it is."""
        settings = self.methods.engine
        if not isinstance(settings, VLLMSettings):
            return
        with timed(self, "sync"):
            self.served = self.served or Served(self, settings)
            self.served.follow()

    def text(self, completion: Completion) -> str:
        return str(self.processing_class.decode(completion.ids, skip_special_tokens=True))

    def micro_batches(self, rollouts: list[Rollout], num_batches: int) -> list[Batch]:
        """Pack a step's completions, each prompt once in each micro-batch.

        There are `num_batches`, or under a token budget as many as the process that needs most.
        """
        args, keep_all = self.args, bool(self.args.beta)
        useful = [
            r
            for r in rollouts
            if keep_all or r.advantages is None or bool(r.advantages.abs().sum() > 0)
        ]
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
            torch.tensor(lengths, dtype=torch.long),
            self.methods.reduction,
            args.max_completion_length,
        )
        return batches

    # --- credit -----------------------------------------------------------------------------------

    @torch.no_grad()
    def fill(self, batches: list[Batch], fresh: bool) -> None:
        """Old log-probs, those of the reference, and values: what is known before the first step.

        Old log-probs are the sampler's where it computes as the trainer does and its weights are
        still the trainer's (`fresh`). A policy that has not moved since says them anyway: in the
        only step of a rollout, and in the first one of several over the same completions.
        """
        args, model = self.args, self.model_wrapped
        wanted = args.num_mini_batches > 1 or self.methods.kl_in_reward is not None
        sampled = fresh and self.samples_exactly(batches)
        for batch in batches:
            inputs = self._prepare_inputs(batch)
            with self.compute_loss_context_manager():
                if sampled and (wanted or args.steps_per_rollout > 1):
                    batch["old_logps"] = inputs["sampler_logps"]
                elif wanted:
                    batch["old_logps"] = self.logps(model, inputs, args.temperature)
                if self.reference is not None:
                    batch["ref_logps"] = self.reference.logps(inputs, args.temperature)
                if self.value_model is not None:
                    batch["old_values"] = self.values(inputs)

    def samples_exactly(self, batches: list[Batch]) -> bool:
        """Whether the engine's log-probs are the trainer's: both in fp32, to rounding."""
        plain = self.accelerator.mixed_precision == "no" and self.served is None
        plain = plain and torch.get_float32_matmul_precision() == "highest"
        plain = plain and all(p.dtype == torch.float32 for p in self.model.parameters())
        return plain and not any(bool(b["sampler_logps"].isnan().any()) for b in batches)

    def credit(self, rewards: torch.Tensor, batches: list[Batch]) -> None:
        """Advantages (and returns) that need log-probs or values, over the whole rollout.

        Args:
            rewards: `[P, G]`.
        """
        methods, control = self.methods, self.methods.kl_control
        estimator, beta = methods.kl_in_reward, control.beta
        spent = torch.zeros(rewards.numel())
        if estimator is not None:
            spent = kl_per_completion(batches, estimator, rewards.numel()).cpu()
        if methods.advantage.per_token:
            credit_tokens(methods.advantage, rewards, batches, self.over_all, estimator, beta)
        else:
            less = rewards - beta * spent.view_as(rewards)
            credit_groups(methods.advantage, less, batches, self.over_all)
        if estimator is not None:
            total, count = self.over_all(
                torch.tensor([float(spent.sum()), float(spent.numel())])
            ).tolist()
            self.meter("kl_completion", spent.sum().to(self.args.device), spent.numel())
            self.meter("kl_beta", torch.tensor(beta, device=self.args.device), 1.0)
            control.update(total / max(count, 1), int(count))

    def over_all(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of a small tensor over all processes."""
        if self.accelerator.num_processes == 1:
            return values
        there = values.to(self.args.device)
        total: torch.Tensor = self.accelerator.reduce(there, reduction="sum")
        return total.to(values.device)
