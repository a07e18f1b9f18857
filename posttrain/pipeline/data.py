"""Stage by stage: mixture -> tokens -> disk, with a manifest that accounts for every row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, load_from_disk
from transformers import PreTrainedTokenizerBase

from posttrain.errors import DataError, ModelError, VerifierError
from posttrain.mixture import Guard, Mixture, Rows, build_mixture
from posttrain.parallel import keep_workers
from posttrain.pipeline.check import rows_verifier
from posttrain.pipeline.counting import Counting
from posttrain.pipeline.folder import write_json, write_text
from posttrain.pipeline.steps import source_sizes, with_tokens
from posttrain.recipe import Recipe, Stage, stage_name
from posttrain.sources import Opened, open_source
from posttrain.store import Store
from posttrain.tokens import Tokenizer, check_tokenizer, check_trained, show
from posttrain.tokens.stores import Job, Tokens, facts_of, order_tokens, save, token_store

Opener = Callable[..., Opened]
SAMPLES = 3  # rows shown per source
HELD_OUT = "held_out"
BINS = 40  # of the histogram of lengths


@dataclass
class StageData:
    """The data of one stage before it is written.

    Attributes:
        mixture: its rows as text.
        train, held_out: their tokens, in order.
        dropped: per source, why rows left no tokens behind.
        sizes: per source, tokens of every row it has, and those each step of reading dropped.
    """

    mixture: Mixture
    train: Tokens
    held_out: Tokens
    dropped: dict[str, Counter[str]] = field(default_factory=dict)
    sizes: list[tuple[np.ndarray, Counter[str]]] = field(default_factory=list)


def stage_tokenizer(stage: Any, tokenizer: PreTrainedTokenizerBase) -> Tokenizer:
    """How rows of a stage become tokens."""
    return Tokenizer(
        tokenizer,
        stage.max_length,
        stage.truncation,
        getattr(stage, "max_prompt_length", None),
        last_turn_only=getattr(stage, "last_turn_only", False),
        train_on_prompt=getattr(stage, "train_on_prompt", False),
    )


def stage_mixture(
    recipe: Recipe,
    stage: Stage,
    tokenizer: PreTrainedTokenizerBase | None,
    opener: Opener = open_source,
    guard: Guard | None = None,
) -> Mixture:
    """The shuffled rows of a stage, as text."""
    lengths = None
    if tokenizer is not None and any(source.weight for source in stage.datasets):
        tokens = stage_tokenizer(stage, tokenizer)

        def lengths(store: Store, source: str) -> np.ndarray:
            job = Job(store, source, stage.row_kind, tokens)
            made = token_store(job, np.arange(store.rows), None, lambda n: None)
            out = np.zeros(store.rows, np.int64)
            out[made.column("row")] = facts_of(made)[:, 0]
            return out

    seed = stage.seed if stage.seed is not None else recipe.seed
    with Counting(f"{stage_name(stage)}: reading") as counting, naming(stage):
        return build_mixture(
            stage.datasets,
            stage.row_kind,
            seed=seed,
            filters=stage.filters,
            bad_rows=stage.bad_rows,
            mixing=stage.mixing,
            eval_fraction=stage.eval_fraction,
            token_budget=stage.token_budget,
            token_lengths=lengths,
            remap_verifier=getattr(stage, "remap_verifier", None),
            verifier=rows_verifier(stage),
            guard=guard,
            opener=opener,
            progress=counting,
        )


class naming:
    """Errors inside name the stage."""

    def __init__(self, stage: Stage) -> None:
        self.name = stage_name(stage)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if isinstance(error, DataError | VerifierError | ModelError):
            raise type(error)(f"stage {self.name}: {error}") from error


@keep_workers()
def stage_data(
    recipe: Recipe,
    stage: Stage,
    tokenizer: PreTrainedTokenizerBase,
    opener: Opener = open_source,
    guard: Guard | None = None,
) -> StageData:
    """The mixture of a stage and its tokens; both come from the cache where they are known.

    Raises:
        DataError: rows that cannot be used, or tokens that nothing could be learnt from.
    """
    mixture = stage_mixture(recipe, stage, tokenizer, opener, guard)
    with Counting(f"{stage_name(stage)}: tokens") as counting, naming(stage):
        check_tokenizer(tokenizer, needs_template=stage.row_kind != "text")
        tokens = stage_tokenizer(stage, tokenizer)
        rows, held = mixture.rows, mixture.held_out
        whole = {i for i, source in enumerate(stage.datasets) if source.weight}
        stores: list[Store] = []
        dropped: dict[str, Counter[str]] = {}
        sizes = []
        for i, (store, name) in enumerate(zip(rows.stores, rows.names, strict=True)):
            used = np.concatenate([part.row[part.which == i] for part in (rows, held)])
            which = np.arange(store.rows) if i in whole else np.unique(used)
            job = Job(store, name, stage.row_kind, tokens)
            made = token_store(job, which, None, partial(counting, name))
            stores.append(made)
            sizes.append(source_sizes(job, which, made, partial(counting, name)))
            lost: Counter[str] = Counter()
            for note in made.chunks:
                lost.update(note["dropped"])
            dropped[name] = dropped.get(name, Counter()) + lost
        train, held_out = (ordered_tokens(stage, stores, part) for part in (rows, held))
        data = StageData(mixture, train, held_out, dropped, sizes)
        check_trained(len(train), counts(data), dropped, stage.row_kind)
    return data


def ordered_tokens(stage: Stage, stores: Sequence[Store], rows: Rows) -> Tokens:
    """The tokens of rows, in their order."""
    return order_tokens(stage.row_kind, stores, rows.names, rows.which, rows.row)


def counts(data: StageData) -> dict[str, Counter[str]]:
    """Rows, tokens, trained tokens, truncations and missing EOS, per source name."""
    out: dict[str, Counter[str]] = {}
    for i, name in enumerate(data.train.names):
        out.setdefault(name, Counter()).update(data.train.facts(i))
    return out


def build_stage(
    recipe: Recipe,
    stage: Stage,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    opener: Opener = open_source,
    guard: Guard | None = None,
) -> tuple[dict[str, Any], Mixture]:
    """Build the data of one stage into `folder`; its manifest, and the mixture it was made of."""
    data = stage_data(recipe, stage, tokenizer, opener, guard)
    manifest = account(data)
    manifest["tokenizer"] = stage_tokenizer(stage, tokenizer).fingerprint()
    manifest["data_sha256"] = save(data.train, folder)
    if len(data.held_out):
        save(data.held_out, folder / HELD_OUT)
    shown = [(row["source"], show(row, tokenizer)) for row in samples(data.train)]
    write_text(folder / "samples.txt", frame(describe(stage_name(stage), manifest), shown))
    write_json(folder / "mixture.json", manifest)
    return manifest, data.mixture


def samples(tokens: Tokens, number: int = SAMPLES) -> list[dict[str, Any]]:
    """The first rows of every source, as the trainer will see them."""
    chosen = [np.flatnonzero(tokens.which == i)[:number] for i in range(len(tokens.stores))]
    places = np.concatenate(chosen)
    part = Tokens(
        tokens.kind, tokens.stores, tokens.names, tokens.which[places], tokens.index[places]
    )
    return [row for batch in part.batches() for row in batch.to_pylist()]


def account(data: StageData) -> dict[str, Any]:
    """A mixture's manifest with what became of its rows as tokens."""
    manifest = dict(data.mixture.manifest)
    entries = []
    for i, entry in enumerate(manifest["sources"]):
        facts = data.train.facts(i)
        lost = Counter(entry["dropped"])
        for note in data.train.stores[i].chunks:
            lost.update(note["dropped"])
        steps = with_tokens(entry["steps"], data.mixture.parts[i], *data.sizes[i])
        last = {
            "step": "tokens",
            "rows_before": entry["rows_taken"],
            "rows_after": facts["rows"],
            "tokens_before": steps[-1]["tokens_after"],
            "tokens_after": facts["tokens"],
        }
        entries.append(
            entry
            | facts
            | {
                "rows_tokenized": facts["rows"],
                "steps": [*steps, last],
                "dropped": dict(lost),
                "lengths": histogram(data.train.lengths(i)),
            }
        )
    return manifest | {"rows": len(data.train), "sources": entries}


