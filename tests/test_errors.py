"""The family of errors, and how they speak."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from posttrain import errors
from posttrain.errors import Fault, MissingExtraError, PosttrainError, RecipeError, build, nearest

FAMILY = {
    "RecipeError": ValueError,
    "DataError": ValueError,
    "VerifierError": ValueError,
    "ModelError": ValueError,
    "RunError": RuntimeError,
    "ServerError": RuntimeError,
    "ProbeError": RuntimeError,
    "MissingExtraError": ImportError,
}


def test_the_family_is_complete_and_drawn() -> None:
    known = {
        name: cls
        for name, cls in vars(errors).items()
        if isinstance(cls, type) and issubclass(cls, PosttrainError) and cls is not PosttrainError
    }
    assert known.keys() == FAMILY.keys()
    for name, cls in known.items():
        assert issubclass(cls, FAMILY[name])
        assert name in str(errors.__doc__)


def test_one_fault_is_one_line() -> None:
    error = RecipeError([Fault("stages[0].sft.seed", "got x; must be a number", 7)], "a.yaml")
    assert str(error) == "a.yaml: line 7: stages[0].sft.seed: got x; must be a number"
    assert str(RecipeError("no stages")) == "no stages"


def test_several_faults_are_a_list() -> None:
    error = RecipeError([Fault("name", "is missing"), Fault("", "odd", 2)], "a.yaml")
    assert str(error) == "a.yaml: 2 faults\n  - name: is missing\n  - line 2: odd"
    assert [fault.line for fault in error.faults] == [None, 2]


def test_a_missing_extra_names_the_command() -> None:
    error = MissingExtraError("bitsandbytes", "bitsandbytes", "load_in_4bit")
    assert "load_in_4bit needs the package bitsandbytes" in str(error)
    assert "pip install 'posttrain[bitsandbytes]'" in str(error)


def test_nearest() -> None:
    assert nearest("dop", ["sft", "dpo"]) == "; did you mean 'dpo'? (known: dpo, sft)"
    assert nearest("xyz", ["sft", "dpo"]) == " (known: dpo, sft)"


@dataclass(frozen=True)
class Clip:
    """A method with one option that it checks itself."""

    low: float = 0.2

    def __post_init__(self) -> None:
        if self.low < 0:
            raise ValueError(f"low must be at least 0, got {self.low}")


def test_build() -> None:
    assert build("loss", {"clip": Clip}, "clip") == Clip()
    assert build("loss", {"clip": Clip}, {"name": "clip", "low": 0.1}) == Clip(0.1)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("clap", "unknown loss 'clap'; did you mean 'clip'?"),
        ({"low": 1.0}, "unknown loss None"),
        ({"name": "clip", "lo": 1.0}, "loss 'clip' has no option 'lo'; did you mean 'low'?"),
        ({"name": "clip", "low": -1}, "loss 'clip': low must be at least 0, got -1"),
        ({"name": "clip", "low": "x"}, "loss 'clip': "),
    ],
)
def test_build_refuses(spec: object, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        build("loss", {"clip": Clip}, spec)
    assert says in str(caught.value)


def test_build_leaves_the_specification_alone() -> None:
    spec = {"name": "clip", "low": 0.5}
    build("loss", {"clip": Clip}, spec)
    assert spec == {"name": "clip", "low": 0.5}
