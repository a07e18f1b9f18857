"""The run folder: what is written where, always whole, and never over somebody else's work.

runs/<name>/
  recipe.resolved.yaml  environment.json  mixture.lock  metrics.jsonl  report.json  report.html
  evals/<stage>.json    transcripts/<stage>/<task>.jsonl
  <n>-<stage>/          manifest.json  samples.txt  data/  checkpoint-*/  model/
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from posttrain.errors import RunError
from posttrain.trainers.checkpoints import ASIDE, last_checkpoint

RECIPE = "recipe.resolved.yaml"
MANIFEST = "manifest.json"
RUNNING = ".running"
logger = logging.getLogger(__name__)


def write_text(path: Path, text: str) -> None:
    """Write beside, flush to disk, then rename: a reader sees the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.tmp")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file of the run folder.

    Raises:
        RunError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise damaged(path, str(error)) from error


def read_object(path: Path) -> dict[str, Any]:
    """`read_json` of a file that must hold an object."""
    value = read_json(path)
    if not isinstance(value, dict):
        raise damaged(path, f"it holds a {type(value).__name__}, not an object")
    return value


def damaged(path: Path, why: str) -> RunError:
    """A file of the run folder that does not say what it should."""
    return RunError(
        f"{path} is damaged ({why}): the run folder was left half written, or the file was "
        f"changed. Move {path.parent} away, or start another run with --run_dir"
    )


def saved_steps(stage: Path) -> int:
    """Steps that a rerun of the stage would not train again."""
    checkpoint = last_checkpoint(stage)
    return int(checkpoint.rsplit("-", 1)[1]) if checkpoint else 0


@dataclass(frozen=True)
class RunFolder:
    """A run folder that may be empty, ours and unfinished, or ours and done."""

    path: Path

    def inspect(self) -> None:
        """Refuse a folder that is not a run of ours.

        Raises:
            RunError: it is a file, it cannot be written, or it holds something else.
        """
        there = next(p for p in (self.path.absolute(), *self.path.absolute().parents) if p.exists())
        if not there.is_dir():
            raise RunError(f"{there} is a file; choose another folder with --run_dir")
        if not os.access(there, os.W_OK | os.X_OK):
            raise RunError(f"{there} cannot be written; choose another folder with --run_dir")
        held = {p.name for p in self.path.iterdir()} if self.path.is_dir() else set()
        if held - {f".{RECIPE}.tmp", RUNNING} and RECIPE not in held:
            raise RunError(
                f"{self.path} is not empty and has no {RECIPE}: it is half written or not a run "
                "folder. Move it away, or choose another one with --run_dir"
            )

        for name in (
            "report.json",
            "mixture.lock",
            *(f"evals/{p.name}" for p in self.path.glob("evals/*.json")),
        ):
            if (self.path / name).is_file():
                read_object(self.path / name)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep every other run out, for two would write over each other's steps.

        The lock ends with the process that has it, however that ends.

        Raises:
            RunError: another run is in the folder.
        """
        new = [p for p in (self.path, *self.path.parents) if not p.exists()]
        self.path.mkdir(parents=True, exist_ok=True)
        mark = self.path / RUNNING
        with mark.open("a+", encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                who = file.read().strip() or "another process"
                raise RunError(
                    f"{self.path} is in use: {who} runs in it; wait until it is done, stop it, or "
                    "choose another folder with --run_dir"
                ) from None
            except OSError as error:  # a network file system without locks
                logger.warning("%s cannot be locked (%s): start no second run in it", mark, error)
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            try:
                yield
            finally:
                mark.unlink(missing_ok=True)
                with suppress(OSError):  # it holds something: the run has begun
                    for folder in new:
                        folder.rmdir()

    def stage(self, index: int, name: str) -> Path:
        """Folder of stage `index` (0-based)."""
        return self.path / f"{index + 1}-{name}"

    def manifest(self, stage: Path) -> dict[str, Any] | None:
        """What a stage's folder says of itself; `None` when there is no such folder yet.

        Raises:
            RunError: the folder exists without a whole manifest, or without the model it promises.
        """
        if not stage.exists() or all(p.name == f".{MANIFEST}.tmp" for p in stage.iterdir()):
            return None
        if not (stage / MANIFEST).is_file():
            raise RunError(
                f"{stage} has no {MANIFEST}: it is half written or was not written by posttrain. "
                "Move it away, or start another run with --run_dir"
            )
        manifest = read_object(stage / MANIFEST)
        if manifest.get("status") == "done" and not any((stage / "model").glob("*.safetensors")):
            raise RunError(
                f"{stage} is marked done, but {stage / 'model'} holds no weights; "
                f"move {stage} away to train it again"
            )
        return manifest

    def trained(self, stage: Path) -> bool:
        """Whether a stage's folder holds work that a rerun would lose: a model or a checkpoint."""
        return (stage / "model").exists() or last_checkpoint(stage) is not None

    def set_aside(self, stage: Path) -> None:
        """Rename a stage's folder so that it can be trained again without losing what it held."""
        number = 1
        while (aside := stage.with_name(f"{stage.name}.old{number}")).exists():
            number += 1
        stage.rename(aside)

    def forget_unfinished(self, stage: Path) -> None:
        """Drop what an interrupted save or export left behind."""
        for name in (ASIDE, "model.tmp"):
            shutil.rmtree(stage / name, ignore_errors=True)

    def forget_unstarted(self) -> None:
        """Drop a folder that this run made if not even the data of one stage was built."""
        if not any(self.path.glob(f"*/{MANIFEST}")):
            shutil.rmtree(self.path, ignore_errors=True)

    def need_space(self, num_bytes: int) -> None:
        """Refuse to start a stage whose model cannot be written.

        Raises:
            RunError: less space is left than the model takes.
        """
        free = shutil.disk_usage(self.path).free
        if free < num_bytes:
            raise RunError(
                f"no space left for {self.path}: the model takes {num_bytes / 1e9:.2f} GB and "
                f"{free / 1e9:.2f} GB are free; make room, or choose another disk with --run_dir"
            )
