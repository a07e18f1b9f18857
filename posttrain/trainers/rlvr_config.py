"""Settings of RL on verifiable rewards, and the methods that they name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.advantages import advantage
from posttrain.errors import RecipeError, nearest
from posttrain.generation import EngineSettings, engine_settings
from posttrain.generation.vllm.settings import VLLMSettings
from posttrain.losses import kl_controller, policy_loss, value_loss
from posttrain.losses.base import PolicyLoss
from posttrain.losses.kl import KL_ESTIMATORS
from posttrain.losses.kl_control import FixedKL
from posttrain.losses.value import ValueLoss
from posttrain.trainers.base import PostTrainingArguments

REDUCTIONS = ("token_mean", "sequence_mean", "sum", "max_length")
PLACES = ("loss", "reward")


@dataclass
class RLVRConfig(PostTrainingArguments):
    """Settings of `RLVRTrainer`; `per_device_train_batch_size` counts completions, as in TRL.

    Attributes:
        num_generations: completions per prompt.
        num_mini_batches: parts that the completions of a rollout are trained on in, in order.
        num_ppo_epochs: passes over a rollout; a rollout lasts for the product of both steps.
        beta: weight of the KL term towards the starting model.
        kl_in: `loss`, or `reward`: per token for `advantage` methods of tokens, else its sum.
        kl_estimator: k1, k2 or k3; default: k1 in the reward, the loss's own in the loss.
        kl_controller: what moves `beta` between rollouts (`losses.kl_control`).
        advantage, loss: methods and their options, as in a recipe.
        loss_reduction: `token_mean`, `sequence_mean`, `sum` (over tokens, by sequences) or
            `max_length` over the global batch of completions; default: that of the loss's paper.
        value_model: for `advantage: gae`: `policy` (its weights and a fresh head; the default),
            `random`, or a folder or hub id of a reward model or another one.
        vf_coef, cliprange_value: weight and clip of the value loss; `None`: not clipped.
        reward_weights: factor of each reward function in the sum of them; default: 1.
        reward_scale: the sum is multiplied by it: what a verifier's score of 1 is worth.
        missing_eos_reward: replaces the reward of a completion that was cut off.
        resample_rounds: draws of other prompts in the place of groups of equal rewards, at most
            (DAPO's dynamic sampling, see `trainers.refill`).
        rollouts_ahead: rollouts that are asked for before they are needed, see `trainers.ahead`; a
            server completes them while others are trained on. The importance weight is then on.
        save_rollouts: write every rollout to `<output_dir>/rollouts/`, see `trainers.keeping`.
        generation: who completes the prompts, as in a recipe.
        generation_batch_size: prompts under way at a time, where that is done in process.
        reward_workers: processes in which verifiers run while others are still completed; 0: none.
        reward_seconds: what the verdict on a completion may take, in a worker.
        max_wrong_gold: largest share of rows whose gold answer a verifier may grade wrongly when
            training begins; `None`: not looked at.
    """

    learning_rate: float = field(default=1e-6, metadata={"help": "Peak learning rate."})
    num_generations: int = field(default=8, metadata={"help": "Completions per prompt."})
    num_mini_batches: int = field(default=1, metadata={"help": "Optimizer steps per rollout."})
    num_ppo_epochs: int = field(default=1, metadata={"help": "Passes over a rollout."})
    max_prompt_length: int | None = field(
        default=1024, metadata={"help": "Longer prompts are dropped."}
    )
    max_completion_length: int = field(
        default=1024, metadata={"help": "New tokens per completion."}
    )
    temperature: float = field(default=1.0, metadata={"help": "Sampling temperature."})
    top_p: float = field(default=1.0, metadata={"help": "Nucleus sampling."})
    beta: float = field(default=0.0, metadata={"help": "Weight of the KL term."})
    kl_in: str = field(default="loss", metadata={"help": "loss or reward."})
    kl_estimator: str | None = field(default=None, metadata={"help": "k1, k2 or k3."})
    kl_controller: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "fixed"}, metadata={"help": "What moves beta."}
    )
    advantage: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "group"}, metadata={"help": "Advantage."}
    )
    loss: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "grpo"}, metadata={"help": "Policy loss."}
    )
    loss_reduction: str | None = field(
        default=None, metadata={"help": "Reduction; default: the loss's own."}
    )
    value_model: str | None = field(
        default=None, metadata={"help": "What the value model starts from."}
    )
    vf_coef: float = field(default=0.1, metadata={"help": "Weight of the value loss."})
    cliprange_value: float | None = field(default=0.2, metadata={"help": "Clip of the values."})
    reward_weights: list[float] | None = field(
        default=None, metadata={"help": "Factor of each reward function."}
    )
    reward_scale: float = field(default=1.0, metadata={"help": "Worth of a score of 1."})
    missing_eos_reward: float | None = field(
        default=None, metadata={"help": "Reward of a cut-off completion."}
    )
    resample_rounds: int = field(
        default=0, metadata={"help": "Draws that replace groups of equal rewards."}
    )
    rollouts_ahead: int = field(
        default=0, metadata={"help": "Rollouts asked for before they are needed."}
    )
    save_rollouts: bool = field(default=True, metadata={"help": "Write rollouts as parquet."})
    reward_workers: int = field(default=2, metadata={"help": "Processes that verify."})
    reward_seconds: float = field(default=30.0, metadata={"help": "Seconds per verdict."})
    max_wrong_gold: float | None = field(
        default=0.1, metadata={"help": "Share of gold answers that may be graded wrongly."}
    )
    generation: dict[str, Any] | str = field(
        default_factory=lambda: {"name": "local"}, metadata={"help": "Who completes prompts."}
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
        for name, least in (("num_mini_batches", 1), ("num_ppo_epochs", 1), ("rollouts_ahead", 0)):
            if getattr(self, name) < least:
                raise RecipeError(f"{name}: got {getattr(self, name)}; allowed is {least} or more")

    @property
    def prompts_per_step(self) -> int:
        """Prompts per optimizer step over all processes."""
        return self.global_batch // self.num_generations

    @property
    def steps_per_rollout(self) -> int:
        """Optimizer steps that one rollout lasts for."""
        return self.num_mini_batches * self.num_ppo_epochs


@dataclass(frozen=True)
class Methods:
    """What a set of RL settings names, made.

    Attributes:
        advantage: a `GroupMethod` or a `TokenMethod`.
        engine: who completes prompts.
        kl_control: says the KL term's weight; its state changes between rollouts.
        kl_in_reward: the estimator of the KL in the reward, or `None`: it is in the loss.
        value_model: what the value model starts from, or `None`: the advantage reads no values.
    """

    advantage: Any
    loss: PolicyLoss
    reduction: str
    value_loss: ValueLoss
    engine: EngineSettings
    kl_control: FixedKL
    kl_in_reward: str | None
    value_model: str | None

    @property
    def late(self) -> bool:
        """Whether credit needs log-probs, so that no group can be left out before them."""
        return bool(self.advantage.per_token) or self.kl_in_reward is not None

    @classmethod
    def of(cls, settings: Any) -> Methods:
        """From an `RLVRConfig`, or an `rlvr` stage of a recipe, which has the same names.

        Raises:
            RecipeError: an unknown method or option, or two settings that contradict each other.
        """
        chosen("kl_in", settings.kl_in, PLACES)
        loss = as_spec(settings.loss)
        if settings.rollouts_ahead or as_spec(settings.generation)["name"] == "vllm":
            loss = {"importance": {"name": "truncate"}, **loss}  # tokens are not quite the policy's
        if settings.kl_estimator is not None:
            chosen("kl_estimator", settings.kl_estimator, tuple(KL_ESTIMATORS))
            if settings.kl_in == "loss":
                loss = with_estimator(loss, settings.kl_estimator)
        policy, credit = policy_loss(loss), advantage(as_spec(settings.advantage))
        if settings.loss_reduction is not None:
            chosen("loss_reduction", settings.loss_reduction, REDUCTIONS)
        if settings.resample_rounds and (credit.per_token or settings.num_generations == 1):
            raise RecipeError(
                f"resample_rounds: got {settings.resample_rounds}, but it replaces groups of equal "
                "rewards: it needs an advantage of groups and num_generations above 1; set it to 0"
            )
        if settings.rollouts_ahead and settings.resample_rounds:
            raise RecipeError(
                f"rollouts_ahead: got {settings.rollouts_ahead}, but resample_rounds draws with "
                "the weights of the step, when rewards are known; set one of them to 0"
            )
        engine = engine_settings(settings.generation)
        if settings.rollouts_ahead and isinstance(engine, VLLMSettings) and engine.sleep:
            raise RecipeError(
                "generation.sleep: a server that writes while others are trained on cannot sleep "
                f"meanwhile; remove it, or set rollouts_ahead ({settings.rollouts_ahead}) to 0"
            )
        in_reward = settings.kl_in == "reward" and settings.beta > 0
        if settings.value_model is not None and not credit.needs_values:
            raise RecipeError(
                f"value_model: the advantage {as_spec(settings.advantage)['name']!r} reads no "
                "values; remove it, or use `advantage: gae`"
            )
        return cls(
            credit,
            policy,
            settings.loss_reduction or policy.reduction,
            value_loss(
                {
                    "name": "clipped",
                    "clip": settings.cliprange_value,
                    "coefficient": settings.vf_coef,
                }
            ),
            engine,
            controller(settings, in_reward),
            (settings.kl_estimator or "k1") if in_reward else None,
            (settings.value_model or "policy") if credit.needs_values else None,
        )


def controller(settings: Any, in_reward: bool) -> FixedKL:
    """The controller of the KL term's weight, which starts at `beta`."""
    spec = as_spec(settings.kl_controller)
    if "beta" in spec:
        raise RecipeError("kl_controller: its weight starts at `beta`; set that instead")
    if spec.get("name") != "fixed" and not in_reward:
        raise RecipeError(
            f"kl_controller: {spec.get('name')!r} steers a KL in the reward; set `kl_in: reward` "
            "and a beta above 0, or remove it"
        )
    return kl_controller({**spec, "beta": settings.beta})


def with_estimator(loss: dict[str, Any], estimator: str) -> dict[str, Any]:
    """The loss with the estimator that `kl_estimator` names."""
    if loss.get("kl", estimator) != estimator:
        raise RecipeError(
            f"kl_estimator: got {estimator}, but `loss.kl` is {loss['kl']}; remove one of them"
        )
    return {**loss, "kl": estimator}


def chosen(name: str, value: str, allowed: tuple[str, ...]) -> None:
    """Refuse what is none of a few words."""
    if value not in allowed:
        raise RecipeError(f"{name}: got {value!r}{nearest(str(value), allowed)}")


def as_spec(value: Mapping[str, Any] | str) -> dict[str, Any]:
    """A method given by name or by mapping."""
    return {"name": value} if isinstance(value, str) else dict(value)
