"""check(recipe) and run(recipe): stages in order -> run folder."""

from __future__ import annotations

from posttrain.pipeline.check import check
from posttrain.pipeline.data import build_data, show_data
from posttrain.pipeline.run import run

__all__ = ["build_data", "check", "run", "show_data"]
