"""`posttrain data build | show | stats | lock | dedup`."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from posttrain.errors import DataError, RunError
from posttrain.mixture import Guard, Mixture, Part
from posttrain.mixture.lock import VERSION, check_sources, compare, lock
from posttrain.models import load_tokenizer
from posttrain.pipeline.check import check, hub_options, read_recipe
from posttrain.pipeline.counting import say
from posttrain.pipeline.data import (
    account,
    build_stage,
    describe,
    naming,
    samples,
    stage_data,
    stage_mixture,
)
from posttrain.pipeline.folder import read_object, write_json
from posttrain.pipeline.guard import guard_of
from posttrain.pipeline.text_rows import save_text
from posttrain.recipe import Recipe, stage_name
from posttrain.sources import open_source
from posttrain.tokens import show, show_rich

LOCK = "mixture.lock"


def base_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer of a recipe whose base model exists."""
    path = recipe.tokenizer_name_or_path or recipe.model_name_or_path
    if path is None:
        from posttrain.pipeline.base import pretrain_tokenizer

        return pretrain_tokenizer(recipe)
    options = hub_options(recipe, path)
    return load_tokenizer(path, chat_template=recipe.chat_template, **options)


def build_data(
    recipe_path: str | Path,
    out: str | Path,
    *,
    overrides: Any = (),
    text: bool = False,
    locked: str | Path | None = None,
    dropped: bool = False,
) -> Path:
    """`posttrain data build`: one folder per stage, `manifest.json` and `mixture.lock` beside them.

    Args:
        text: stop before tokens.
        locked: a lock file (or "": the nearest one) that the result must equal bit for bit.
        dropped: write the rows that were dropped, and why, under `dropped/`.

    Raises:
        RunError: `out` exists and is not empty, or there is no lock file.
        DataError: something is not what was locked; the source is named.
    """
    recipe, out = read_recipe(recipe_path, overrides), Path(out)
    check(recipe, recipe_path)
    if out.exists() and not out.is_dir():
        raise RunError(f"--out {out} is a file; choose another folder")
    wanted = None if locked is None else find_lock(locked, out, Path(recipe_path))
    again = wanted is not None and (out / LOCK).is_file()
    if out.exists() and any(out.iterdir()) and not again:
        raise RunError(f"--out {out} is not empty; nothing is written over: choose another folder")
    aside = out.with_name(f".{out.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        build_all(recipe, aside, wanted, text=text, dropped=dropped)
        shutil.rmtree(out, ignore_errors=True)
        out.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, out)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return out


def build_all(
    recipe: Recipe, folder: Path, locked: Mapping[str, Any] | None, *, text: bool, dropped: bool
) -> None:
    """Every stage into one folder."""
    refuse_changed(recipe, locked)
    tokenizer = base_tokenizer(recipe)
    guard = guard_of(recipe)
    folder.mkdir(parents=True)
    manifests = {}
    for stage in recipe.stages:
        name = stage_name(stage)
        if text:
            mixture = stage_mixture(recipe, stage, tokenizer, guard=guard)
            with naming(stage):
                digest = save_text(mixture.rows, folder / name)
            manifests[name] = mixture.manifest | {"data_sha256": digest}
        else:
            manifests[name], mixture = build_stage(
                recipe, stage, tokenizer, folder / name, guard=guard
            )
            for line in describe(name, manifests[name]):
                say(line)
        write_contamination(folder / "contamination" / f"{name}.json", mixture, guard)
        if dropped:
            write_dropped(folder / "dropped" / f"{name}.jsonl.gz", mixture)
    pinned = lock(manifests)
    if locked is not None:
        compare(locked, pinned)
    write_json(folder / "manifest.json", manifests)
    write_json(folder / LOCK, pinned)


def find_lock(given: str | Path, out: Path, recipe: Path) -> dict[str, Any]:
    """The lock file that was named, or the nearest: in `out`, beside the recipe, or here."""
    beside = [recipe.with_suffix(".lock"), recipe.parent / LOCK]
    places = [Path(given)] if str(given) else [out / LOCK, *beside, Path(LOCK)]
    for place in places:
        if place.is_file():
            found = read_object(place)
            if any(stage.get("version") != VERSION for stage in found.values()):
                raise RunError(f"{place} is of another version of posttrain; lock again")
            return found
    looked = ", ".join(dict.fromkeys(map(str, places)))
    raise RunError(f"--locked: there is no {looked}; make one with `posttrain data lock`")


