"""WildJailbreak and WildGuardMix."""

from __future__ import annotations

import pytest

from posttrain.sources.adapters.base import LeftOut
from posttrain.sources.adapters.safety import WildGuardMix, WildJailbreak

VANILLA = {"vanilla": "v", "adversarial": "", "completion": "c", "data_type": "vanilla_benign"}
GUARD = {"prompt": "p", "response": "r", "response_harm_label": "unharmful"}


def test_the_adversarial_wording_where_there_is_one() -> None:
    assert WildJailbreak()(VANILLA) == [{"prompt": "v", "completion": "c"}]
    assert WildJailbreak()(VANILLA | {"adversarial": "a"})[0]["prompt"] == "a"
    assert WildJailbreak()(VANILLA | {"adversarial": None})[0]["prompt"] == "v"


def test_data_types() -> None:
    with pytest.raises(LeftOut, match="not a data_type asked for"):
        WildJailbreak(data_types=("adversarial_benign",))(VANILLA)
    assert WildJailbreak(data_types=("vanilla_benign",))(VANILLA)


def test_harmful_and_missing_answers_are_left_out() -> None:
    assert WildGuardMix()(GUARD) == [{"prompt": "p", "completion": "r"}]
    with pytest.raises(LeftOut, match="no answer"):
        WildGuardMix()(GUARD | {"response": None})
    harmful = GUARD | {"response_harm_label": "harmful"}
    with pytest.raises(LeftOut, match="labelled harmful"):
        WildGuardMix()(harmful)
    assert WildGuardMix(harmful=True)(harmful)
