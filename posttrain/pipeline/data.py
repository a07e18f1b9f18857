"""Stage by stage: mixture -> tokens -> disk, with a manifest that accounts for every row."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset, load_from_disk
from transformers import PreTrainedTokenizerBase

from posttrain.errors import DataError, ModelError, PosttrainError, RunError, VerifierError
from posttrain.mixture import Mixture, build_mixture
from posttrain.models import load_tokenizer
from posttrain.pipeline.check import check, hub_options, read_recipe
from posttrain.pipeline.folder import write_json, write_text
from posttrain.pipeline.progress import say
from posttrain.recipe import Recipe, Stage, stage_name
from posttrain.sources import Opened, open_source
from posttrain.tokens import Tokenized, Tokenizer, show, tokenize

Opener = Callable[..., Opened]
SAMPLES = 3
PROMPT_TEXTS = 1000


def stage_tokenizer(stage: Any, tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """How rows of a stage become tokens."""
    return Tokenizer(
        tokenizer, stage.max_length, stage.truncation, getattr(stage, "max_prompt_length", None)
    )


def stage_mixture(
    recipe: Recipe,
    stage: Stage,
    tokenizer: PreTrainedTokenizerBase | None,
    opener: Opener = open_source,
) -> Mixture:
    """The shuffled rows of a stage, as text."""
    count = None
    if tokenizer is not None:
        tokens = stage_tokenizer(stage, tokenizer)

        def count(row: dict[str, Any]) -> int:
            out = getattr(tokens, stage.row_kind)([row])[0]
            if isinstance(out, PosttrainError):
                return 0
            return sum(len(v) for k, v in out.items() if k.endswith("_ids"))

    seed = stage.seed if stage.seed is not None else recipe.seed
    try:
        return build_mixture(
            stage.datasets,
            stage.row_kind,
            seed=seed,
            filters=stage.filters,
            bad_rows=stage.bad_rows,
            token_budget=stage.token_budget,
            count_tokens=count,
            remap_verifier=getattr(stage, "remap_verifier", None),
            opener=opener,
        )
    except (DataError, VerifierError) as error:
        raise type(error)(f"stage {stage_name(stage)}: {error}") from error


def build_stage(
    recipe: Recipe,
    stage: Stage,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    opener: Opener = open_source,
) -> dict[str, Any]:
    """Build the data of one stage into `folder` and return its manifest."""
    mixture = stage_mixture(recipe, stage, tokenizer, opener)
    try:
        done = tokenize(mixture.rows, stage.row_kind, stage_tokenizer(stage, tokenizer))
    except (DataError, ModelError) as error:
        raise type(error)(f"stage {stage_name(stage)}: {error}") from error
    manifest = account(mixture.manifest, done)
    done.rows.save_to_disk(str(folder))
    shown = [show(done.rows[i], tokenizer) for i in range(min(SAMPLES, len(done.rows)))]
    write_text(folder / "samples.txt", frame(shown))
    write_json(folder / "mixture.json", manifest)
    return manifest


def account(manifest: dict[str, Any], done: Tokenized) -> dict[str, Any]:
    """Add to a mixture's manifest what became of its rows as tokens."""
    for entry in manifest["sources"]:
        counts: Mapping[str, int] = done.counts.get(entry["source"], {})
        entry |= {
            "tokens": counts.get("tokens", 0),
            "trained_tokens": counts.get("trained_tokens", 0),
            "truncated": counts.get("truncated", 0),
            "dropped": entry["dropped"] | dict(done.dropped.get(entry["source"], {})),
        }
    return manifest | {"rows": len(done.rows)}


def frame(shown: list[str]) -> str:
    """Samples one after another, told apart by a rule."""
    rule = "=" * 80
    head = "Trained tokens stand between ⟦ and ⟧.\n"
    return head + "".join(f"{rule}\n{text}\n" for text in shown)


