"""PromptSource templates: Jinja that writes a prompt and its answer (arXiv:2202.01279, T0)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from jinja2 import StrictUndefined, Template, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from posttrain.errors import DataError, nearest
from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import LeftOut

BARS = "|||"
ESCAPED = "3f1c9e5b7a2d40868bd1"  # stands for the bars of the data while a template is rendered
LONGEST = 2048


class _Loader(yaml.SafeLoader):
    """Reads the tags of PromptSource's files as plain mappings, and makes no objects."""


def _mapping(loader: _Loader, _: str, node: yaml.Node) -> Any:
    if not isinstance(node, yaml.MappingNode):
        raise yaml.YAMLError(f"a template must be a mapping{node.start_mark}")
    return loader.construct_mapping(node, deep=True)


_Loader.add_multi_constructor("!Template", _mapping)


@dataclass(frozen=True)
class PromptSource:
    r"""Renders raw rows through a template; a row for which it does not apply is left out.

        {"name": "GPT-3 style", "answer_choices": "True ||| False",
         "jinja": "{{premise}}\n\nQuestion: {{hypothesis}} True or False? |||
          {{ answer_choices[label] }}", …}

    and a row of its data set, super_glue/rte:

        {"premise": "No Weapons of Mass Destruction Found in Iraq Yet.",
         "hypothesis": "Weapons of Mass Destruction Found in Iraq.", "label": 1, "idx": 0}

    The bars part the prompt from the answer. Bars and Jinja in the data are kept as text; texts of
    the data are cut at 2,048 characters. Templates run in Jinja's sandbox.

    Attributes:
        templates: name, Jinja text and choices of every template in use; not an option.
        template: the Jinja text, or the path of a `templates.yaml`.
        choices: the answer choices' Jinja text, parted by bars, for an inline template.
        names: templates of the file to use; empty: all, each giving a row.
        original_task: only templates that the file marks as posing the data set's own task.
    """

    template: str = ""
    choices: str | None = None
    names: tuple[str, ...] = ()
    original_task: bool = False
    # read once, so that a cache and a worker process know what the file said
    templates: tuple[tuple[str, str, str | None], ...] = field(init=False, default=())

    def __post_init__(self) -> None:
        if not self.template:
            raise ValueError("needs `template`: Jinja text, or the path of a templates.yaml")
        if isinstance(self.names, list):
            object.__setattr__(self, "names", tuple(self.names))
        found: tuple[tuple[str, str, str | None], ...] = (("inline", self.template, self.choices),)
        if "{" not in self.template and self.template.endswith((".yaml", ".yml")):
            found = from_file(self.template, self.names, self.original_task)
        for _, jinja, choices in found:
            compiled(jinja), compiled(choices or "")
        object.__setattr__(self, "templates", found)

    def __call__(self, raw: Any) -> list[Row]:
        if not isinstance(raw, Mapping):
            raise DataError(f"a row must be an object with named fields, got {shown(raw)}")
        data = {str(name): escaped(found) for name, found in raw.items()}
        rendered = (render(data, *template) for template in self.templates)
        rows = [row for row in rendered if row]
        if not rows:
            raise LeftOut("no template applies to the row")
        return rows


def render(data: Mapping[str, Any], name: str, jinja: str, choices: str | None) -> Row | None:
    """The row that one template makes, or `None` if it makes no two parts."""
    try:
        listed = None
        if choices:
            listed = [c.strip() for c in compiled(choices).render(data).split(BARS)]
            data = {**data, "answer_choices": listed}
        parts = [part.strip() for part in compiled(jinja).render(data).split(BARS)]
    except Exception as error:  # a template is a program: it may raise anything on a row
        raise DataError(f"the template {name} cannot be rendered, got {error}") from error
    if len(parts) != 2 or not all(parts):
        return None
    prompt, completion = (part.replace(ESCAPED, BARS) for part in parts)
    row: Row = {"prompt": prompt, "completion": completion, "template": name}
    if listed:
        row["choices"] = [choice.replace(ESCAPED, BARS) for choice in listed]
    return row


def escaped(found: Any) -> Any:
    """The data with its bars hidden and its texts cut."""
    if isinstance(found, str):
        return found[:LONGEST].replace(BARS, ESCAPED)
    if isinstance(found, Mapping):
        return {key: escaped(inner) for key, inner in found.items()}
    if isinstance(found, (list, tuple)):
        return [escaped(inner) for inner in found]
    return found


@lru_cache(maxsize=4096)
def compiled(jinja: str) -> Template:
    """A template of the sandbox; a field that the row lacks is an error there."""
    sandbox = ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False)
    sandbox.globals.update(zip=zip, len=len)
    try:
        return sandbox.from_string(jinja)
    except TemplateError as error:
        raise ValueError(f"the template is not Jinja: {error}") from error


def choices_of(given: Any, place: str) -> str | None:
    """The answer choices' Jinja text; older files hold a list of them."""
    parts = given if isinstance(given, list) else [given]
    if given is not None and not all(isinstance(part, str) for part in parts):
        raise DataError(
            f"{place}: `answer_choices` must be text or a list of it, got {shown(given)}"
        )
    return f" {BARS} ".join(parts) if given else None


def from_file(
    path: str, names: tuple[str, ...], original_task: bool
) -> tuple[tuple[str, str, str | None], ...]:
    """Name, Jinja text and choices of the templates of a `templates.yaml`."""
    try:
        content = yaml.load(Path(path).expanduser().read_text("utf-8"), Loader=_Loader)
    except OSError as error:
        raise DataError(f"template file {path} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"template file {path} is no YAML of templates: {error}") from error
    listed = content.get("templates") if isinstance(content, dict) else None
    found = [t for t in listed.values() if isinstance(t, dict)] if isinstance(listed, dict) else []
    known = {str(t.get("name")): t for t in found if isinstance(t.get("jinja"), str)}
    for name in names:
        if name not in known:
            raise DataError(f"template file {path} has no template {name!r}{nearest(name, known)}")
    kept = [
        (name, t["jinja"], choices_of(t.get("answer_choices"), f"{path}: {name}"))
        for name, t in known.items()
        if (not names or name in names)
        and (not original_task or (t.get("metadata") or {}).get("original_task"))
    ]
    if not kept:
        raise DataError(f"template file {path} has no template that is asked for")
    return tuple(kept)
