"""Templates -> one HTML file: every text escaped, the file written aside and renamed."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import jinja2

from posttrain.errors import RunError
from posttrain.evals.report.charts import number

# Control characters would be dropped or misread by a browser: show them as their pictures.
PICTURES = {c: 0x2400 + c for c in range(32) if chr(c) not in "\n\t"} | {0x7F: 0x2421}


def render_page(template: str, **values: Any) -> str:
    """A template of this room with `values`; `css` is the stylesheet of every page."""
    loader = jinja2.PackageLoader("posttrain.evals.report", ".")
    environment = jinja2.Environment(
        loader=loader,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        finalize=visible,
    )
    environment.filters["number"] = number
    css, _, _ = loader.get_source(environment, "style.css")
    return environment.get_template(template).render(css=css, **values)


def visible(value: Any) -> Any:
    """A text with its control characters made visible; anything else as it is."""
    return value.translate(PICTURES) if type(value) is str else value


def write_page(html: str, target: Path) -> Path:
    """Write a page; a file that exists is whole.

    Raises:
        RunError: it cannot be written.
    """
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=".report-", suffix=".html")
        with os.fdopen(handle, "wb") as file:
            file.write(html.encode("utf-8", errors="replace"))
        os.chmod(temporary, 0o644)
        os.replace(temporary, target)
    except OSError as error:
        raise RunError(f"cannot write {target}: {error}; free space or permit it") from error
    finally:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
    return target
