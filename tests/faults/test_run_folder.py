"""Run folders that are foreign, half written or full: told, left alone, and mended by a rerun."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

RUN = ("run", "stack.yaml", "--stage", "sft")
META = {"format": "pt"}


def test_a_finished_run_is_skipped(begun: Path, call: Callable[..., int]) -> None:
    weights = begun / "runs/stack/1-sft/model/model.safetensors"
    before = weights.stat().st_mtime_ns
    assert call(*RUN) == 0
    assert weights.stat().st_mtime_ns == before


def test_a_folder_of_something_else(stack: Path, refused: Callable[..., str]) -> None:
    (stack / "runs/stack").mkdir(parents=True)
    (stack / "runs/stack/thesis.txt").write_text("years of work")
    message = refused(stack, "run", "stack.yaml")
    assert "runs/stack is not empty" in message and "--run_dir" in message


def test_a_folder_in_which_another_run_is(
    begun: Path, refused: Callable[..., str], call: Callable[..., int]
) -> None:
    """Two launches of one recipe would train into one folder; the second is told of the first."""
    mark = begun / "runs/stack/.running"
    with mark.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write("process 4711 on node7")
        file.flush()
        message = refused(begun, "run", "stack.yaml")
        assert "runs/stack is in use: process 4711 on node7 runs in it" in message
        assert "--run_dir" in message
    assert mark.is_file()  # left behind by a process that was killed: no lock, no obstacle
    assert call(*RUN) == 0
    assert not mark.exists()


@pytest.mark.parametrize("run_dir", ["rows.jsonl", "rows.jsonl/deeper/run"])
def test_a_run_dir_that_is_a_file(run_dir: str, stack: Path, refused: Callable[..., str]) -> None:
    message = refused(stack, "run", "stack.yaml", "--run_dir", run_dir)
    assert "rows.jsonl is a file" in message and "--run_dir" in message


@pytest.mark.parametrize("out", ["rows.jsonl", "model"])
def test_data_is_built_into_an_empty_folder_only(
    out: str, stack: Path, refused: Callable[..., str]
) -> None:
    message = refused(stack, "data", "build", "stack.yaml", "--out", out)
    assert f"--out {out} is" in message and "another folder" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written(stack: Path, refused: Callable[..., str]) -> None:
    (stack / "locked").mkdir(mode=0o500)
    assert "cannot be written" in refused(stack, "run", "stack.yaml", "--run_dir", "locked/run")


SPOILS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "torn manifest": (
        lambda run: cut(run / "1-sft/manifest.json"),
        ("1-sft/manifest.json is damaged", "Move runs/stack/1-sft away", "--run_dir"),
    ),
    "manifest that is no object": (
        lambda run: (run / "1-sft/manifest.json").write_text("[]\n"),
        ("1-sft/manifest.json is damaged", "not an object"),
    ),
    "binary manifest": (
        lambda run: (run / "1-sft/manifest.json").write_bytes(b"\xff\xfe{}"),
        ("1-sft/manifest.json is damaged",),
    ),
    "no manifest": (
        lambda run: (run / "1-sft/manifest.json").unlink(),
        ("1-sft has no manifest.json", "half written", "Move it away"),
    ),
    "no weights": (
        lambda run: (run / "1-sft/model/model.safetensors").unlink(),
        ("1-sft is marked done", "holds no weights", "move runs/stack/1-sft away"),
    ),
    "torn report": (
        lambda run: cut(run / "report.json"),
        ("report.json is damaged", "runs/stack"),
    ),
    "report that is no object": (
        lambda run: (run / "report.json").write_text("null"),
        ("report.json is damaged", "not an object"),
    ),
    "torn scores": (
        lambda run: cut(run / "evals/base.json"),
        ("evals/base.json is damaged",),
    ),
    "no recipe": (
        lambda run: (run / "recipe.resolved.yaml").unlink(),
        ("has no recipe.resolved.yaml", "Move it away"),
    ),
}


def cut(path: Path) -> None:
    path.write_text(path.read_text()[: path.stat().st_size // 2])


@pytest.mark.parametrize("name", SPOILS)
def test_half_written(name: str, begun: Path, refused: Callable[..., str]) -> None:
    spoil, says = SPOILS[name]
    spoil(begun / "runs/stack")
    message = refused(begun, *RUN)
    for words in says:
        assert words in message


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("learning_rate=0.5", "learning_rate"),
        ("chat_template=chatml", "recipe"),
    ],
)
def test_a_changed_recipe_over_a_finished_stage(
    change: str, says: str, begun: Path, refused: Callable[..., str]
) -> None:
    message = refused(begun, *RUN, change)
    assert "1-sft was trained with other settings" in message and says in message
    assert "--from_stage sft" in message and "--run_dir" in message


def test_changed_rows_under_a_finished_stage(begun: Path, refused: Callable[..., str]) -> None:
    (begun / "rows.jsonl").write_text('{"prompt": "3+3?", "completion": "6"}\n')
    assert "(files)" in refused(begun, *RUN)


def test_changed_rows_in_a_folder_under_a_finished_stage(
    begun: Path, call: Callable[..., int], refused: Callable[..., str]
) -> None:
    (begun / "rows").mkdir()
    (begun / "rows.jsonl").rename(begun / "rows/part.jsonl")
    arguments = (*RUN, "stages.sft.datasets=[{path: rows}]", "--run_dir", "runs/other")
    assert call(*arguments) == 0
    (begun / "rows/more.jsonl").write_text('{"prompt": "3+3?", "completion": "6"}\n')
    assert "(files)" in refused(begun, *arguments)


def test_a_changed_base_model_is_evaluated_again(
    begun: Path, call: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*RUN) == 0
    assert "base: evaluated before, skipped" in capsys.readouterr().err
    weights = begun / "model/model.safetensors"
    save_file({name: value + 1 for name, value in load_file(weights).items()}, weights, META)
    assert call(*RUN) == 0
    assert "base: evaluated before" not in capsys.readouterr().err
    assert call(*RUN) == 0
    assert "base: evaluated before, skipped" in capsys.readouterr().err


def test_from_stage_keeps_the_old_folder_aside(begun: Path, call: Callable[..., int]) -> None:
    old = (begun / "runs/stack/1-sft/model/model.safetensors").read_bytes()
    arguments = ("--from_stage", "sft", "learning_rate=0.5", "stages.sft.max_steps=2")
    assert call("run", "stack.yaml", *arguments) == 2  # it cannot mean both dpo's and sft's
    assert call("run", "stack.yaml", "--from_stage", "sft", "stages.sft.learning_rate=0.5") == 0
    kept = begun / "runs/stack/1-sft.old1/model/model.safetensors"
    assert kept.read_bytes() == old
    assert (begun / "runs/stack/1-sft/model/model.safetensors").read_bytes() != old


def test_a_bad_later_stage_leaves_the_finished_run_as_it_was(
    begun: Path, refused: Callable[..., str]
) -> None:
    (begun / "problems.jsonl").write_text('{"prompt": "2?", "ground_truth": "x"}\n')
    message = refused(begun, "run", "stack.yaml", may_add="runs/stack/2-dpo/")
    assert "stage rlvr" in message and "jsonl:1: " in message


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not allowed here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("free", [0, 8_000, 120_000, 200_000, 280_000])
def test_no_space_left(
    free: int,
    stack: Path,
    small_disk: Path,
    call: Callable[..., int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    """From a disk that takes no byte to one that takes the data, or the model but no checkpoint."""
    (small_disk / "thesis.txt").write_text("years of work")
    room = small_disk / "filler"
    left = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_bsize
    room.write_bytes(bytes(left - free))
    arguments = (*RUN, "--run_dir", str(small_disk / "run"))
    assert call(*arguments) == 2
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert "no space left" in message and str(small_disk) in message
    assert (small_disk / "thesis.txt").read_text() == "years of work"
    room.unlink()
    assert call(*arguments) == 0  # with room made, the same command goes on
    report = json.loads((small_disk / "run/report.json").read_text())
    assert [stage["status"] for stage in report["stages"]] == ["done"]
