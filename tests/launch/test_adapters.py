"""LoRA and QLoRA recipes: every stage's model is whole, and its adapter is kept beside it."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

pytestmark = pytest.mark.slow

WIDE = {"hidden_size": 64, "intermediate_size": 128}  # 4-bit weights come in blocks of 64
LORA = {"use_peft": True, "lora_r": 4, "learning_rate": 1.0e-2}
WAYS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "lora": (("sft", "dpo", "reward", "rlvr"), LORA),
    "qlora": (("sft", "dpo", "reward", "rlvr"), {**LORA, "load_in_4bit": True}),
    "dora": (("sft", "dpo"), {**LORA, "use_dora": True, "use_rslora": True}),
    "lora_ddp": (("sft", "dpo", "rlvr"), LORA),
    "lora_zero2": (("sft", "dpo", "rlvr"), LORA),
    "lora_zero3": (("sft", "dpo", "rlvr"), LORA),
}
FULL = {"full_zero3": (("sft",), {"save_steps": 3})}
ZERO = {"zero2": "{stage: 2}", "zero3": "{stage: 3, stage3_param_persistence_threshold: 0}"}
AUTO = ("train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")


@pytest.fixture(scope="module")
def ran(
    tmp_path_factory: pytest.TempPathFactory,
    write_stack: Callable[..., Path],
    launch: Callable[..., Any],
    free_port: Callable[[], int],
) -> Callable[[str], Path]:
    """`ran(way)`: the run folder, `run/`, in the folder of its recipe."""
    done: dict[str, Path] = {}

    def run(way: str) -> Path:
        if way in done:
            return done[way]
        folder = tmp_path_factory.mktemp(way)
        stages, every = (WAYS | FULL)[way]
        write_stack(folder, stages, WIDE, every)
        command = ["posttrain", "run", "stack.yaml", "--run_dir", "run"]
        if "_" in way:
            two = ["torchrun", "--nproc_per_node", "2", "--master_port", str(free_port())]
            command = [*two, *command[2:]]
        if way[5:] in ZERO:
            settings = "".join(f"  {name}: auto\n" for name in AUTO)
            text = f"deepspeed:\n  zero_optimization: {ZERO[way[5:]]}\n{settings}"
            (folder / "zero.yaml").write_text(text, encoding="utf-8")
            command += ["--hardware", "zero.yaml"]
        launch(command, folder)
        done[way] = folder / "run"
        return done[way]

    return run


@pytest.mark.parametrize("way", WAYS)
def test_every_model_loads_alone_and_carries_what_its_adapter_learnt(
    way: str, ran: Callable[[str], Path]
) -> None:
    run = ran(way)
    start, last = run.parent / "model", {"sft": None, "dpo": "1-sft", "rlvr": "2-dpo"}
    last["reward"] = "2-dpo"
    for number, stage in enumerate(WAYS[way][0], 1):
        folder = run / f"{number}-{stage}"
        auto = AutoModelForSequenceClassification if stage == "reward" else AutoModelForCausalLM
        model, found = auto.from_pretrained(folder / "model", output_loading_info=True)
        assert not any(found[key] for key in ("missing_keys", "unexpected_keys"))
        assert getattr(model.config, "quantization_config", None) is None
        if stage == "reward":
            assert (folder / "adapter" / "adapter_model.safetensors").is_file()
            continue
        before = start if last[stage] is None else run / str(last[stage]) / "model"
        base = AutoModelForCausalLM.from_pretrained(before)
        was = {name: value.clone() for name, value in base.state_dict().items()}
        adapted = PeftModel.from_pretrained(base, folder / "adapter").merge_and_unload()
        expected, now = adapted.state_dict(), model.state_dict()
        for name, value in now.items():
            torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
            linear = name.endswith("proj.weight")
            changed = not torch.equal(value, was[name])
            assert changed == linear, f"{stage}: {name}"


@pytest.mark.parametrize("way", ["lora_ddp", "lora_zero2", "lora_zero3"])
def test_two_processes_have_the_losses_of_one(
    way: str, ran: Callable[[str], Path], metrics: Callable[..., Any]
) -> None:
    alone, both = metrics(ran("lora")), metrics(ran(way))
    for stage in ("sft", "dpo"):
        losses = [row["loss"] for row in alone[stage]]
        assert len(set(losses)) == 3
        assert [row["loss"] for row in both[stage]] == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("way", WAYS)
def test_dpo_starts_from_what_sft_ended_with(
    way: str, ran: Callable[[str], Path], metrics: Callable[..., Any]
) -> None:
    """Policy and reference are the merged SFT model, the reference for good: log 2 at first."""
    first, *later = metrics(ran(way))["dpo"]
    assert first["loss"] == pytest.approx(math.log(2), rel=1e-5)
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)
    assert all(row["rewards/margins"] != 0 for row in later)


@pytest.mark.parametrize("way", ["lora", "qlora", "dora", "lora_zero3"])
@pytest.mark.parametrize("stage", ["1-sft", "2-dpo"])
def test_exported_it_is_the_stages_model_again(
    way: str, stage: str, ran: Callable[[str], Path], launch: Callable[..., Any], tmp_path: Path
) -> None:
    run = ran(way)
    command = ["posttrain", "export", f"run/{stage}", "--merge", "--out", str(tmp_path / "out")]
    said = launch(command, run.parent).said()
    assert "merged" in said and ("4 bits" in said) == (way == "qlora")
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in load_file(run / stage / "model" / "model.safetensors").items():
        torch.testing.assert_close(written[name], value, rtol=1e-5, atol=1e-6)


def test_a_checkpoint_of_shares_is_put_together(
    ran: Callable[[str], Path], launch: Callable[..., Any], tmp_path: Path
) -> None:
    """ZeRO-3 keeps each process's share of the weights; they need not have been gathered."""
    stage = ran("full_zero3") / "1-sft"
    checkpoint = Path(shutil.copytree(stage / "checkpoint-3", tmp_path / "checkpoint-3"))
    for path in checkpoint.glob("*.safetensors*"):
        path.unlink()
    launch(["posttrain", "export", str(checkpoint), "--out", str(tmp_path / "out")], tmp_path)
    written = load_file(tmp_path / "out" / "model.safetensors")
    for name, value in load_file(stage / "model" / "model.safetensors").items():
        torch.testing.assert_close(written[name], value, rtol=1e-6, atol=1e-7)


