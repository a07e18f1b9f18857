"""Where a source stands: a file, a folder or the hub; its rows, its revision, hash and licence."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from posttrain.errors import DataError, first_line
from posttrain.formats import Row
from posttrain.recipe import Source
from posttrain.sources.chunks import Chunk, Chunks, chunked
from posttrain.sources.files import (
    READERS,
    digest,
    ending,
    file_digest,
    guarded,
    is_local,
    known_endings,
    read_file,
)

BATCH = 1000
COMMIT = re.compile("[0-9a-f]{40}")
SPLITS = ("train", "validation", "valid", "dev", "test")


@dataclass(frozen=True)
class Opened:
    """Raw rows of one source and what pins them down.

    Attributes:
        rows: the rows, in the order of the source.
        revision: hub commit, or `None`.
        sha256: hash of the bytes read (files), or of the generator and its seed.
        license: what the data set says of itself.
        pin: names the content for the cache; `None`: nothing does, so nothing is kept.
    """

    rows: Any
    revision: str | None
    sha256: str | None
    license: str | None = None
    pin: str | None = None

    def chunks(self) -> Iterator[Chunk]:
        """The rows in chunks."""
        return self.rows.make() if isinstance(self.rows, Chunks) else chunked(self.rows)


def open_place(source: Source) -> Opened:
    """Open a source that is no generator.

    Raises:
        DataError: it does not exist or cannot be read.
    """
    if not is_local(source.path):
        return open_hub(source)
    path = Path(source.path).expanduser()
    if not path.exists():
        raise DataError(f"{source.path} does not exist (looked for {path.resolve()})")
    if path.is_dir():
        return open_folder(source, path)
    if ending(path) is None:
        raise DataError(f"{path}: unknown ending; known are {', '.join(known_endings())}")
    sha256 = file_digest(path)
    return Opened(Chunks(lambda: read_file(path)), None, sha256, pin=sha256)


def open_folder(source: Source, path: Path) -> Opened:
    """A folder of data files, or one written by `Dataset.save_to_disk`."""
    saved = saved_split(source, path)
    files = saved_files(saved) if saved else data_files(source, path)

    def chunks() -> Iterator[Chunk]:
        for file in files:
            yield from read_file(file)

    parts = [f"{file.relative_to(path)} {file_digest(file)}" for file in files]
    sha256 = digest("\n".join(parts).encode())
    return Opened(Chunks(chunks), None, sha256, license_of(path / "README.md"), sha256)


def saved_split(source: Source, path: Path) -> Path | None:
    """The folder of one split of what `save_to_disk` wrote; `None` for other folders."""
    if (path / "state.json").is_file():
        return path
    if not (path / "dataset_dict.json").is_file():
        return None
    if not (path / source.split / "state.json").is_file():
        known = ", ".join(map(str, listed_in(path / "dataset_dict.json", "splits")))
        raise DataError(
            f"{source.path} has no split {source.split!r}; set `split:` to one of {known}"
        )
    return path / source.split


def saved_files(folder: Path) -> list[Path]:
    """The files of what `save_to_disk` wrote. Beside them `datasets` keeps what `map` made of them,
    under the same ending.
    """
    listed = listed_in(folder / "state.json", "_data_files")
    names = [entry.get("filename") if isinstance(entry, dict) else None for entry in listed]
    if not all(isinstance(name, str) for name in names):
        raise DataError(f"{folder / 'state.json'} does not name the files; save the data again")
    return [folder / str(name) for name in names]


def listed_in(path: Path, key: str) -> list[Any]:
    """A list in one of the two indices that `save_to_disk` writes.

    Raises:
        DataError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); save the data again") from error
    listed = found.get(key) if isinstance(found, dict) else None
    if not isinstance(listed, list):
        raise DataError(f"{path} has no list `{key}`; save the data again")
    return listed


def data_files(source: Source, path: Path) -> list[Path]:
    """The files of a folder that `data_files` and `split` name.

    A file belongs to a split when its path has the split's name as a word; where no file names any
    split, all belong to `train`.

    Raises:
        DataError: there is none.
    """
    if source.data_files is not None:
        given = source.data_files
        patterns = [given] if isinstance(given, str) else list(given)
        found = sorted({file for pattern in patterns for file in path.glob(pattern)})
        if not found:
            raise DataError(f"{source.path} has no file {', '.join(patterns)}; mend `data_files`")
        return found
    base = path / source.name if source.name and (path / source.name).is_dir() else path
    files = sorted(f for f in base.rglob("*") if ending(f) and not f.is_dir() and visible(f, base))
    names = {split: [f for f in files if split in words(f, base)] for split in SPLITS}
    wanted = names.get(source.split) or [f for f in files if source.split in words(f, base)]
    if not wanted and source.split == "train" and not any(names.values()):
        wanted = files
    if not wanted:
        there = ", ".join(s for s, found in names.items() if found) or "no data files"
        raise DataError(
            f"{source.path} has no file for split {source.split!r} (there are: {there}); set"
            f" `split:` or `data_files:`; endings that are read: {', '.join(READERS)}"
        )
    return wanted


