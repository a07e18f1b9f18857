"""The weight of a KL penalty: fixed, or steered towards a target.

Ziegler et al. 2019 (arXiv:1909.08593, section 2.2) steer in proportion to the relative error:

    e = clip((KL - target) / target, -0.2, 0.2),    beta <- beta (1 + e episodes / horizon)

where the paper's K_beta = 0.1 is episodes / horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

LARGEST_ERROR = 0.2


@dataclass
class FixedKL:
    """The same weight for ever (Tülu 3: 0.05 for 8B)."""

    beta: float = 0.05

    def __post_init__(self) -> None:
        if not self.beta >= 0:
            raise ValueError(f"beta: got {self.beta}; a KL penalty needs beta >= 0")

    def update(self, kl: float, episodes: int) -> None:
        """Nothing moves it."""

    def state_dict(self) -> dict[str, float]:
        """What a resumed run needs to go on alike."""
        return {"beta": self.beta}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from `state_dict`."""
        self.beta = float(state["beta"])


@dataclass
class AdaptiveKL(FixedKL):
    """Raises the weight while completions are further than `target` nats away, lowers it else.

    Attributes:
        target: KL of a whole completion, summed over its tokens.
        horizon: completions over which a full error would move beta by its own size.
    """

    target: float = 6.0
    horizon: int = 10_000

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("beta", "target", "horizon"):
            if not getattr(self, name) > 0:
                raise ValueError(
                    f"{name}: got {getattr(self, name)}; the adaptive controller needs {name} > 0"
                )

    def update(self, kl: float, episodes: int) -> None:
        """After a rollout.

        Args:
            kl: mean over the global batch's completions of their summed estimate.
            episodes: how many completions those were.
        """
        error = min(max((kl - self.target) / self.target, -LARGEST_ERROR), LARGEST_ERROR)
        self.beta *= 1 + error * episodes / self.horizon
