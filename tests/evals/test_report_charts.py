"""The drawing of the report: smoothing, thinning, axes, labels, and what shares a chart."""

from __future__ import annotations

import math

import pytest

from posttrain.evals.report.charts import Stroke, line_chart, nice_ticks, number, spread
from posttrain.evals.report.curves import COLOURS, Palette, stage_curves
from posttrain.evals.report.series import Series


def test_a_resumed_run_overtakes_what_it_repeats() -> None:
    series = Series("loss", [1, 2, 3, 4], [9.0, 8.0, 7.0, 6.0])
    series.add(3, 5.0)
    assert list(series.steps) == [1, 2, 3]
    assert list(series.values) == [9.0, 8.0, 5.0]


def test_smoothing_is_a_moving_mean_that_shrinks_at_the_start() -> None:
    zigzag = Series("loss", range(300), [float(i % 2) for i in range(300)])
    smooth = zigzag.smoothed().values
    assert smooth[0] == 0.0
    assert smooth[1] == pytest.approx(1 / 3)  # of 0, 1, 0
    assert smooth[100] == pytest.approx(6 / 11)  # of 95 to 105: half a window is 300 // 60 = 5
    assert smooth[299] == pytest.approx(3 / 6)  # of 294 to 299: it leans back
    line = Series("lr", range(300), [float(i) for i in range(300)])
    assert line.smoothed() is line  # nothing to smooth


def test_thinning_keeps_the_extremes_of_every_slice() -> None:
    values = [1.0] * 1000
    values[567] = 50.0
    values[568] = -3.0
    thin = Series("loss", range(1000), values).thinned(100)
    assert len(thin.values) <= 100
    assert max(thin.values) == 50.0
    assert min(thin.values) == -3.0


def test_ticks_and_numbers_are_round() -> None:
    assert nice_ticks(0.03, 1.1, 5) == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert nice_ticks(0, 600, 5) == [0, 200, 400, 600]
    assert nice_ticks(3, 3, 5) == [3]
    texts = [number(v) for v in (0.35172, 0, 12.345, 1234567, 5e-6, -0.00145, None, math.nan)]
    assert texts == ["0.352", "0", "12.3", "1,234,567", "5e-6", "-0.00145", "—", "—"]


def test_labels_are_pushed_apart_and_stay_inside() -> None:
    assert spread([50, 52, 100], 200, 10) == [50, 60, 100]
    assert spread([198, 200], 200, 10) == [190, 200]


def test_a_chart_of_values_that_differ_by_orders_is_logarithmic() -> None:
    chart = line_chart("Gradient norm", [Stroke(Series("g", range(50), [1.0] * 49 + [1000.0]))])
    assert chart is not None
    assert chart.note == "log scale"
    assert [tick.text for tick in chart.y_ticks] == ["1", "10", "100", "1,000"]
    assert line_chart("Nothing", [Stroke(Series("g", [1], [None]))]) is None


def test_many_sources_get_a_chart_each_on_the_same_axes() -> None:
    steps = range(1, 11)
    metrics = {f"loss/s{k}": Series("loss", steps, [k + 1 / i for i in steps]) for k in range(7)}
    metrics["loss"] = Series("loss", steps, [3.0] * 10)
    metrics["epoch"] = Series("epoch", steps, [0.1] * 10)
    curves = stage_curves(metrics, "sft", Palette())
    assert [chart.title for chart in curves.main] == ["Loss"]
    assert len(curves.main[0].lines) == 1
    (facets,) = curves.facets
    assert [chart.title for chart in facets.charts][:2] == ["s0 0.1", "s1 1.1"]
    assert len({tuple(chart.y_ticks) for chart in facets.charts}) == 1
    assert not curves.more  # the epoch is no curve


def test_the_policy_loss_is_not_the_headline_of_rlvr() -> None:
    steps = range(1, 4)
    metrics = {
        key: Series(key, steps, [1.0, 2.0, 3.0]) for key in ("loss", "reward", "eval_reward")
    }
    curves = stage_curves(metrics, "rlvr", Palette())
    assert [chart.title for chart in curves.main] == ["Reward"]
    assert [line.name for line in curves.main[0].lines] == ["held out", "all"]
    assert [chart.title for chart in curves.small] == ["Loss"]


def test_a_source_keeps_its_colour_in_every_chart() -> None:
    palette = Palette()
    first = palette.colours(["math", "code"])
    assert palette.colours(["code"]) == {"code": first["code"]}
    palette.colours([f"s{i}" for i in range(COLOURS - 2)])
    full = palette.colours(["math", "one too many"])
    assert full["math"] == first["math"]
    assert len(set(full.values())) == 2