def visible(file: Path, base: Path) -> bool:
    """Whether a file is data: no hidden file, and none of the cards and indices beside it."""
    parts = file.relative_to(base).parts
    return not any(p.startswith(".") for p in parts) and file.name not in (
        "dataset_info.json",
        "dataset_infos.json",
        "state.json",
        "README.txt",
        "LICENSE.txt",
    )


def words(file: Path, base: Path) -> set[str]:
    """The words of a file's path within its folder."""
    return set(re.split(r"[^a-z0-9]+", str(file.relative_to(base)).lower()))


def license_of(card: Path) -> str | None:
    """The licence in the first block of a data card."""
    if not card.is_file():
        return None
    match = re.match(
        r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.S
    )
    try:
        head = yaml.safe_load(match[1]) if match else None
    except yaml.YAMLError:
        return None
    value = head.get("license") if isinstance(head, dict) else None
    return ", ".join(map(str, value)) if isinstance(value, list) else value and str(value)


def open_hub(source: Source) -> Opened:
    """A hub data set at its revision. The commit that was read is resolved first and recorded.

    Raises:
        DataError: it cannot be read, or only at another commit than the recipe's.
    """
    commit, license = hub_facts(source)
    rows = load_hub(source, commit or source.revision)
    read = commit_of(rows)
    wanted = commit or (source.revision if COMMIT.fullmatch(source.revision or "") else None)
    if read and wanted and read != wanted:
        # where the hub does not answer, `datasets` takes what it used last, whatever was asked for
        rows = cached_commit(source, rows, wanted)
    elif read and not wanted:
        warnings.warn(
            f"the hub did not answer: {source.path} is read at commit {read}, the one that was used"
            " last on this machine; pin it with `revision:`",
            stacklevel=2,
        )
    commit = wanted or read

    def each() -> Iterator[Row]:
        if source.streaming:
            yield from rows
            return
        for batch in rows.iter(batch_size=BATCH):
            yield from (
                dict(zip(batch, values, strict=True))
                for values in zip(*batch.values(), strict=True)
            )

    path = Path(source.path)
    chunks = Chunks(lambda: chunked(guarded(path, each), source.path))
    return Opened(chunks, commit, None, license or rows.info.license or None, commit)


def load_hub(source: Source, revision: str | None) -> Any:
    """The rows of a hub data set, as `datasets` reads them."""
    import datasets

    files = source.data_files
    try:
        return datasets.load_dataset(
            source.path,
            source.name,
            split=source.split,
            revision=revision,
            data_files=list(files) if isinstance(files, tuple) else files,
            streaming=source.streaming,
        )
    except Exception as error:  # no network, no such data set, gated: all the user's to put right
        raise DataError(
            f"{source.path} is no file here and could not be read from the hub: {first_line(error)}"
        ) from error


def cached_commit(source: Source, rows: Any, commit: str) -> Any:
    """The rows of another commit of the same data set, if that is in the cache of `datasets`.

    Raises:
        DataError: it is not there.
    """
    from datasets.packaged_modules.cache.cache import Cache

    folder = Path(rows.cache_files[0]["filename"]).parent
    if not (folder.with_name(commit) / "dataset_info.json").is_file():
        raise DataError(
            f"{source.path} is to be read at revision {commit}, the hub does not answer, and this"
            f" machine has only {folder.name} of it; connect to the hub once, or change `revision:`"
        )
    config, version = folder.parts[-3:-1]
    name = source.path.split("/")[-1]
    made: Any = Cache(
        repo_id=source.path, dataset_name=name, config_name=config, version=version, hash=commit
    )
    return made.as_dataset(split=source.split)


def hub_facts(source: Source) -> tuple[str | None, str | None]:
    """Commit and licence of a hub data set; nothing where the hub cannot be asked."""
    from huggingface_hub import HfApi

    try:
        info = HfApi().dataset_info(source.path, revision=source.revision)
    except Exception:  # offline: what is in the local cache may still be read
        return None, None
    value = getattr(info.card_data, "license", None)
    return info.sha, ", ".join(value) if isinstance(value, list) else value


def commit_of(rows: Any) -> str | None:
    """The hub commit that rows were made from: `datasets` keeps them in a folder of its name."""
    for file in getattr(rows, "cache_files", None) or []:
        name = Path(file["filename"]).parent.name
        if COMMIT.fullmatch(name):
            return name
    return None