def test_four_bits_are_not_full_precision(
    ran: Callable[[str], Path], metrics: Callable[..., Any]
) -> None:
    """The frozen weights really are coarser: close to the LoRA run's loss, and not equal to it."""
    first, second = (metrics(ran(way))["sft"][0]["loss"] for way in ("lora", "qlora"))
    assert first != second
    assert second == pytest.approx(first, rel=0.05)


def test_the_reward_head_is_trained_beside_its_adapter(ran: Callable[[str], Path]) -> None:
    for way in ("lora", "qlora"):
        folder = ran(way) / "3-reward"
        head = load_file(folder / "model" / "model.safetensors")["score.weight"]
        kept = load_file(folder / "adapter" / "adapter_model.safetensors")
        (saved,) = [value for name, value in kept.items() if name.endswith("score.weight")]
        assert torch.equal(head, saved)
        report = json.loads((ran(way) / "report.json").read_text(encoding="utf-8"))
        assert report["evals"]["reward"]["tiny_preference"]["n"] == 9


def test_smoke_stands_in_for_a_four_bit_recipe(
    tmp_path: Path, write_stack: Callable[..., Path], launch: Callable[..., Any]
) -> None:
    write_stack(tmp_path, every=WAYS["qlora"][1], model_name_or_path="someone/Llama-70B")
    launch(["posttrain", "run", "stack.yaml", "--smoke", "--run_dir", "run"], tmp_path)
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert [stage["status"] for stage in report["stages"]] == ["done"] * 4
