"""The same rows on 1 process, on 2 under DDP, and under ZeRO-2 and ZeRO-3: the same training."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
)

from posttrain import SFTConfig, SFTTrainer
from posttrain.errors import RunError

pytestmark = pytest.mark.slow

WAYS = ("single", "ddp", "zero2", "zero3")
SFT_ROWS = [
    {
        "prompt": f"What is {n} plus {n * n}?",
        "completion": f"{n}+{n * n}={n + n * n}." + " Yes." * (n % 4),
        "source": ("sums", "squares")[n % 2],
    }
    for n in range(1, 25)
]
PAIR_ROWS = [
    {
        "prompt": f"What is {n} plus {n}?",
        "chosen": f"{n}+{n}={2 * n}." + " So it is." * (n % 3),
        "rejected": f"It is {2 * n + 1}",
        "source": "sums",
    }
    for n in range(1, 23)  # 22 rows: the last batch is a partial one
]
PROBLEM_ROWS = [
    {"prompt": f"What is {n} plus {n}?", "ground_truth": str(2 * n), "verifier": "string_match"}
    for n in range(1, 6)  # 2 prompts a step: in the third one a process has none
]
SPARE = 352  # rows of the embedding, more than the tokenizer has tokens
LEARN = {"learning_rate": 3e-3, "max_grad_norm": 1.0, "num_train_epochs": 1}
SAVED = {"save_strategy": "steps", "save_steps": 2}
RLVR = {"learning_rate": 1e-3, "num_train_epochs": 1, "num_generations": 4}
RLVR |= {"max_completion_length": 12, "missing_eos_reward": 0.0}
PPO = {**RLVR, "beta": 0.05, "kl_in": "reward", "num_ppo_epochs": 2, "max_steps": 4}
# no clipping: DeepSpeed clips both models' gradients by one norm
PPO |= {"advantage": "gae", "loss": "ppo", "max_grad_norm": 0.0, "optim": "sgd"}

PLANS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "sft": ("sft", SFT_ROWS, {**LEARN, **SAVED}),
    "sft_sum": ("sft", SFT_ROWS, {**LEARN, "loss_reduction": "sum"}),
    "dpo": ("dpo", PAIR_ROWS, {**LEARN, "learning_rate": 3e-4}),
    "reward": ("reward", PAIR_ROWS, {**LEARN, "max_steps": 2}),
    "rlvr": ("rlvr", PROBLEM_ROWS, RLVR),
    "rlvr_kl": ("rlvr", PROBLEM_ROWS, {**RLVR, "beta": 0.05, "num_mini_batches": 2}),
    "rlvr_ppo": ("rlvr", PROBLEM_ROWS, PPO),
    "rlvr_lora": ("rlvr", PROBLEM_ROWS, {**RLVR, "beta": 0.05, "num_mini_batches": 2}),
    "rlvr_ppo_lora": ("rlvr", PROBLEM_ROWS, PPO),
}
ADAPTER = {"r": 4, "alpha": 8}


def run(way: str, name: str, folder: Path, model: str) -> dict[str, Any]:
    """One kind of training, 8 rows per step."""
    kind, rows, config = PLANS[name]
    steps = 4 if way == "single" else 2
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": steps}
    out = str(folder / way / name)
    return {"way": way, "kind": kind, "model": model, "rows": rows, "out": out} | {
        "config": {**config, **split},
        "adapter": ADAPTER if name.endswith("lora") else None,
    }


@pytest.fixture(scope="module")
def roomy(checkpoint: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A model with more rows of embeddings than tokens, as many have; nothing may cut them off."""
    folder = str(tmp_path_factory.mktemp("roomy"))
    shutil.copytree(checkpoint(), folder, dirs_exist_ok=True)
    model = AutoModelForCausalLM.from_pretrained(folder)
    model.resize_token_embeddings(SPARE)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def trained(
    roomy: str, train_all: Callable[..., None], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder with everything trained in every way, at `<way>/<name>`."""
    folder, hasty = tmp_path_factory.mktemp("trained"), tmp_path_factory.mktemp("hasty")
    shutil.copytree(roomy, hasty, dirs_exist_ok=True)
    # a fifth of all tokens ends an answer, so processes stop generating at different steps
    GenerationConfig(eos_token_id=list(range(1, 320, 5))).save_pretrained(hasty)
    starts = {name: str(hasty) if name.startswith("rlvr") else roomy for name in PLANS}
    train_all([run(way, name, folder, starts[name]) for way in WAYS for name in PLANS], folder)
    return folder


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", ["sft", "sft_sum", "dpo", "reward"])
def test_losses_of_every_step_are_those_of_one_process(
    trained: Path, log_of: Any, way: str, name: str
) -> None:
    alone, many = ([row["loss"] for row in log_of(trained / w / name)] for w in ("single", way))
    assert len(alone) == (2 if name == "reward" else 3)
    assert len(set(alone)) == len(alone)
    assert many == pytest.approx(alone, rel=1e-5)


@pytest.mark.parametrize("way", WAYS[1:])
def test_metrics_are_reduced_over_processes(trained: Path, log_of: Any, way: str) -> None:
    for name, keys in (("sft", ["loss/sums", "loss/squares"]), ("dpo", ["rewards/margins"])):
        first, second = (log_of(trained / w / name) for w in ("single", way))
        for key in [*keys, "grad_norm"]:
            alone = [entry[key] for entry in first]
            assert [entry[key] for entry in second] == pytest.approx(alone, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", ["sft", "dpo", "reward"])
def test_weights_are_those_of_one_process(trained: Path, way: str, name: str) -> None:
    alone, many = (
        load_file(trained / w / name / "model" / "model.safetensors") for w in ("single", way)
    )
    assert set(alone) == set(many)
    assert many["model.embed_tokens.weight"].shape[0] == SPARE
    for key, value in alone.items():
        assert (value - many[key]).abs().max() < 2e-6, key  # they moved by 1e-3 or more


@pytest.mark.parametrize("way", WAYS[1:])
def test_one_process_goes_on_where_two_ended_or_says_that_it_cannot(
    trained: Path, roomy: str, log_of: Any, way: str, tmp_path: Path
) -> None:
    saved = str(trained / way / "sft" / "checkpoints" / "checkpoint-2")
    given = run("single", "sft", tmp_path, roomy)["config"]
    given |= {"lr_scheduler_type": "constant", "logging_steps": 1, "report_to": []}
    args = SFTConfig(output_dir=str(tmp_path), disable_tqdm=True, **given)
    trainer = SFTTrainer(roomy, args, train_dataset=SFT_ROWS)
    if way == "ddp":
        trainer.train(resume_from_checkpoint=saved)
        losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
        whole = [row["loss"] for row in log_of(trained / "single" / "sft")]
        assert losses == pytest.approx(whole, rel=1e-5)
        return
    wrote = "ZeRO-3" if way == "zero3" else "ZeRO-1 or 2"
    with pytest.raises(RunError, match=f"under {wrote} by 2 processes, and this run .* 1 process"):
        trainer.train(resume_from_checkpoint=saved)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["rlvr", "rlvr_kl"])
def test_rlvr_trains_and_its_model_loads(
    trained: Path, roomy: str, log_of: Any, way: str, name: str
) -> None:
    log = log_of(trained / way / name)
    assert len(log) == 3
    assert 0 < log[0]["reward"] < 1
    assert all(entry["grad_norm"] > 0 for entry in log)
    if name == "rlvr_kl":
        assert log[0]["kl"] == pytest.approx(0, abs=1e-9)
        assert log[1]["kl"] > 0
    start = load_file(Path(roomy) / "model.safetensors")
    state = AutoModelForCausalLM.from_pretrained(trained / way / name / "model").state_dict()
    assert any(not value.equal(state[key]) for key, value in start.items())


@pytest.mark.parametrize("way", WAYS[1:])
def test_grpo_of_adapters_is_that_of_one_process(trained: Path, log_of: Any, way: str) -> None:
    alone, many = (log_of(trained / w / "rlvr_lora") for w in ("single", way))
    assert len(alone) == len(many) == 3
    for name in ("reward", "loss", "kl", "grad_norm", "completion_length"):
        expected = [entry[name] for entry in alone if name in entry]
        assert expected
        found = [entry[name] for entry in many if name in entry]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5), name
    assert alone[0]["kl"] == pytest.approx(0, abs=1e-9) and alone[1]["kl"] > 0
    one, two = (adapter_of(trained / w / "rlvr_lora") for w in ("single", way))
    assert set(one) == set(two)
    for key, value in one.items():
        assert (value - two[key]).abs().max() < 1e-5, key
        assert "lora_A" in key or value.abs().max() > 1e-4, key


def adapter_of(folder: Path) -> dict[str, Any]:
    return load_file(folder / "model" / "adapter_model.safetensors")


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", ["rlvr_ppo", "rlvr_ppo_lora"])
def test_ppo_is_that_of_one_process(trained: Path, log_of: Any, name: str, way: str) -> None:
    alone, many = (log_of(trained / w / name) for w in ("single", way))
    assert len(alone) == len(many) == 4
    for key in ("reward", "loss", "value_loss", "kl_completion", "completion_length"):
        expected = [entry[key] for entry in alone if key in entry]
        assert expected
        found = [entry[key] for entry in many if key in entry]
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-5), key
    file = "adapter_model.safetensors" if name.endswith("lora") else "model.safetensors"
    one, two = (load_file(trained / w / name / "model" / file) for w in ("single", way))
    assert set(one) == set(two)
    for key, value in one.items():
        assert (value - two[key]).abs().max() < 1e-5, key


@pytest.mark.parametrize("way", WAYS)
def test_reward_model_loads_as_a_sequence_classifier(trained: Path, way: str) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained / way / "reward" / "model")
    assert model.score.weight.shape == (1, 32)
