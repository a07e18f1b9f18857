"""Killed, told to stop, or pressed Ctrl-C: the same command goes on, to the same weights."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

STAGES = ("sft", "dpo", "rlvr")
STEPS = 24
RUN = ["posttrain", "run", "stack.yaml"]


@pytest.fixture(scope="module")
def stack(
    tmp_path_factory: pytest.TempPathFactory,
    write_stack: Callable[..., Path],
    launch: Callable[..., Any],
) -> Path:
    """The folder of a recipe, with a run of it (`runs/whole`) that nobody stopped."""
    folder = tmp_path_factory.mktemp("stack")
    write_stack(folder, stages=STAGES, every={"max_steps": STEPS, "save_steps": 3})
    launch([*RUN, "--run_dir", "runs/whole"], folder)
    return folder


def last_step(run: Path, stage: str) -> int:
    """The last step of a stage that metrics.jsonl tells of, a torn line aside."""
    path = run / "metrics.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return max((row["step"] for row in rows if row["stage"] == stage), default=0)


def wait_for_step(launched: Any, run: Path, stage: str, step: int) -> None:
    end = time.monotonic() + 200
    while last_step(run, stage) < step:
        assert launched.process.poll() is None, launched.said()[-4000:]
        assert time.monotonic() < end, f"no step {step} of {stage}"
        time.sleep(0.01)


def report(run: Path) -> dict[str, dict[str, Any]]:
    stages = json.loads((run / "report.json").read_text(encoding="utf-8"))["stages"]
    return {stage["name"]: stage for stage in stages}


def weights(run: Path, stage: str) -> bytes:
    (folder,) = run.glob(f"?-{stage}")
    return (folder / "model" / "model.safetensors").read_bytes()


def check_resumed(said: str, begun: Sequence[str]) -> None:
    """All stages begun before were done and skipped, but the last, which went on."""
    for stage in begun[:-1]:
        assert f"{stage}: done before, skipped" in said
    for stage in begun[-1:]:
        assert f"{stage}: step" in said and f"{stage}: step 1/" not in said


def test_a_run_killed_in_every_stage_ends_with_the_same_weights(
    stack: Path, begin: Callable[..., Any], launch: Callable[..., Any], metrics: Callable[..., Any]
) -> None:
    run, command = stack / "runs" / "killed", [*RUN, "--run_dir", "runs/killed"]
    for number, stage in enumerate(STAGES, 1):
        launched = begin(command, stack)
        wait_for_step(launched, run, stage, 8)
        launched.process.kill()
        assert launched.wait() == -signal.SIGKILL
        assert not (run / f"{number}-{stage}" / "model").exists(), "it was killed too late"
        check_resumed(launched.said(), STAGES[: number - 1])
    check_resumed(launch(command, stack).said(), STAGES)
    whole = stack / "runs" / "whole"
    for stage in STAGES:
        assert report(run)[stage]["status"] == "done" and report(run)[stage]["steps"] == STEPS
        assert weights(run, stage) == weights(whole, stage)
    assert metrics(run) == metrics(whole)


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_told_to_stop_it_saves_and_the_same_command_goes_on(
    sign: signal.Signals,
    stack: Path,
    begin: Callable[..., Any],
    launch: Callable[..., Any],
    metrics: Callable[..., Any],
) -> None:
    run = stack / "runs" / sign.name
    # nothing but the signal asks for a checkpoint
    command = [*RUN, "--stage", "sft", "--run_dir", str(run), "stages.sft.save_steps=500"]
    launched = begin(command, stack)
    wait_for_step(launched, run, "sft", 5)
    launched.process.send_signal(sign)
    assert launched.wait() == 128 + sign
    said = launched.said()
    assert "interrupted" in said and "the same command goes on" in said
    assert "Traceback" not in said
    steps = report(run)["sft"]["steps"]
    assert report(run)["sft"]["status"] == "interrupted" and 5 <= steps < STEPS
    assert (run / "1-sft" / f"checkpoint-{steps}" / "trainer_state.json").is_file()
    assert last_step(run, "sft") == steps
    said = launch(command, stack).said()
    assert "sft: step 1/" not in said
    assert report(run)["sft"]["status"] == "done"
    whole = stack / "runs" / "whole"
    assert weights(run, "sft") == weights(whole, "sft")
    assert metrics(run)["sft"] == metrics(whole)["sft"]


def second_process(launcher: int) -> int:
    """The process that a launcher started as the one of rank 1."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = (folder / "stat").read_text().rpartition(")")[2].split()[1]
            environment = (folder / "environ").read_bytes().split(b"\0")
        except OSError:  # it has ended, or is another user's
            continue
        if int(parent) == launcher and b"RANK=1" in environment:
            return int(folder.name)
    raise AssertionError("there is no process of rank 1")


