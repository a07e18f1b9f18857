"""A run folder -> `report.html`: one file, no script, nothing fetched.

folder.py         what the run folder holds, read with patience
series.py         one logged quantity over the steps: smoothing and thinning
charts.py         series and scores -> the geometry of a chart
page.py           what is shown, in which order and in which words
page.html.jinja   the page; style.css, its look in light and dark
"""

from __future__ import annotations

from posttrain.evals.report.page import write_report

__all__ = ["write_report"]
