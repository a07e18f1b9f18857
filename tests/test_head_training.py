"""The chunked head in trainers: NaN steps are skipped, z-loss is trained, logits stay chunks."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer
from posttrain.attention import set_attention
from posttrain.head import PROVEN, score, unwrapped
from posttrain.head.chunks import CHUNK, Sums, whole_answer
from posttrain.packing import Group, forward_inputs, pack

POISON = "~"  # the model has no finite embedding for it
ROWS = [
    {"prompt": f"What is {n}?", "completion": f"It is {n}. Yes.", "source": "sums"}
    for n in range(7)
]
BAD = {"prompt": "What is x?", "completion": f"It is {POISON}.", "source": "letters"}
PAIRS = [
    {"prompt": f"Is it {n}?", "chosen": f"Yes, it is {n}.", "rejected": "No."} for n in range(4)
]


@pytest.fixture(autouse=True)
def chunk_rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions of each chunk of logits that is made; at most four of them fit."""
    monkeypatch.setitem(CHUNK, "cpu", 4 * 320)
    rows: list[int] = []
    made = Sums.logits

    def logits(self: Sums, part: slice, form: Any) -> torch.Tensor:
        z = made(self, part, form)
        rows.append(len(z))
        return z

    monkeypatch.setattr(Sums, "logits", logits)
    return rows


def options(out: Path, **more: Any) -> dict[str, Any]:
    plain = {"output_dir": str(out), "save_strategy": "no", "report_to": [], "disable_tqdm": True}
    steps = {"per_device_train_batch_size": 2, "learning_rate": 1e-2, "logging_steps": 1}
    return {**plain, **steps, "num_train_epochs": 1, **more}


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


@pytest.mark.parametrize("on_the_head", [True, False], ids=["LoRA on the head", "full"])
def test_a_step_with_nan_is_skipped_and_counted(
    checkpoint: Callable[..., str],
    tokenizer: Any,
    tmp_path: Path,
    chunk_rows: list[int],
    on_the_head: bool,
) -> None:
    from peft import LoraConfig

    model = AutoModelForCausalLM.from_pretrained(checkpoint(tie_word_embeddings=False))
    token = tokenizer.encode(POISON, add_special_tokens=False)[0]
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = math.nan
    config = LoraConfig(r=2, target_modules=["q_proj", "lm_head"]) if on_the_head else None
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(**options(tmp_path)),
        train_dataset=[*ROWS[:3], BAD, *ROWS[3:]],
        processing_class=tokenizer,
        peft_config=config,
    )
    trainer.train()
    assert PROVEN[unwrapped(trainer.model).get_output_embeddings()] == ""
    assert max(chunk_rows) <= 4
    found = losses(trainer)
    assert [math.isfinite(loss) for loss in found].count(False) == 1
    assert trainer.skipped_steps == 1
    assert trainer.state.global_step == len(found) == 4
    trained = [p for p in trainer.model.parameters() if p.requires_grad and p.shape != (320, 32)]
    assert trained
    assert all(p.isfinite().all() for p in trained)


def test_the_models_own_z_loss_is_trained(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path, chunk_rows: list[int]
) -> None:
    """Loss = mean over the trained tokens of (nll + c lse^2), from whole logits."""
    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    model.config.z_loss_coefficient = 0.05
    plain = copy.deepcopy(model)
    args = SFTConfig(**options(tmp_path, per_device_train_batch_size=1, max_steps=1))
    trainer = SFTTrainer(model, args, train_dataset=[ROWS[0]], processing_class=tokenizer)
    assert trainer.z_loss == 0.05
    trainer.train()
    row = trainer.train_dataset[0]
    labels = torch.tensor(row["labels"])[1:]
    logits = plain(torch.tensor(row["input_ids"])[None]).logits[0, :-1][labels != -100]
    nll = torch.nn.functional.cross_entropy(logits, labels[labels != -100])
    z_loss = logits.logsumexp(-1).square().mean()
    assert losses(trainer) == pytest.approx([float(nll + 0.05 * z_loss)], rel=1e-5)
    assert max(chunk_rows) <= 4
    trainer.args.z_loss = 0.0  # what the arguments say comes first
    assert trainer.z_loss == 0
    with pytest.raises(ValueError, match=r"z_loss: got -1; allowed is 0 \(none\) or more"):
        SFTConfig(output_dir=str(tmp_path), z_loss=-1)


@pytest.mark.parametrize("loss", ["dpo", "wpo"])
def test_pairs_make_no_whole_logits(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path, chunk_rows: list[int], loss: str
) -> None:
    """The numbers are those of one chunk that holds all."""
    found = []
    for most in (4, 10_000):
        CHUNK["cpu"] = most * 320
        chunk_rows.clear()
        args = DPOConfig(**options(tmp_path, loss={"name": loss}))
        trainer = DPOTrainer(
            checkpoint(), args=args, train_dataset=PAIRS, processing_class=tokenizer
        )
        trainer.train()
        found.append([*losses(trainer), *trainer.model.model.layers[0].mlp.up_proj.weight[0]])
        assert max(chunk_rows) <= most
        assert (max(chunk_rows) <= 4) == (most == 4)
    few, all_at_once = (torch.tensor(side) for side in found)
    torch.testing.assert_close(few, all_at_once, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("announced", [True, False])
@pytest.mark.parametrize("own_unit", [True, False], ids=["the head by itself", "tied"])
@pytest.mark.filterwarnings("ignore:FSDP2-wrapped module:UserWarning")
def test_fsdp2(
    checkpoint: Callable[..., str], tmp_path: Path, own_unit: bool, announced: bool
) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    batch = pack([Group([10, 11, 12], [([20, 21, 1], [20, 21, 1]), ([22, 1], [22, 1])])])
    inputs, keep, targets = forward_inputs(batch), batch["keep"], batch["targets"]
    path = checkpoint(tie_word_embeddings=not own_unit)
    plain, model = (AutoModelForCausalLM.from_pretrained(path) for _ in range(2))
    weights = torch.linspace(-1, 1, len(targets))
    store = f"file://{tmp_path}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        parts = [*model.model.layers, *([model.lm_head] if own_unit else []), model]
        for part in parts:
            fully_shard(part, mesh=mesh)
        for each in (plain, model):
            set_attention(each)
        got = score(model, inputs, keep, targets, weights=weights if announced else None)
        (got * weights).sum().backward()
        logits = plain(**inputs, logits_to_keep=keep).logits[0]
        (whole_answer(logits, targets).logps * weights).sum().backward()
        assert PROVEN[model.lm_head] == ""
        for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(mine.grad.full_tensor(), theirs.grad, rtol=1e-5, atol=1e-5)
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_a_compiled_model_trains_as_a_plain_one(
    checkpoint: Callable[..., str], tokenizer: Any, tmp_path: Path, chunk_rows: list[int]
) -> None:
    found = []
    for compiled in (False, True):
        torch._dynamo.reset()
        more = {"torch_compile_backend": "aot_eager"} if compiled else {}
        args = SFTConfig(**options(tmp_path, torch_compile=compiled, max_steps=3, **more))
        chunk_rows.clear()
        trainer = SFTTrainer(checkpoint(), args, train_dataset=ROWS, processing_class=tokenizer)
        trainer.train()
        assert compiled == hasattr(trainer.model_wrapped, "_orig_mod")
        assert 0 < max(chunk_rows) <= 4
        found.append(losses(trainer))
    assert found[1] == pytest.approx(found[0], rel=1e-5)
