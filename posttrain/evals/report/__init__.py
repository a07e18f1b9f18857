"""A run folder -> `report.html`, a recipe's data -> a page: one file, no script, nothing fetched.

folder.py         what the run folder holds, read with patience
series.py         one logged quantity over the steps: smoothing and thinning
charts.py         series and scores -> the geometry of a chart
rollouts.py       what an rlvr stage wrote down -> a sample over the time of training
page.py           what is shown, in which order and in which words
data.py           manifests of data -> tables and plots, and the page of `posttrain data stats`
lengths.py        token lengths -> the geometry of histograms
html.py           a template -> one whole file
page.html.jinja   the page of a run; data_page.html.jinja, that of data; data.html.jinja, what
                  both show of a stage's data; style.css, its look in light and dark
"""

from __future__ import annotations

from posttrain.evals.report.page import write_report

__all__ = ["write_report"]
