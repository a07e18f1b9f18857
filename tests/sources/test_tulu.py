"""The tables of the Tülu mixtures: sums that the papers print, and formats that exist."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from posttrain.recipe import load_recipe
from posttrain.sources.adapters import get_format
from posttrain.sources.tulu import KNOWN_FORMATS, MIXTURES, PUBLISHED, TULU_2, TULU_3, Part

RECIPES = Path(__file__).parents[2] / "recipes" / "mixtures"
PARTS = [(mix, name, part) for mix, parts in MIXTURES.items() for name, part in parts.items()]


def total(mixture: str) -> int:
    return sum(part.rows or 0 for part in MIXTURES[mixture].values())


@pytest.mark.parametrize(
    ("mixture", "rows"),
    [
        ("tulu2", 330_490),  # before rows that name other assistants went
        ("tulu3", 939_344),
        ("tulu3-preference-8b", 271_409),
        ("tulu3-preference-70b", 334_302),
        ("tulu3-rlvr", 29_946),
    ],
)
def test_sums(mixture: str, rows: int) -> None:
    assert total(mixture) == rows


def test_what_was_published() -> None:
    assert PUBLISHED["allenai/tulu-v2-sft-mixture"] == total("tulu2") - 4_336
    assert PUBLISHED["allenai/tulu-3-sft-mixture"] == total("tulu3") - 1  # metadata against paper
    assert len(MIXTURES["tulu2.5-preference"]) == 28


def test_science_sums_to_the_printed_number() -> None:
    names = ("evidence_inference", "qasper", "scierc", "scifact", "scitldr")
    assert sum(TULU_2[name].rows or 0 for name in names) == 7_544


def test_categories_of_tulu_3() -> None:
    safety = sum(TULU_3[n].rows or 0 for n in ("coconot", "wildjailbreak", "wildguardmix"))
    maths = ("persona_math", "persona_gsm", "persona_algebra", "openmath", "numina_tir")
    assert (safety, sum(TULU_3[n].rows or 0 for n in maths)) == (110_983, 334_252)


@pytest.mark.parametrize(("mixture", "name", "part"), PARTS, ids=lambda v: str(v)[:40])
def test_every_part_can_be_read(mixture: str, name: str, part: Part) -> None:
    get_format(part.format)
    assert part.path.count("/") == 1 and (part.rows is None or part.rows > 0)


@pytest.mark.parametrize("path", KNOWN_FORMATS)
def test_every_known_format_exists(path: str) -> None:
    assert type(get_format(None, None, path)) is type(get_format(KNOWN_FORMATS[path]))


def test_a_mixture_that_holds_many_parts_is_read_whole_by_itself() -> None:
    rows: list[dict[str, Any]] = [{"dataset": "lima"}, {"dataset": "hard_coded"}]
    whole = get_format(None, rows[0], "allenai/tulu-v2-sft-mixture")
    assert [whole(row) for row in rows] == [[row] for row in rows]
    part = get_format(TULU_2["hard_coded"].format)
    assert part(rows[1]) == [rows[1]]
    with pytest.raises(ValueError, match="not as asked for"):
        part(rows[0])


def test_the_tables_are_frozen() -> None:
    with pytest.raises(TypeError):
        MIXTURES["tulu4"] = {}  # type: ignore[index]
    with pytest.raises(AttributeError):
        TULU_3["aya"].rows = 1  # type: ignore[misc]


def recipe_parts(name: str, stage: int = 0) -> dict[str, Any]:
    """What a recipe of a mixture reads, by source."""
    recipe = load_recipe(RECIPES / name)
    return {source.source: source for source in recipe.stages[stage].datasets}


@pytest.mark.parametrize(
    ("name", "stage", "mixture"),
    [
        ("tulu1.yaml", 0, "tulu1"),
        ("tulu2.yaml", 0, "tulu2"),
        ("tulu3.yaml", 0, "tulu3"),
        ("tulu3_preference.yaml", 0, "tulu3-preference-8b"),
        ("tulu3_preference.yaml", 1, "tulu3-rlvr"),
    ],
)
def test_recipes_say_what_the_tables_say(name: str, stage: int, mixture: str) -> None:
    parts = MIXTURES[mixture]
    found = recipe_parts(name, stage)
    science = {"evidence_inference", "qasper", "scierc", "scifact", "scitldr"}
    assert found.keys() == {"science" if part in science else part for part in parts}
    for part, source in found.items():
        if part == "science":
            continue
        table = parts[part]
        assert source.path in (table.path, table.decontaminated)
        assert source.num_samples in (None, table.rows)
        assert source.data_files == table.data_files
        assert source.license == table.licence
        assert source.name in (None, table.config)
        adapter = get_format(source.format, None, source.path)
        if source.path == table.path:
            assert adapter == get_format(table.format)


def test_sums_of_the_recipes() -> None:
    assert sum(s.num_samples for s in recipe_parts("tulu3.yaml").values()) == 939_344
    pairs = recipe_parts("tulu3_preference.yaml").values()
    assert sum(s.num_samples for s in pairs) == 271_409
