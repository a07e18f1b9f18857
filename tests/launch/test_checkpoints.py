"""Checkpoints as people have them, as a recipe's base: their first loss is that of a plain loop."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import load_from_disk
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.tokens import load_template

pytestmark = pytest.mark.slow

KINDS: dict[str, dict[str, Any]] = {
    "mistral": {"model_type": "mistral", "sliding_window": 16},
    "sharded": {"tie_word_embeddings": False},
    "tied": {"tie_word_embeddings": True},
}
TWO_STEPS = {"max_steps": 2, "batch_size": 24}


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory,
    write_stack: Callable[..., Path],
    launch: Callable[..., Any],
) -> Callable[[str], Path]:
    """`trained(kind)`: the folder of the recipe and of its run, `run/`: two steps of all rows."""
    done: dict[str, Path] = {}

    def train(kind: str) -> Path:
        if kind in done:
            return done[kind]
        folder = tmp_path_factory.mktemp(kind)
        write_stack(folder, ("sft",), KINDS[kind], TWO_STEPS)
        if kind == "sharded":
            model = AutoModelForCausalLM.from_pretrained(folder / "model")
            (folder / "model" / "model.safetensors").unlink()
            model.save_pretrained(folder / "model", max_shard_size="60KB")
        launch(["posttrain", "run", "stack.yaml", "--run_dir", "run"], folder)
        done[kind] = folder
        return folder

    return train


@torch.no_grad()
def plain_loss(model: Any, rows: Any) -> float:
    """Mean over all trained tokens, one row at a time."""
    total, count = 0.0, 0
    for row in rows:
        ids, labels = torch.tensor([row["input_ids"]]), torch.tensor(row["labels"])[1:]
        logits = model(input_ids=ids).logits[0, :-1]
        total += torch.nn.functional.cross_entropy(logits, labels, reduction="sum").item()
        count += int((labels != -100).sum())
    return total / count


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_loss_is_that_of_a_plain_loop(
    kind: str, trained: Callable[[str], Path], metrics: Callable[..., Any]
) -> None:
    folder = trained(kind)
    rows = load_from_disk(str(folder / "run" / "1-sft" / "data"))
    assert max(len(row["input_ids"]) for row in rows) > 2 * KINDS["mistral"]["sliding_window"]
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    losses = [row["loss"] for row in metrics(folder / "run")["sft"]]
    assert len(losses) == 2
    assert losses[0] == pytest.approx(plain_loss(model, rows), rel=1e-5)
    if kind == "mistral":  # and the window decides: without it the loss is another one
        wide = AutoModelForCausalLM.from_pretrained(folder / "model", sliding_window=None)
        assert losses[0] != pytest.approx(plain_loss(wide, rows), rel=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_saved_is_of_the_same_kind(kind: str, trained: Callable[[str], Path]) -> None:
    folder = trained(kind)
    if kind == "sharded":
        assert len(list((folder / "model").glob("model-*.safetensors"))) > 1
    saved = folder / "run" / "1-sft" / "model"
    model, found = AutoModelForCausalLM.from_pretrained(saved, output_loading_info=True)
    assert not any(found[key] for key in ("missing_keys", "unexpected_keys"))
    for name, value in KINDS[kind].items():
        assert getattr(model.config, name) == value
    tied = model.config.tie_word_embeddings
    with safe_open(saved / "model.safetensors", framework="pt") as tensors:
        assert ("lm_head.weight" in tensors.keys()) != tied  # noqa: SIM118
    assert torch.equal(model.lm_head.weight, model.get_input_embeddings().weight) == tied
    start = AutoModelForCausalLM.from_pretrained(folder / "model")
    assert not torch.equal(start.get_input_embeddings().weight, model.get_input_embeddings().weight)


@pytest.mark.parametrize("kind", KINDS)
def test_the_named_template_travels_with_the_model(
    kind: str, trained: Callable[[str], Path]
) -> None:
    folder = trained(kind)
    assert AutoTokenizer.from_pretrained(folder / "model").chat_template is None
    saved = folder / "run" / "1-sft" / "model"
    assert AutoTokenizer.from_pretrained(saved).chat_template == load_template("tulu")


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_generated_through_the_template(
    kind: str, trained: Callable[[str], Path]
) -> None:
    run = trained(kind) / "run"
    saved = run / "1-sft" / "model"
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(saved),
        AutoTokenizer.from_pretrained(saved),
    )
    lines = (run / "transcripts" / "sft" / "tiny.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(lines) == 9
    for row in map(json.loads, lines):
        asked = row["prompt"][0]["content"]
        text = f"<|user|>\n{asked}\n<|assistant|>\n"
        inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
        ids = model.generate(**inputs, max_new_tokens=8, do_sample=False)[0]
        answer = ids[inputs["input_ids"].shape[1] :]
        assert row["completion"] == tokenizer.decode(answer, skip_special_tokens=True)