def refuse_changed(recipe: Recipe, locked: Mapping[str, Any] | None) -> None:
    """Compare every source with the lock before anything is built."""
    for stage in recipe.stages if locked is not None else ():
        name = stage_name(stage)
        if name not in (locked or {}):
            raise DataError(f"the lock has no stage {name}; lock again with `posttrain data lock`")
        seed = stage.seed if stage.seed is not None else recipe.seed
        with naming(stage):
            opened = [open_source(source, seed) for source in stage.datasets]
        check_sources(name, stage.datasets, opened, (locked or {})[name])


def write_dropped(path: Path, mixture: Mixture) -> None:
    """The rows that were dropped, and why, one per line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as sink:
        for part in mixture.parts:
            for entry in dropped_rows(part):
                sink.write(json.dumps({"source": part.name, **entry}, ensure_ascii=True) + "\n")


def dropped_rows(part: Part) -> Iterator[dict[str, Any]]:
    """Dropped while reading, and then by comparison with other rows."""
    numbers = part.store.column("number")
    for i in range(sum(sum(n for *_, n in note["dropped"]) for note in part.store.chunks)):
        yield json.loads(part.store.read("dropped", i))
    for row, (step, reason) in part.dropped.items():
        content = json.loads(part.store.read("row", row))
        yield {"number": int(numbers[row]), "step": step, "reason": reason, "row": content}


def write_contamination(path: Path, mixture: Mixture, guard: Guard | None) -> None:
    """Rates and matched pairs, the paper's table and the rows behind it."""
    if guard is None:
        return
    sets = guard.finder.eval_sets
    matches = [
        {
            "source": part.name,
            "row": int(part.store.column("number")[row]),
            "eval_set": sets[eval_set].name,
            "eval_row": eval_row,
            "overlap": overlap,
        }
        for part in mixture.parts
        for row, eval_set, eval_row, overlap in part.matches
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"rates": mixture.manifest["contamination"], "matches": matches})


def lock_data(recipe_path: str | Path, out: str | Path | None, *, overrides: Any = ()) -> Path:
    """`posttrain data lock`: build everything, keep the lock file only."""
    path = Path(out) if out else Path(recipe_path).with_suffix(".lock")
    recipe = read_recipe(recipe_path, overrides)
    check(recipe, recipe_path)
    aside = path.with_name(f".{path.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    try:
        build_all(recipe, aside, None, text=False, dropped=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside / LOCK, path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return path


def show_data(recipe_path: str | Path, *, overrides: Any = ()) -> None:
    """`posttrain data show`: rows of every source as the model sees them, trained tokens marked."""
    from rich.console import Console
    from rich.text import Text

    recipe = read_recipe(recipe_path, overrides)
    check(recipe, recipe_path)
    tokenizer, console = base_tokenizer(recipe), Console()
    guard = guard_of(recipe)
    for stage in recipe.stages:
        data = stage_data(recipe, stage, tokenizer, guard=guard)
        for line in describe(stage_name(stage), account(data)):
            console.print(line, style="bold", markup=False, soft_wrap=True)
        for row in samples(data.train):
            console.rule(f"{stage_name(stage)}: {row['source']}")
            # where there is no colour, trained tokens stand between marks
            plain = Text(show(row, tokenizer))
            console.print(show_rich(row, tokenizer) if console.is_terminal else plain)


def stats_data(recipe_path: str | Path, *, overrides: Any = ()) -> dict[str, Any]:
    """`posttrain data stats`: the manifest of every stage, nothing written."""
    recipe = read_recipe(recipe_path, overrides)
    check(recipe, recipe_path)
    tokenizer = base_tokenizer(recipe)
    guard = guard_of(recipe)
    return {
        stage_name(stage): account(stage_data(recipe, stage, tokenizer, guard=guard))
        for stage in recipe.stages
    }
