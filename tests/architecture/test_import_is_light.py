"""Whatever stands left of `tokens` is usable without torch, and quick to import."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = ("torch", "transformers", "trl", "accelerate", "deepspeed", "peft")


def loaded_by(statement: str) -> list[str]:
    """The heavy packages that a fresh interpreter holds after `statement`."""
    program = f"{statement}\nimport sys\nprint(*(m for m in {HEAVY} if m in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.parametrize(
    "statement",
    [
        "import posttrain",
        "import posttrain.errors, posttrain.formats",
        "from posttrain.recipe import load_recipe",
        "from posttrain import Recipe, Verdict",
        "from posttrain.verifiers import get_verifier",
        "from posttrain import get_verifier; get_verifier('gsm8k')('The answer is 4.', '4')",
        "import posttrain.sources",
        "import posttrain.filters",
        "from posttrain.mixture import build_mixture",
        "import posttrain.cli",
    ],
)
def test_no_heavy_package_is_loaded(statement: str) -> None:
    assert loaded_by(statement) == []


def test_a_loaded_package_is_seen() -> None:
    assert loaded_by("import peft") != []