@pytest.mark.parametrize("told", ["all", "one"])
def test_two_processes_told_to_stop_save_together(
    told: str,
    stack: Path,
    begin: Callable[..., Any],
    launch: Callable[..., Any],
    metrics: Callable[..., Any],
    free_port: Callable[[], int],
) -> None:
    run = stack / "runs" / f"two-{told}"

    def command() -> list[str]:
        two = ["torchrun", "--nproc_per_node", "2", "--master_port", str(free_port())]
        rest = ["--stage", "sft", "--run_dir", str(run), "stages.sft.save_steps=500"]
        return [*two, "stack.yaml", *rest]

    launched = begin(command(), stack)
    wait_for_step(launched, run, "sft", 5)
    if told == "all":
        launched.process.terminate()  # torchrun passes it on
    else:
        os.kill(second_process(launched.process.pid), signal.SIGTERM)
    assert launched.wait() != 0
    assert report(run)["sft"]["status"] == "interrupted"
    saved = run / "1-sft" / f"checkpoint-{report(run)['sft']['steps']}"
    assert {"rng_state_0.pth", "rng_state_1.pth", "trainer_state.json"} <= {
        path.name for path in saved.iterdir()
    }
    said = launch(command(), stack).said()
    assert "sft: step 1/" not in said
    rows, whole = metrics(run)["sft"], metrics(stack / "runs" / "whole")["sft"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    losses = [row["loss"] for row in whole]
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)


def test_two_processes_begin_and_one_goes_on(
    stack: Path,
    begin: Callable[..., Any],
    launch: Callable[..., Any],
    metrics: Callable[..., Any],
    free_port: Callable[[], int],
) -> None:
    """On another number of processes the rows of a step are the same, and so are its losses."""
    run = stack / "runs" / "fewer"
    rest = ["--stage", "sft", "--run_dir", str(run), "stages.sft.save_steps=500"]
    two = ["torchrun", "--nproc_per_node", "2", "--master_port", str(free_port())]
    launched = begin([*two, "stack.yaml", *rest], stack)
    wait_for_step(launched, run, "sft", 5)
    launched.process.terminate()
    assert launched.wait() != 0
    said = launch([*RUN, *rest], stack).said()
    assert "sft: step" in said and "sft: step 1/" not in said
    rows, whole = metrics(run)["sft"], metrics(stack / "runs" / "whole")["sft"]
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    losses = [row["loss"] for row in whole]
    assert [row["loss"] for row in rows] == pytest.approx(losses, rel=1e-5)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_goes_on(
    stack: Path, begin: Callable[..., Any], launch: Callable[..., Any]
) -> None:
    run, command = stack / "runs" / "torn", [*RUN, "--stage", "sft", "--run_dir", "runs/torn"]
    launched = begin(command, stack)
    wait_for_step(launched, run, "sft", 10)
    launched.process.kill()
    launched.wait()
    saved = sorted((run / "1-sft").glob("checkpoint-*"), key=lambda p: int(p.name[11:]))
    assert len(saved) == 2
    weights_file = saved[-1] / "model.safetensors"
    weights_file.write_bytes(weights_file.read_bytes()[:-100])
    said = launch(command, stack).said()
    assert said.count(f"{saved[-1].name} is not whole (model.safetensors is damaged)") == 1
    assert weights(run, "sft") == weights(stack / "runs" / "whole", "sft")


def test_ctrl_c_while_data_is_built_leaves_nothing_in_the_way(
    stack: Path, tmp_path: Path, begin: Callable[..., Any], launch: Callable[..., Any]
) -> None:
    for name in ("stack.yaml", "chats.jsonl", "pairs.jsonl", "problems.jsonl"):
        shutil.copy(stack / name, tmp_path / name)
    shutil.copytree(stack / "model", tmp_path / "model")
    rows = (stack / "chats.jsonl").read_text(encoding="utf-8")
    (tmp_path / "chats.jsonl").write_text(rows * 4000, encoding="utf-8")  # a minute's work
    command = [*RUN, "--stage", "sft", "--run_dir", "run"]
    launched = begin(command, tmp_path)
    end = time.monotonic() + 200
    while not (tmp_path / "run" / "recipe.resolved.yaml").is_file():
        assert launched.process.poll() is None and time.monotonic() < end, launched.said()
        time.sleep(0.01)
    launched.process.send_signal(signal.SIGINT)
    assert launched.wait() == 128 + signal.SIGINT
    assert "Traceback" not in launched.said()
    (tmp_path / "chats.jsonl").write_text(rows, encoding="utf-8")
    launch(command, tmp_path)
    assert report(tmp_path / "run")["sft"]["status"] == "done"
