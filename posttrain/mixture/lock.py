"""mixture.lock: what pins a mixture down, and what differs when it is built again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from posttrain.errors import DataError
from posttrain.recipe import Source
from posttrain.sources import Opened

VERSION = 1  # of what stands in a stage's entry
SOURCE = (
    "source", "path", "name", "split", "revision", "sha256", "license", "filters", "rows_sha256",
    "rows_read", "rows_kept", "rows_held_out", "rows_taken", "rows_tokenized", "tokens",
    "trained_tokens", "steps", "dropped",
)  # fmt: skip
STAGE = (
    "seed",
    "mixing",
    "decontaminate",
    "tokenizer",
    "rows",
    "held_out",
    "order_sha256",
    "data_sha256",
)


def lock(manifests: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What the manifests of the stages pin down: everything but statistics."""
    stages = {}
    for name, manifest in manifests.items():
        sources = [{k: s[k] for k in SOURCE if k in s} for s in manifest["sources"]]
        settings = {k: manifest[k] for k in STAGE if k in manifest}
        stages[name] = {"version": VERSION, **settings, "sources": sources}
    found: dict[str, Any] = json.loads(json.dumps(stages))  # as it will be read: tuples are lists
    return found


def check_sources(
    stage: str, sources: Sequence[Source], opened: Sequence[Opened], locked: Any
) -> None:
    """Refuse sources that are not what was locked, before any of their rows is read.

    Raises:
        DataError: naming the first source that changed, and how.
    """
    entries = locked["sources"]
    ours, theirs = [s.path for s in sources], [e["path"] for e in entries]
    if ours != theirs:
        raise DataError(
            f"stage {stage}: the lock is of the sources {theirs}, the recipe names {ours};"
            " lock again with `posttrain data lock`"
        )
    for source, now, entry in zip(sources, opened, entries, strict=True):
        for key in ("revision", "sha256"):
            if getattr(now, key) != entry[key]:
                raise changed(stage, source.path, key, entry[key], getattr(now, key))


def compare(locked: Mapping[str, Any], built: Mapping[str, Any]) -> None:
    """Refuse what was built when it is not what was locked.

    Raises:
        DataError: naming the first source, or else the first setting, that differs.
    """
    for stage, now in built.items():
        if stage not in locked:
            raise DataError(f"the lock has no stage {stage}; lock again with `posttrain data lock`")
        for error in differences(stage, locked[stage], now):
            raise error


def differences(
    stage: str, locked: Mapping[str, Any], now: Mapping[str, Any]
) -> Iterator[DataError]:
    """Everything that differs, the nearest to its cause first."""
    for was, entry in zip(locked["sources"], now["sources"], strict=False):
        for key in SOURCE:
            if key == "license" and not entry.get(key):
                continue  # only the hub tells a licence, and the same rows may be read without it
            if key in was and key in entry and was[key] != entry[key]:
                yield changed(stage, entry["path"], key, was[key], entry[key])
    for key in STAGE:
        if key in locked and key in now and locked[key] != now[key]:
            yield DataError(
                f"stage {stage}: `{key}` was {locked[key]!r} in the lock and is {now[key]!r};"
                " put it back, or lock again with `posttrain data lock`"
            )


def changed(stage: str, path: str, key: str, was: Any, now: Any) -> DataError:
    """The error for a source that is another one now."""
    return DataError(
        f"stage {stage}: source {path!r} changed: `{key}` was {was!r} in the lock and is {now!r};"
        " put the source back, or lock again with `posttrain data lock`"
    )
