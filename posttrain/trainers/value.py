"""The value model of PPO: a scalar per token, trained beside the policy.

It is a submodule of the policy, `value_model`, so that the one engine has it too: accelerate, DDP
and ZeRO shard, reduce, step and save its weights and its optimizer state with the policy's. It has
weights of its own, no output of the policy's depends on it, and it never gets into a saved policy;
in checkpoints it lies beside it. Both gradients are clipped by themselves, but under DeepSpeed,
which clips what it steps by its one norm.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoModelForTokenClassification

from posttrain.attention import set_attention
from posttrain.errors import ModelError, RunError
from posttrain.models import Adapter, load_config, load_model, make_scalar, resize_to
from posttrain.packing import forward_inputs
from posttrain.trainers.base import PostTrainer
from posttrain.trainers.reward import without_dropout

NAME = "value_model"
FILE = f"{NAME}.safetensors"
POLICY, RANDOM = "policy", "random"


def load_value_model(
    start: str,
    policy: str,
    adapter: Adapter | None = None,
    dtype: torch.dtype = torch.float32,
    **options: Any,
) -> Any:
    """A value model.

    Args:
        start: `policy`: that checkpoint with a fresh head; `random`: its shape, nothing learned;
            else a folder or hub id, of a reward model with its head.
        policy: the checkpoint that the policy starts from.
        adapter: train such adapters and the head; of a random model everything is trained.

    Raises:
        ModelError: no such model.
    """
    if start != RANDOM:
        path = policy if start == POLICY else start
        return load_model(path, head="scalar", dtype=dtype, adapter=adapter, **options)
    config = load_config(policy, **options)
    config.num_labels, config.classifier_dropout = 1, 0.0
    model = AutoModelForTokenClassification.from_config(
        config, dtype=dtype, attn_implementation="sdpa"
    )
    make_scalar(model, fresh=True)
    set_attention(model)
    return model


def bare(critic: Any) -> Any:
    """The model inside its adapters."""
    return critic.get_base_model() if hasattr(critic, "get_base_model") else critic


def values(critic: Any, batch: Mapping[str, Any]) -> torch.Tensor:
    """`[K]` fp32 estimates before each trained token is drawn."""
    model, keep = bare(critic), batch["keep"]
    some = keep if len(keep) else keep.new_zeros(1)  # an empty share still joins collectives
    hidden = model.base_model(**forward_inputs(batch), use_cache=False).last_hidden_state[0, some]
    kind = next(model.score.parameters()).dtype
    with torch.autocast(hidden.device.type, enabled=False):  # in bfloat16 10 and 10.03 are the same
        found: torch.Tensor = model.score(hidden.to(kind))[:, 0].float()
    return found if len(keep) else (found * 0).sum().expand(0)


class Valued(PostTrainer):
    """A trainer whose policy may have a value model beside it."""

    value_model: Any = None

    def attach(self, critic: Any) -> None:
        """Take a value model along, before the first step.

        Raises:
            ModelError: it has no scores per token.
            RunError: under FSDP.
        """
        if self.accelerator.distributed_type == DistributedType.FSDP:
            raise RunError(
                "a value model cannot be trained under FSDP yet; use --hardware zero3, or an "
                "advantage without values"
            )
        inner: Any = bare(critic)
        if (
            not isinstance(critic, nn.Module)
            or "ForTokenClassification" not in type(inner).__name__
        ):
            raise ModelError(
                f"value_model: {type(inner).__name__} has no score per token; give a folder or hub "
                "id, `policy` or `random`"
            )
        if not hasattr(critic, "get_base_model"):
            make_scalar(inner)
            set_attention(inner)
        resize_to(inner, self.processing_class)
        without_dropout(critic)
        if self.place_model_on_device:
            critic.to(self.args.device)
        # the policy's outputs do not depend on it, so DDP would take it for unused
        if self.accelerator.ddp_handler is not None:
            self.accelerator.ddp_handler.find_unused_parameters = False
        self.value_model = critic
        self.model.add_module(NAME, critic)

    def values(self, batch: Mapping[str, Any]) -> torch.Tensor:
        """`[K]` estimates of the value model as it is."""
        with self.accelerator.autocast():
            return values(self.value_model, batch)

    @contextmanager
    def policy_alone(self) -> Iterator[None]:
        """The policy as it is without a value model."""
        if self.value_model is not None:
            del self.model._modules[NAME]
        try:
            yield
        finally:
            if self.value_model is not None:
                self.model.add_module(NAME, self.value_model)

    # --- gradients --------------------------------------------------------------------------------

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip policy and value model, each by its own norm; the policy's is logged."""
        if (
            self.value_model is None
            or self.accelerator.distributed_type == DistributedType.DEEPSPEED
        ):
            return super()._clip_grad_norm(model)  # type: ignore[no-untyped-call]
        with self.policy_alone():
            policy = list(self.model.parameters())
        norm = self.accelerator.clip_grad_norm_(policy, self.args.max_grad_norm)
        # gradients are unscaled by now, which fp16 allows once
        own = nn.utils.clip_grad_norm_(self.value_model.parameters(), self.args.max_grad_norm)
        self.meter("value_grad_norm", own, 1.0)
        return torch.where(own.isfinite(), norm, own)  # either one spoils the step

    def costs(self, *counted: Any) -> dict[str, float]:
        """MFU counts the policy's operations: a value model is no part of what is made."""
        with self.policy_alone():
            return super().costs(*counted)

    # --- checkpoints ------------------------------------------------------------------------------

    def _save(
        self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None
    ) -> None:
        if state_dict is not None:
            state_dict = {k: v for k, v in state_dict.items() if not k.startswith(f"{NAME}.")}
        with self.policy_alone():
            super()._save(output_dir, state_dict)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """The value model goes with its optimizer; DeepSpeed saves all that it has."""
        super()._save_optimizer_and_scheduler(output_dir)
        if self.value_model is None or self.is_deepspeed_enabled or not self.args.should_save:
            return
        trained = {n: p.detach().contiguous() for n, p in self.learned()}
        save_file(trained, Path(output_dir) / FILE)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with self.policy_alone():
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        if self.value_model is None:
            return
        path = Path(resume_from_checkpoint) / FILE
        if not path.is_file():
            raise RunError(f"{path} is missing: the checkpoint is of a run without a value model")
        found = load_file(path)
        with torch.no_grad():
            for name, parameter in self.learned():
                parameter.copy_(found[name])

    def learned(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The value model's weights that are trained."""
        return ((n, p) for n, p in self.value_model.named_parameters() if p.requires_grad)