def histogram(lengths: np.ndarray) -> dict[str, Any]:
    """Lengths in tokens: quantiles, and counts between edges of equal width."""
    if not len(lengths):
        return {}
    heights, edges = np.histogram(lengths, bins=BINS)
    marks = {"min": 0, "p25": 25, "p50": 50, "p75": 75, "p95": 95, "max": 100}
    return {
        "mean": round(float(lengths.mean()), 1),
        **{name: round(float(np.percentile(lengths, p))) for name, p in marks.items()},
        "edges": [round(float(e), 1) for e in edges],
        "counts": heights.tolist(),
    }


def frame(lines: Sequence[str], shown: Sequence[tuple[str, str]]) -> str:
    """What became of each source, and samples of it one after another."""
    head = "\n".join([*lines, "", "Trained tokens stand between ⟦ and ⟧."])
    return head + "".join(f"\n{f' {name} ':=^80}\n{text}" for name, text in shown) + "\n"


def stage_rows(folder: Path) -> Dataset:
    """The tokenised rows of a stage, as they were built."""
    rows = load_from_disk(str(folder))
    assert isinstance(rows, Dataset)
    return rows


def held_out_rows(folder: Path) -> Dataset | None:
    """The rows that a stage set aside for its evaluation loss."""
    return stage_rows(folder / HELD_OUT) if (folder / HELD_OUT).is_dir() else None


def describe(stage: str, manifest: Mapping[str, Any]) -> list[str]:
    """One line per source: rows, tokens and the share of them that is trained."""
    lines = []
    for s in manifest["sources"]:
        dropped = sum(s["dropped"].values())
        line = f"{stage}: {s['source']}: {s['rows_taken']:,} of {s['rows_read']:,} rows"
        if dropped:
            line += f", {dropped:,} dropped"
        if s["rows_held_out"]:
            line += f", {s['rows_held_out']:,} held out"
        line += f", {s['tokens']:,} tokens"
        if s["trained_tokens"]:
            line += f", {s['trained_tokens'] / s['tokens']:.0%} trained"
        if s["truncated"]:
            line += f", {s['truncated']:,} truncated"
        lines.append(line)
    for entry in manifest.get("contamination", ()):
        if entry["train_rows"]:
            line = (
                f"{stage}: {entry['source']}: {entry['train_rows']:,} rows hold"
                f" {entry['eval_rows']:,} prompts of {entry['eval_set']}"
                f" ({entry['eval_share']:.1%} of it)"
            )
            if entry.get("kept_whole"):
                line += (
                    ": WARNING: most of the source, so nothing was dropped, and scores on"
                    f" {entry['eval_set']} say nothing; remove the source, or set `decontaminate:"
                    " {mode: exact}` where rows share their wording by construction"
                )
            lines.append(line)
    return lines