def stage_rows(folder: Path) -> Dataset:
    """The tokenised rows of a stage, as they were built."""
    rows = load_from_disk(str(folder))
    assert isinstance(rows, Dataset)
    return rows


def describe(stage: str, manifest: dict[str, Any]) -> list[str]:
    """One line per source: rows, tokens and the share of them that is trained."""
    lines = []
    for s in manifest["sources"]:
        dropped = sum(s["dropped"].values())
        line = f"{stage}: {s['source']}: {s['rows_taken']:,} of {s['rows_read']:,} rows"
        if dropped:
            line += f", {dropped:,} dropped"
        line += f", {s['tokens']:,} tokens"
        if s["trained_tokens"]:
            line += f", {s['trained_tokens'] / s['tokens']:.0%} trained"
        if s["truncated"]:
            line += f", {s['truncated']:,} truncated"
        lines.append(line)
    return lines


def base_tokenizer(recipe: Recipe) -> PreTrainedTokenizerBase:
    """The tokenizer of a recipe whose base model exists."""
    path = recipe.tokenizer_name_or_path or recipe.model_name_or_path
    if path is None:
        from posttrain.pipeline.base import pretrain_tokenizer

        return pretrain_tokenizer(recipe)
    options = hub_options(recipe, path)
    return load_tokenizer(path, chat_template=recipe.chat_template, **options)


def build_data(
    recipe_path: str | Path, out: str | Path, *, overrides: Any = (), text: bool = False
) -> Path:
    """`posttrain data build`: one folder per stage, `manifest.json` and `mixture.lock` beside them.

    Raises:
        RunError: `out` exists and is not empty.
    """
    recipe, out = read_recipe(recipe_path, overrides), Path(out)
    check(recipe, recipe_path)
    if out.exists() and not out.is_dir():
        raise RunError(f"--out {out} is a file; choose another folder")
    if out.exists() and any(out.iterdir()):
        raise RunError(f"--out {out} is not empty; nothing is written over: choose another folder")
    tokenizer = base_tokenizer(recipe)
    manifests = {}
    for stage in recipe.stages:
        name = stage_name(stage)
        if text:
            mixture = stage_mixture(recipe, stage, tokenizer)
            Dataset.from_list(mixture.rows).save_to_disk(str(out / name))
            manifests[name] = mixture.manifest
        else:
            manifests[name] = build_stage(recipe, stage, tokenizer, out / name)
            for line in describe(name, manifests[name]):
                say(line)
    write_json(out / "manifest.json", manifests)
    write_json(out / "mixture.lock", lock(manifests))
    return out


def lock(manifests: dict[str, Any]) -> dict[str, Any]:
    """What pins a mixture down: revisions, hashes, seed and order."""
    keys = ("source", "path", "name", "split", "revision", "sha256", "rows_read", "rows_taken")
    return {
        stage: {
            "seed": m["seed"],
            "order_sha256": m["order_sha256"],
            "sources": [{k: s[k] for k in keys} for s in m["sources"]],
        }
        for stage, m in manifests.items()
    }


def show_data(recipe_path: str | Path, *, overrides: Any = ()) -> None:
    """`posttrain data show`: every stage's rows as the model sees them, trained tokens in green."""
    from rich.console import Console
    from rich.text import Text

    recipe = read_recipe(recipe_path, overrides)
    check(recipe, recipe_path)
    tokenizer, console = base_tokenizer(recipe), Console()
    for stage in recipe.stages:
        mixture = stage_mixture(recipe, stage, tokenizer)
        done = tokenize(
            mixture.rows[:PROMPT_TEXTS], stage.row_kind, stage_tokenizer(stage, tokenizer)
        )
        for line in describe(stage_name(stage), account(mixture.manifest, done)):
            console.print(line, style="bold", markup=False)
        for i in range(min(SAMPLES, len(done.rows))):
            text = Text(show(done.rows[i], tokenizer))
            text.highlight_regex(r"(?s)⟦.*?⟧", "green")
            console.rule()
            console.print(text)
