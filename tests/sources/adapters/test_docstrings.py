"""The row that an adapter's docstring shows is one that it reads.

In a docstring a line break inside a row stands for a space, `…` at the end of a text for the rest
of it, and `…` among fields or items for those left out.
"""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

import pytest
import yaml

from posttrain.errors import DataError
from posttrain.formats import to_row
from posttrain.sources.adapters import FORMATS, adapt, get_format

PAIRS = ("ultrafeedback", "ultrafeedback_binarized", "hh_rlhf")


def shown_rows(docstring: str) -> list[dict[str, Any]]:
    """The rows of a docstring, without what was left out of them."""
    text = re.sub(r"\s*\n\s*", " ", docstring)
    text = re.sub(r",\s*…|(?<=[\[{])…", "", text)
    rows, at = [], text.find('{"')
    while at >= 0:
        row, at = json.JSONDecoder().raw_decode(text, at)
        rows.append(row)
        at = text.find('{"', at)
    return rows


def options_of(name: str, docstring: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the docstring says of the format's options."""
    if name == "promptsource":
        template = rows.pop(0)
        return {"template": template["jinja"], "choices": template["answer_choices"]}
    given = re.search(r"\{name: [^}]*\}", docstring)
    return yaml.safe_load(given[0]) if given else {}


@pytest.mark.parametrize("name", FORMATS)
def test_the_row_of_the_docstring_is_read(name: str) -> None:
    docstring = inspect.getdoc(FORMATS[name]) or ""
    rows = shown_rows(docstring)
    options = options_of(name, docstring, rows)
    made = [row for _, row in adapt(get_format({**options, "name": name}), rows)]
    assert made
    for row in made:
        if isinstance(row, DataError):
            raise row
        to_row("preference" if name in PAIRS else "conversation", row)


def texts(value: Any) -> list[str]:
    """Every text of a row, however deep."""
    if isinstance(value, str):
        return [value]
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else []
    return [text for part in inner for text in texts(part)]


LEFT_OUT = {"wildjailbreak", "wildguardmix", "coconot"}  # their docstrings say that it is


@pytest.mark.parametrize("name", FORMATS)
def test_the_row_has_real_texts(name: str) -> None:
    docstring = inspect.getdoc(FORMATS[name]) or ""
    found = [text for row in shown_rows(docstring) for text in texts(row)]
    assert found.count("…") == ("answer is left out" in docstring) == (name in LEFT_OUT)
