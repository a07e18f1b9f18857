"""A checkpoint is whole, or what it lacks is named."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from posttrain.errors import RunError
from posttrain.trainers.checkpoints import check_shares, fault, found, last_checkpoint
from posttrain.trainers.saving import once


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """`checkpoint-4`, in the form of one process."""
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    save_file({"w": torch.ones(100)}, folder / "model.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth", "training_args.bin"):
        torch.save({"x": torch.ones(100)}, folder / name)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": 4}))
    return folder


def cut(name: str) -> Callable[[Path], None]:
    def half(folder: Path) -> None:
        data = (folder / name).read_bytes()
        (folder / name).write_bytes(data[: len(data) // 2])

    return half


def lose(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def put(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(text) and None


INDEX = '{"weight_map": {"w": "model-00001-of-00002.safetensors"}}'
SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "torn weights": (cut("model.safetensors"), "model.safetensors is damaged"),
    "torn optimizer": (cut("optimizer.pt"), "optimizer.pt is damaged"),
    "empty scheduler": (put("scheduler.pt", ""), "scheduler.pt is damaged"),
    "torn state": (cut("trainer_state.json"), "trainer_state.json is damaged"),
    "state of another shape": (put("trainer_state.json", "[]"), "trainer_state.json is damaged"),
    "no state": (lose("trainer_state.json"), "trainer_state.json is missing"),
    "no weights": (lose("model.safetensors"), "model.safetensors is missing"),
    "no optimizer": (lose("optimizer.pt"), "optimizer.pt is missing"),
    "no scheduler": (lose("scheduler.pt"), "scheduler.pt is missing"),
    "no random state": (lose("rng_state.pth"), "rng_state.pth is missing"),
    "a shard is missing": (
        put("model.safetensors.index.json", INDEX),
        "model-00001-of-00002.safetensors is missing",
    ),
    "DeepSpeed's is missing": (put("latest", "global_step4"), "global_step4/*model_states.pt"),
}


def test_a_checkpoint_of_other_processes_is_told_from_one_that_can_be_read(whole: Path) -> None:
    for world in (1, 2, 8):
        check_shares(whole, "plain DDP", world)
    with pytest.raises(RunError, match="under plain DDP, and this run is under ZeRO-3 with 2 proc"):
        check_shares(whole, "ZeRO-3", 2)
    (whole / "pytorch_model_fsdp_0").mkdir()
    check_shares(whole, "FSDP", 4)
    with pytest.raises(RunError, match="written under FSDP, and this run is under plain DDP"):
        check_shares(whole, "plain DDP", 1)
    shares = put("latest", "global_step4"), whole / "global_step4"
    shares[0](whole)
    shares[1].mkdir()
    for rank in range(2):
        (shares[1] / f"bf16_zero_pp_rank_{rank}_mp_rank_00_optim_states.pt").touch()
    (shares[1] / "mp_rank_00_model_states.pt").touch()
    check_shares(whole, "ZeRO-1 or 2", 2)
    with pytest.raises(RunError, match=r"by 2 proc.* with 1 .*go on under ZeRO-1 or 2 and 2 "):
        check_shares(whole, "ZeRO-1 or 2", 1)
    (shares[1] / "zero_pp_rank_0_mp_rank_00_model_states.pt").touch()
    check_shares(whole, "ZeRO-3", 2)


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_wrong_is_named(name: str, whole: Path) -> None:
    assert fault(whole) is None
    spoil, says = SPOILT[name]
    spoil(whole)
    assert says in str(fault(whole))


def test_deepspeeds_own_form_is_whole(whole: Path) -> None:
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt"):
        (whole / name).unlink()
    (whole / "latest").write_text("global_step4\n")
    (whole / "global_step4").mkdir()
    states = whole / "global_step4" / "zero_pp_rank_0_mp_rank_00_model_states.pt"
    torch.save({}, states)
    assert fault(whole) == "global_step4/*optim_states.pt is missing"
    shutil.copy(states, states.with_name("zero_pp_rank_0_mp_rank_00_optim_states.pt"))
    assert fault(whole) is None
    cut("global_step4/zero_pp_rank_0_mp_rank_00_optim_states.pt")(whole)
    assert "optim_states.pt is damaged" in str(fault(whole))


def test_the_newest_whole_one_is_found_by_its_number(whole: Path, tmp_path: Path) -> None:
    for step in (10, 9, 200):
        shutil.copytree(whole, tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-best").mkdir()
    assert [p.name.split("-")[1] for p in found(tmp_path)] == ["200", "10", "9", "4"]
    lose("optimizer.pt")(tmp_path / "checkpoint-200")
    said: list[str] = []
    assert last_checkpoint(tmp_path, said.append) == str(tmp_path / "checkpoint-10")
    (line,) = said
    assert "checkpoint-200 is not whole (optimizer.pt is missing)" in line
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_tied_weights_are_saved_once() -> None:
    class Tied:
        all_tied_weights_keys = {"head": "embed", "other": "body"}  # noqa: RUF012

    state = {"embed": torch.ones(2), "head": torch.ones(2), "body": torch.ones(2)}
    state["other"] = torch.zeros(2)  # no longer the same, so it is kept
    assert list(once(Tied(), state)) == ["embed", "body", "other"]
    assert list(once(object(), state)) == list(state)
