"""What vLLM's workers can do more. This file is read in vLLM's environment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from posttrain_vllm_group import broadcast, group_of, store_of


class Worker:
    """Becomes a base of vLLM's worker class (`worker_extension_cls`)."""

    model_runner: Any
    rank: int
    device: torch.device
    reload_weights: Any

    def divide_logits(self, temperature: float) -> None:
        """Let the model itself divide its logits, in fp32.

        vLLM says log-probs either before the temperature, or after `top_p` and `top_k` have cut
        the vocabulary. A trainer needs those between the two: sampling at temperature 1 from
        divided logits returns them.
        """
        model = self.model_runner.get_model()
        if not hasattr(model, "undivided_logits"):
            model.undivided_logits = model.compute_logits
            model.compute_logits = self.compute_logits
        self.model, self.temperature = model, temperature

    def compute_logits(self, *args: Any, **kwargs: Any) -> Any:
        logits = self.model.undivided_logits(*args, **kwargs)
        if logits is None or self.temperature == 1:  # only one worker of several has logits
            return logits
        return logits.float() / self.temperature

    def join(self, backend: str, host: str, port: int, size: int) -> None:
        """Become a member of a trainer's group, in which it comes first."""
        self.group = group_of(backend, store_of(host, port), 1 + self.rank, size)
        self.received_at = self.device if backend == "nccl" else torch.device("cpu")

    def receive(self, tensors: list[tuple[str, str, list[int]]]) -> None:
        """Load weights as the trainer sends them: name, type and shape of each, in its order."""

        def received() -> Iterator[tuple[str, torch.Tensor]]:
            for name, kind, shape in tensors:
                empty = torch.empty(shape, dtype=getattr(torch, kind), device=self.received_at)
                yield name, broadcast(self.group, empty)

        try:
            self.reload_weights(weights_iterator=received())
        except BaseException:
            self.group = None  # the trainer waits for nobody
            raise
