"""check(recipe) and run(recipe): stages in order -> run folder."""

from __future__ import annotations

from posttrain.pipeline.quiet import quiet, quiet_bars

quiet()

from posttrain.pipeline.check import check, read_recipe  # noqa: E402
from posttrain.pipeline.data_commands import build_data, show_data  # noqa: E402
from posttrain.pipeline.run import run  # noqa: E402

quiet_bars()

__all__ = ["build_data", "check", "read_recipe", "run", "show_data"]
