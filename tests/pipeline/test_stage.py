"""What a recipe says of a stage reaches its trainer; what is measured reaches the run folder."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from posttrain import run
from posttrain.errors import RunError
from posttrain.pipeline.data import stage_rows
from posttrain.trainers import reference

SHORT = {"max_steps": 1, "batch_size": 8, "max_length": 128}
CHATS = [{"prompt": f"What is {n} plus 2?", "completion": f"{n}+2={n + 2}."} for n in range(8)]
PAIRS = [
    {"prompt": f"Name {n + 1} animals.", "chosen": "A cat, a dog. " * (n + 1), "rejected": "A car."}
    for n in range(8)
]
EVERY = {
    "loss", "grad_norm", "learning_rate", "tokens_per_second", "trained_tokens_per_second",
    "model_tflops", "tflops_per_device", "mfu", "padding", "attention_padding", "peak_memory_gb",
    "skipped_steps", "loss/pairs", "loss/more", "tokens/pairs", "tokens/more",
}  # fmt: skip


def write(folder: Path, name: str, rows: list[dict[str, Any]]) -> str:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def ran(folder: Path, model: str, stage: dict[str, Any], name: str = "run", **keys: Any) -> Path:
    """The run folder of a recipe of one stage."""
    [(kind, body)] = stage.items()
    head = {"name": "r", "model_name_or_path": model, "chat_template": "tulu", **keys}
    text = yaml.safe_dump({**head, "stages": [{kind: {**SHORT, **body}}]})
    (folder / "r.yaml").write_text(text, encoding="utf-8")
    return run(folder / "r.yaml", run_dir=folder / name)


def logged(folder: Path) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if "loss" in row]


def test_a_mixture_of_losses_is_the_weighted_sum(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows, losses = write(tmp_path, "pairs.jsonl", PAIRS), {}
    parts = [{"name": "ipo", "weight": 0.75, "beta": 0.2}, {"name": "nll", "weight": 0.5}]
    for name, loss in (
        ("ipo", {"name": "ipo", "beta": 0.2}),
        ("nll", "nll"),
        ("mixture", {"name": "mixture", "losses": parts}),
    ):
        stage = {"dpo": {"datasets": [rows], "loss": loss}}
        [entry] = logged(ran(tmp_path, checkpoint(), stage, name))
        losses[name] = entry["loss"]
    assert losses["ipo"] == pytest.approx(1 / (2 * 0.2) ** 2, rel=1e-5)  # its own reference
    expected = 0.75 * losses["ipo"] + 0.5 * losses["nll"]
    assert losses["mixture"] == pytest.approx(expected, rel=1e-5)
    assert losses["nll"] > 0.1


def test_the_z_loss_of_a_recipe_is_in_the_loss(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows, losses = write(tmp_path, "chats.jsonl", CHATS), {}
    for name, keys in (("without", {}), ("with", {"z_loss": 0.5})):
        folder = ran(tmp_path, checkpoint(), {"sft": {"datasets": [rows], **keys}}, name)
        [losses[name]] = [entry["loss"] for entry in logged(folder)]
    model = AutoModelForCausalLM.from_pretrained(checkpoint(), dtype=torch.float32)
    squares = []
    for row in stage_rows(folder / "1-sft" / "data"):
        with torch.no_grad():
            lse = model(input_ids=torch.tensor([row["input_ids"]])).logits[0, :-1].logsumexp(-1)
        squares.append(lse[torch.tensor(row["labels"][1:]) != -100].square())
    expected = losses["without"] + 0.5 * float(torch.cat(squares).mean())
    assert expected > losses["without"] + 1
    assert losses["with"] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("sft", set()),
        ("dpo", {"margin/pairs", "margin/more", "accuracy/pairs", "accuracy/more"}),
        ("reward", {"accuracy/pairs", "accuracy/more", "rewards/accuracies"}),
    ],
)
def test_metrics_of_a_step_stand_in_the_run_folder(
    kind: str, own: set[str], checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    rows = CHATS if kind == "sft" else PAIRS
    sources = [write(tmp_path, f"{name}.jsonl", rows) for name in ("pairs", "more")]
    body = {"datasets": sources, "batch_size": 16, "per_device_train_batch_size": 4}
    [entry] = logged(ran(tmp_path, checkpoint(), {kind: {**body, "packing": True}}))
    assert set(entry) >= EVERY | own
    assert 0 < entry["mfu"] < 1 and entry["tokens_per_second"] > 0
    assert entry["loss"] == pytest.approx((entry["loss/pairs"] + entry["loss/more"]) / 2, abs=1e-5)
    assert entry["tokens/pairs"] == entry["tokens/more"]


def test_a_stage_stops_after_its_own_number_of_steps(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(checkpoint(), broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    rows = write(tmp_path, "chats.jsonl", CHATS)
    stage = {"datasets": [rows], "max_steps": 4, "max_skipped_steps": 2, "batch_size": 4}
    with pytest.raises(RunError, match=r"step 2: .* 2 steps in a row were skipped"):
        ran(tmp_path, str(broken), {"sft": stage})


@pytest.mark.slow
def test_what_the_reference_does_not_depend_on_is_found_again(
    checkpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sweep computes it once; other tokens or other weights are another table."""
    monkeypatch.setenv("POSTTRAIN_CACHE", str(tmp_path / "cache"))
    calls: list[int] = []
    inner = reference.logps_of
    monkeypatch.setattr(reference, "logps_of", lambda *a: calls.append(1) or inner(*a))
    write(tmp_path, "pairs.jsonl", PAIRS)
    write(tmp_path, "others.jsonl", [*PAIRS[1:], {**PAIRS[0], "rejected": "A bus."}])
    moved = tmp_path / "moved"
    shutil.copytree(checkpoint(), moved)

    def computes(name: str, model: str = "", rows: str = "pairs", **more: Any) -> bool:
        keys = {"chat_template": more.pop("chat_template", "tulu")}
        stage = {"dpo": {"datasets": [str(tmp_path / f"{rows}.jsonl")], **more}}
        calls.clear()
        ran(tmp_path, model or checkpoint(), stage, name, **keys)
        return bool(calls)

    assert computes("first")
    assert not computes("rate", learning_rate=1e-3, loss={"name": "dpo", "beta": 0.5})
    assert not computes("place", model=str(moved))
    assert computes("length", max_length=40)
    assert computes("rows", rows="others")
    assert computes("template", chat_template="zephyr")
    assert computes("weights", model=checkpoint(initializer_range=0.12))
