"""Templates: two parts, choices, bars in the data, a sandbox."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import DataError, RecipeError
from posttrain.sources.adapters import get_format
from posttrain.sources.adapters.base import LeftOut
from posttrain.sources.adapters.promptsource import PromptSource

FILE = """
dataset: glue
subset: rte
templates:
  03a7ae07:
    !Template
    answer_choices: yes ||| no
    id: 03a7ae07
    jinja: "{{sentence1}} So {{sentence2}}? ||| {{ answer_choices[label] }}"
    metadata: !TemplateMetadata
      choices_in_prompt: false
      original_task: true
    name: entails
    reference: ''
  03a7ae08:
    !Template
    answer_choices: null
    id: 03a7ae08
    jinja: "{% if label == 0 %}What follows from {{sentence1}} ||| {{sentence2}}{% endif %}"
    metadata: !TemplateMetadata
      original_task: false
    name: reversed
    reference: ''
"""
RAW = {"sentence1": "It rains.", "sentence2": "it is wet", "label": 0}


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "templates.yaml"
    path.write_text(FILE)
    return str(path)


def inline(jinja: str, raw: Any, choices: str | None = None) -> dict[str, Any]:
    (row,) = PromptSource(jinja, choices)(raw)
    return row


def test_older_files_list_the_answer_choices(tmp_path: Path) -> None:
    path = tmp_path / "templates.yaml"
    listed = "    answer_choices:\n    - 'Yes'\n    - 'No'\n"
    path.write_text(FILE.replace("    answer_choices: yes ||| no\n", listed))
    (row,) = PromptSource(str(path), names=("entails",))(RAW)
    assert (row["completion"], row["choices"]) == ("Yes", ["Yes", "No"])
    path.write_text(FILE.replace("yes ||| no", "{yes: no}"))
    with pytest.raises(DataError, match=r"entails: `answer_choices` must be text or a list of it"):
        PromptSource(str(path))


def test_every_template_of_a_file_gives_a_row(file: str) -> None:
    first, second = PromptSource(file)(RAW)
    assert (first["prompt"], first["completion"]) == ("It rains. So it is wet?", "yes")
    assert (first["choices"], first["template"]) == (["yes", "no"], "entails")
    assert (second["prompt"], second["completion"]) == ("What follows from It rains.", "it is wet")


def test_a_template_that_does_not_apply_gives_none(file: str) -> None:
    assert [r["template"] for r in PromptSource(file)(RAW | {"label": 1})] == ["entails"]
    with pytest.raises(LeftOut, match="no template applies"):
        PromptSource(file, names=("reversed",))(RAW | {"label": 1})


def test_templates_by_name_and_by_task(file: str) -> None:
    assert [r["template"] for r in PromptSource(file, names=["reversed"])(RAW)] == ["reversed"]
    assert [r["template"] for r in PromptSource(file, original_task=True)(RAW)] == ["entails"]
    with pytest.raises(RecipeError, match="did you mean 'entails'"):
        get_format({"name": "promptsource", "template": file, "names": ["entail"]})


def test_the_file_is_read_once(file: str) -> None:
    adapter = PromptSource(file)
    Path(file).write_text(FILE.replace("entails", "implies"))
    assert adapter(RAW)[0]["template"] == "entails"
    assert repr(PromptSource(file)) != repr(adapter)


def test_bars_in_the_data_survive() -> None:
    row = inline("{{ a }} ||| {{ answer_choices[0] }}", {"a": "x ||| y", "b": "p|||q"}, "{{ b }}")
    assert (row["prompt"], row["completion"], row["choices"]) == ("x ||| y", "p|||q", ["p|||q"])


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip))
def test_any_data_survives(text: str) -> None:
    row = inline("Q: {{ a }}. ||| A: {{ b.c[0] }}.", {"a": text, "b": {"c": [text]}})
    assert row["prompt"] == f"Q: {text[:2048]}."
    assert row["completion"] == f"A: {text[:2048]}."


def test_jinja_in_the_data_is_text() -> None:
    assert inline("{{ a }} ||| b", {"a": "{{ 7 * 7 }}"})["prompt"] == "{{ 7 * 7 }}"


def test_long_texts_are_cut() -> None:
    assert len(inline("{{ a }} ||| b", {"a": "x" * 5000})["prompt"]) == 2048


@pytest.mark.parametrize("jinja", ["only a prompt", "a ||| b ||| c", " ||| b", "a ||| "])
def test_other_than_two_parts(jinja: str) -> None:
    with pytest.raises(LeftOut):
        PromptSource(jinja)({"a": "x"})


@pytest.mark.parametrize(
    "jinja",
    [
        "{{ a.__class__ }} ||| b",
        "{{ a.__class__.__mro__ }} ||| b",
        "{{ cycler.__init__.__globals__ }} ||| b",
        "{{ ''.__class__.__subclasses__() }} ||| b",
        "{% set _ = l.append(1) %}{{ l }} ||| b",
    ],
)
def test_the_sandbox_holds(jinja: str) -> None:
    with pytest.raises(DataError, match="cannot be rendered"):
        PromptSource(jinja)({"a": "x", "l": []})


@pytest.mark.parametrize("jinja", ["{{ lost }} ||| b", "{{ 1 / zero }} ||| b", "{{ a + 1 }} ||| b"])
def test_a_template_that_fails_on_a_row(jinja: str) -> None:
    with pytest.raises(DataError, match="the template inline cannot be rendered, got "):
        PromptSource(jinja)({"a": "x", "zero": 0})


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{{ a", "not Jinja"),
        ("lost.yaml", "cannot be read"),
        ("", "needs `template`"),
    ],
)
def test_wrong_templates(template: str, says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        get_format({"name": "promptsource", "template": template})


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("templates: {a: !!python/object/apply:os.getcwd []}", "no YAML of templates"),
        ("templates: {a: !Template [1]}", "no YAML of templates"),
        ("templates: {}", "no template that is asked for"),
        ("[1]", "no template that is asked for"),
    ],
)
def test_wrong_files(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "t.yaml").write_text(content)
    with pytest.raises(RecipeError, match=says):
        get_format({"name": "promptsource", "template": str(tmp_path / "t.yaml")})
