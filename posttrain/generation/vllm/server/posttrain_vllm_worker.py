"""What vLLM's workers can do more. This file is read in vLLM's environment."""

from __future__ import annotations

from typing import Any


class Worker:
    """Becomes a base of vLLM's worker class (`worker_extension_cls`)."""

    model_runner: Any

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
