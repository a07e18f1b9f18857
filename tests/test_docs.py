"""What the pages say is true: links lead somewhere, YAML loads, Python compiles, commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import typer
import yaml

from posttrain.cli import app
from posttrain.recipe import load_recipe

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
LINK = re.compile(r"\]\(([^)#]+)")
NAMED = re.compile(r"`((?:posttrain|recipes|tests|examples|docs)/[\w./*-]+)`")
BLOCKS = [
    pytest.param(language, text, id=f"{page.name}-{number}")
    for page in PAGES
    for number, (language, text) in enumerate(FENCE.findall(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_files_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        assert link.startswith("http") or (page.parent / link).exists(), link
    if page.name in ("adding.md", "log.md"):  # one shows a file to be written, one tells the past
        return
    for name in NAMED.findall(text):
        assert list(ROOT.glob(name)), name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) < 150


@pytest.mark.parametrize(("language", "text"), BLOCKS)
def test_blocks_are_valid(language: str, text: str, tmp_path: Path) -> None:
    if language == "yaml":
        parsed = yaml.safe_load(text)
        if "stages" in parsed:
            (tmp_path / "recipe.yaml").write_text(text, encoding="utf-8")
            load_recipe(tmp_path / "recipe.yaml")
    elif language == "python":
        compile(text, "block", "exec")
    elif language == "sh":
        for line in text.splitlines():
            command = shlex.split(line, comments=True)
            if command:
                check_command(command)


def check_command(command: list[str]) -> None:
    """A command of ours exists, and the recipe it names is there."""
    if command[0] == "posttrain":
        group = typer.main.get_command(app)
        names = [word for word in command[1:] if not word.startswith("-")]
        while names and hasattr(group, "commands"):
            assert names[0] in group.commands, command
            group = group.commands[names.pop(0)]
    elif command[0] == "make":
        assert f"\n{command[1]}:" in (ROOT / "Makefile").read_text(encoding="utf-8")
    else:
        assert command[0] in ("accelerate", "torchrun", "python"), command
    for word in command:
        if word.startswith("recipes/"):
            assert (ROOT / word).is_file(), word
