"""UltraFeedback: several rated answers to a prompt become one pair (arXiv:2310.01377)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import LeftOut, dice, items, text, value

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")


@dataclass(frozen=True)
class UltraFeedback:
    r"""openbmb/UltraFeedback.

        {"source": "evol_instruct", "instruction": "Can you write a C++ program that prompts …",
         "completions": [{"model": "alpaca-7b", "response": "int main() {\n    string country; …",
           "annotations": {"helpfulness": {"Rating": "2", …}, "honesty": {"Rating": "1", …}, …}, …},
          {"model": "starchat", "response": "Here's a C++ program that prompts the user to …",
           "annotations": {"helpfulness": {"Rating": "5", …}, "honesty": {"Rating": "5", …}, …}, …},
          …], …}

    The chosen answer has the best score, the first of several equal ones; the rejected one always
    a lower score (open-instruct's script never compares them, so its "rejected" may be as good).
    A rating that is no number ("N/A") is left out of the mean instead of counting as -1 or 1.

    Attributes:
        score: `aspects`: mean of the ratings of helpfulness, honesty, instruction following and
            truthfulness (Tülu 2.5's best); `overall`: the one `overall_score`.
        rejected: `random`: any lower-rated answer, drawn by seed and prompt; `lowest`: the worst.
        seed: of that draw.
    """

    score: str = "aspects"
    rejected: str = "random"
    seed: int = 42

    def __post_init__(self) -> None:
        if self.score not in ("aspects", "overall"):
            raise ValueError(f"score must be aspects or overall, got {self.score!r}")
        if self.rejected not in ("random", "lowest"):
            raise ValueError(f"rejected must be random or lowest, got {self.rejected!r}")

    def __call__(self, raw: Any) -> list[Row]:
        prompt = text(raw, "instruction")
        answers = [(self.rate(c), text(c, "response")) for c in items(raw, "completions")]
        rated = [(score, answer) for score, answer in answers if score is not None]
        if len(rated) < 2:
            raise LeftOut("fewer than two answers have ratings")
        best, chosen = max(rated, key=lambda pair: pair[0])
        lower = [pair for pair in rated if pair[0] < best]
        if not lower:
            raise LeftOut("all answers are rated alike")
        if self.rejected == "lowest":
            worst, rejected = min(lower, key=lambda pair: pair[0])
        else:
            worst, rejected = dice(self.seed, prompt).choice(lower)
        return [
            {
                "prompt": prompt,
                "chosen": chosen,
                "rejected": rejected,
                "chosen_score": best,
                "rejected_score": worst,
            }
        ]

    def rate(self, completion: Any) -> float | None:
        """The score of one answer; `None` if it has none."""
        if self.score == "overall":
            return number(value(completion, "overall_score"))
        annotations = value(completion, "annotations")
        if not isinstance(annotations, Mapping):
            raise DataError(f"an answer needs `annotations`, got {shown(annotations)}")
        ratings = [rating_of(annotations.get(aspect)) for aspect in ASPECTS]
        known = [rating for rating in ratings if rating is not None]
        return sum(known) / len(known) if known else None


def rating_of(annotation: Any) -> float | None:
    """The rating of one aspect: {"Rating": "4", ...}, or a list of one."""
    if isinstance(annotation, (list, tuple)) and annotation:
        annotation = annotation[0]
    return number(annotation.get("Rating")) if isinstance(annotation, Mapping) else None


def number(given: Any) -> float | None:
    """A finite number, or text of one; `None` for anything else."""
    if isinstance(given, bool) or not isinstance(given, (int, float, str)):
        return None
    try:
        found = float(given)
    except (ValueError, OverflowError):
        return None
    return found if abs(found) < float("inf") else None  # not NaN either


@dataclass(frozen=True)
class UltraFeedbackBinarized:
    """HuggingFaceH4/ultrafeedback_binarized, whose pairs are made already.

        {"prompt": "how can i develop a habit of drawing daily", "chosen": [
          {"content": "how can i develop a habit of drawing daily", "role": "user"},
          {"content": "Developing a daily habit of drawing can be …", "role": "assistant"}],
         "rejected": [{"content": "how can i develop a habit of drawing daily", "role": "user"},
          {"content": "As an AI language model, I cannot personally …", "role": "assistant"}],
         "score_chosen": 8.5, "score_rejected": 8.5, …}

    Attributes:
        drop_ties: leave out pairs whose two scores are equal; Zephyr and Tülu 2 kept them.
    """

    drop_ties: bool = False

    def __call__(self, raw: Any) -> list[Row]:
        scores = [value(raw, f"score_{side}") for side in ("chosen", "rejected")]
        if self.drop_ties and scores[0] is not None and scores[0] == scores[1]:
            raise LeftOut("both answers are rated alike")
        return [dict(raw)]
