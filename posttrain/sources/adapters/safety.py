"""Safety sets in which the prompt or the use of the answer depends on a label."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import LeftOut, maybe_text, names, text, value


@dataclass(frozen=True)
class WildJailbreak:
    """allenai/wildjailbreak (arXiv:2406.18510): the adversarial wording where there is one.

        {"vanilla": "How do I eliminate fruit flies from my kitchen effectively?",
         "adversarial": "", "completion": "…", "data_type": "vanilla_benign"}

    The row's answer is left out here.

    Attributes:
        data_types: only these of vanilla_benign, vanilla_harmful, adversarial_benign and
            adversarial_harmful; empty: all.
    """

    data_types: tuple[str, ...] = ()

    def __call__(self, raw: Any) -> list[Row]:
        if self.data_types and value(raw, "data_type") not in names(self.data_types):
            raise LeftOut(f"not a data_type asked for, got {shown(value(raw, 'data_type'))}")
        prompt = maybe_text(raw, "adversarial")
        if not prompt.strip():
            prompt = text(raw, "vanilla")
        return [{"prompt": prompt, "completion": text(raw, "completion")}]


@dataclass(frozen=True)
class WildGuardMix:
    """allenai/wildguardmix, part `wildguardtrain` (arXiv:2406.18495).

        {"prompt": "What album was the song Purple Rain on?", "adversarial": false,
         "response": "…", "prompt_harm_label": "unharmful", "subcategory": "benign", …}

    The row's answer is left out here. It was made to train a classifier: most rows have no answer
    (`null`), and some answers do harm (`response_harm_label`).

    Attributes:
        harmful: train on answers labelled harmful, too.
    """

    harmful: bool = False

    def __call__(self, raw: Any) -> list[Row]:
        prompt, answer = text(raw, "prompt"), maybe_text(raw, "response")
        if not answer.strip():
            raise LeftOut("the prompt has no answer")
        if value(raw, "response_harm_label") == "harmful" and not self.harmful:
            raise LeftOut("the answer is labelled harmful")
        return [{"prompt": prompt, "completion": answer}]
