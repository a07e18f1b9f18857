"""The run folder: whole files, whole checkpoints, and leftovers of a killed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from posttrain.errors import RunError
from posttrain.pipeline.folder import RunFolder, read_object, saved_steps, write_json, write_text


def saved(stage: Path, step: int) -> Path:
    """A checkpoint as small as a whole one can be."""
    folder = stage / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    save_file({"w": torch.ones(3)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({}, folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    return folder


def test_a_file_is_the_old_one_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"a": 1})

    def killed(fd: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.fsync", killed)
        write_text(path, '{"a": 2')
    assert read_object(path) == {"a": 1}
    write_json(path, {"a": 3})
    assert read_object(path) == {"a": 3}
    assert [p.name for p in tmp_path.iterdir()] == ["report.json"]


def test_steps_of_a_damaged_checkpoint_do_not_count(tmp_path: Path) -> None:
    stage, run = tmp_path / "1-sft", RunFolder(tmp_path)
    assert saved_steps(stage) == 0 and not run.trained(stage)
    saved(stage, 2)
    torn = saved(stage, 4)
    assert saved_steps(stage) == 4 and run.trained(stage)
    (torn / "optimizer.pt").write_bytes(b"")
    assert saved_steps(stage) == 2


def test_what_was_being_written_is_dropped_and_the_rest_stays(tmp_path: Path) -> None:
    stage = tmp_path / "1-sft"
    kept = saved(stage, 2)
    for name in (".saving/checkpoint-4", "model.tmp"):
        (stage / name).mkdir(parents=True)
    RunFolder(tmp_path).forget_unfinished(stage)
    assert [p.name for p in stage.iterdir()] == [kept.name]
    RunFolder(tmp_path).forget_unfinished(stage)


def test_a_stage_is_done_with_its_weights_only(tmp_path: Path) -> None:
    stage, run = tmp_path / "1-sft", RunFolder(tmp_path)
    assert run.manifest(stage) is None
    stage.mkdir()
    (stage / ".manifest.json.tmp").touch()  # killed before its first file had a name
    assert run.manifest(stage) is None
    write_json(stage / "manifest.json", {"status": "done"})
    with pytest.raises(RunError, match="holds no weights"):
        run.manifest(stage)
    (stage / "model").mkdir()
    save_file({"w": torch.ones(3)}, stage / "model" / "model.safetensors")
    assert run.manifest(stage) == {"status": "done"}


def test_what_was_trained_is_set_aside_under_a_free_name(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    for number in (1, 2):
        saved(tmp_path / "1-sft", number)
        run.set_aside(tmp_path / "1-sft")
    assert saved_steps(tmp_path / "1-sft.old1") == 1
    assert saved_steps(tmp_path / "1-sft.old2") == 2
