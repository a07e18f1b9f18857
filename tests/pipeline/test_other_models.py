"""Models that a stage names beside the one it trains: a reference, reward models."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from posttrain import DPOConfig, DPOTrainer, run
from posttrain.errors import ModelError, RecipeError, RunError
from posttrain.pipeline import check, read_recipe
from posttrain.scratch import new_model, new_tokenizer
from posttrain.trainers.reference import FILE

PAIRS = [
    {"prompt": "Name an animal.", "chosen": f"A cat, {n}.", "rejected": "A car."} for n in range(8)
]
PROBLEMS = [{"prompt": f"What is {n} plus 2?"} for n in range(8)]
SUMS = [{**row, "ground_truth": str(n + 2), "verifier": "gsm8k"} for n, row in enumerate(PROBLEMS)]
SHORT = {"max_steps": 1, "batch_size": 8, "max_length": 128}
SHAPE = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
REWARD = {"reward": {"datasets": ["pairs.jsonl"], **SHORT}}


def rlvr(**more: Any) -> dict[str, Any]:
    own = {"num_generations": 4, "max_prompt_length": 96, "max_completion_length": 8}
    return {"rlvr": {"datasets": ["problems.jsonl"], **SHORT, **own, **more}}


def dpo(**more: Any) -> dict[str, Any]:
    return {"dpo": {"datasets": ["pairs.jsonl"], "learning_rate": 1e-3, **SHORT, **more}}


@pytest.fixture
def write(
    checkpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Path]:
    """`write(stages)`: the path of a recipe of them, in a folder of its own with their rows."""
    monkeypatch.chdir(tmp_path)
    rows = {"pairs": PAIRS, "problems": PROBLEMS, "sums": SUMS}
    for name, some in rows.items():
        text = "".join(json.dumps(row) + "\n" for row in some)
        (tmp_path / f"{name}.jsonl").write_text(text, encoding="utf-8")

    def _write(*stages: dict[str, Any], model: str | None = None) -> Path:
        head = {"name": "r", "model_name_or_path": model or checkpoint(), "chat_template": "tulu"}
        text = yaml.safe_dump({**head, "stages": list(stages)}, sort_keys=False)
        (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
        return tmp_path / "r.yaml"

    return _write


def logged(folder: Path, stage: str) -> list[dict[str, Any]]:
    rows = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [row for row in rows if row["stage"] == stage and "loss" in row]


# --- the reference of dpo -------------------------------------------------------------------------


def test_a_stage_or_the_base_is_the_reference(
    write: Callable[..., Path], checkpoint: Callable[..., str]
) -> None:
    second = {**dpo(ref_model_name_or_path="base")["dpo"], "name": "again"}
    folder = run(write(dpo(), {"dpo": second}))
    [first], [again] = logged(folder, "dpo"), logged(folder, "again")
    assert first["rewards/margins"] == pytest.approx(0, abs=1e-6)  # it is its own reference
    assert abs(again["rewards/margins"]) > 1e-3  # one step away from the base
    tables = [load_file(folder / name / FILE)["train"] for name in ("1-dpo", "2-again")]
    # both are of the base, whose rows stand in the order of each stage's own shuffle
    torch.testing.assert_close(tables[0].sort(0).values, tables[1].sort(0).values)


def test_a_folder_is_the_reference(
    write: Callable[..., Path], checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    other = checkpoint(initializer_range=0.12)
    folder = run(write(dpo(ref_model_name_or_path=other)))
    rows = [dict(row) for row in PAIRS]
    args = DPOConfig(output_dir=str(tmp_path / "own"), report_to=[], max_length=128)
    trainer = DPOTrainer(checkpoint(), other, args, train_dataset=rows)
    expected = trainer.evaluate(rows)["eval_loss"]
    [entry] = logged(folder, "dpo")
    assert entry["loss"] == pytest.approx(expected, abs=1e-5)
    assert abs(entry["loss"] - torch.log(torch.tensor(2.0)).item()) > 1e-4


def test_a_changed_reference_is_another_stage(
    write: Callable[..., Path], checkpoint: Callable[..., str]
) -> None:
    run(write(dpo(ref_model_name_or_path=checkpoint(initializer_range=0.12))))
    with pytest.raises(RunError, match="ref_model_name_or_path"):
        run(write(dpo(ref_model_name_or_path=checkpoint(initializer_range=0.11))))


def test_a_reference_that_cannot_be_one_is_refused(
    write: Callable[..., Path], checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    def faults(**more: Any) -> str:
        path = write(dpo(**more))
        with pytest.raises(RecipeError) as caught:
            check(read_recipe(path), path)
        return str(caught.value)

    at = r"stages[0].dpo.ref_model_name_or_path: "
    assert at + "`sft` is nothing: it may be `base`" in faults(ref_model_name_or_path="sft")
    assert at + "model folder './no'" in faults(ref_model_name_or_path="./no")
    found = faults(ref_model_name_or_path="base", loss="simpo")
    assert at + "the loss 'simpo' compares with no reference; remove it" in found
    other_words(tmp_path / "others")
    assert "its tokenizer is another one" in faults(ref_model_name_or_path="others")


def other_words(folder: Path) -> str:
    """The path of a model with a tokenizer of its own."""
    words = new_tokenizer(["zebra yak " * 9] * 9, 300, "tulu")
    new_model({"model_type": "llama", **SHAPE}, words, folder, seed=1)
    return str(folder)


def test_a_reference_with_other_words_is_refused_where_the_run_makes_the_tokenizer(
    write: Callable[..., Path], tmp_path: Path
) -> None:
    other_words(tmp_path / "others")
    text = {"datasets": [{"path": "generated:tiny_text", "num_samples": 50}], **SHORT}
    pretrain = {"pretrain": {"model": {"model_type": "llama", **SHAPE}, **text}}
    path = write(pretrain, dpo(ref_model_name_or_path="others"))
    recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    del recipe["model_name_or_path"]
    path.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    with pytest.raises(RecipeError, match=r"stages\[1\]\.dpo\.ref_model.*its tokenizer is another"):
        run(path)
    assert not (tmp_path / "runs/r/1-pretrain/model").exists()  # nothing was trained


def test_a_reference_with_other_words_is_refused_by_the_trainer(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    other = other_words(tmp_path / "others")
    args = DPOConfig(output_dir=str(tmp_path), report_to=[])
    with pytest.raises(ModelError, match=r"reference .*others': its tokenizer is another one"):
        DPOTrainer(checkpoint(), other, args, train_dataset=[dict(row) for row in PAIRS])


# --- reward models --------------------------------------------------------------------------------


def test_an_earlier_stage_rewards(write: Callable[..., Path]) -> None:
    """Rows without ground truth or verifier are enough for it."""
    folder = run(write(REWARD, rlvr(reward_funcs=["reward"])))
    [entry] = logged(folder, "rlvr")
    assert entry["reward"] != 0
    samples = (folder / "2-rlvr/samples.txt").read_text()
    assert "--- ground truth (reward_funcs)" in samples


def test_weights_and_the_rows_own_verifier(write: Callable[..., Path]) -> None:
    mixed = rlvr(
        datasets=["sums.jsonl"], reward_funcs=["reward", "verifier"], reward_weights=[0.5, 2]
    )
    folder = run(write(REWARD, mixed))
    [entry] = logged(folder, "rlvr")
    total = 0.5 * entry["rewards/1-reward"] + 2 * entry["rewards/verifier"]
    assert entry["reward"] == pytest.approx(total, abs=1e-5)
    assert entry["pass_rate"] == entry["rewards/verifier"] == 0
    assert "--- ground truth (gsm8k)" in (folder / "2-rlvr/samples.txt").read_text()


def test_a_reward_stage_must_have_been_run(write: Callable[..., Path]) -> None:
    path = write(REWARD, rlvr(reward_funcs=["reward"]))
    with pytest.raises(RunError, match="stage rlvr asks for stage reward, which has not been run"):
        run(path, stage="rlvr")


def test_another_reward_model_is_another_stage(write: Callable[..., Path]) -> None:
    run(write(REWARD, rlvr(reward_funcs=["reward"])))
    moved = {"reward": {**REWARD["reward"], "learning_rate": 1e-3}}
    path = write(moved, rlvr(reward_funcs=["reward"]))
    with pytest.raises(RunError, match=r"1-reward was trained with other settings \(learning_rate"):
        run(path)
    with pytest.raises(RunError, match=r"2-rlvr was trained with other settings \(models"):
        run(path, stage="rlvr")


def test_a_reward_that_cannot_be_one_is_refused(
    write: Callable[..., Path], checkpoint: Callable[..., str]
) -> None:
    path = write(rlvr(reward_funcs=["gsm8", checkpoint(), "gsm8k", "verifier"]))
    with pytest.raises(RecipeError) as caught:
        check(read_recipe(path), path)
    one, two = (fault.message for fault in caught.value.faults)
    assert {fault.path for fault in caught.value.faults} == {"stages[0].rlvr.reward_funcs"}
    assert one.startswith("`gsm8` is nothing: it may be verifiers (verifier, ")
    assert two.endswith("is not a reward model; give one")


# --- value models ---------------------------------------------------------------------------------

PPO = {"advantage": "gae", "loss": "ppo", "num_ppo_epochs": 2, "num_generations": 1}


@pytest.mark.parametrize("value", [None, "random", "reward"])
def test_a_value_model_starts_from_what_the_recipe_says(
    write: Callable[..., Path], value: str | None
) -> None:
    ppo = rlvr(datasets=["sums.jsonl"], value_model=value, **{**PPO, "max_steps": 2})
    folder = run(write(REWARD, ppo))
    first, second = logged(folder, "rlvr")
    assert first["value_loss"] > 0
    assert second["value_loss"] > 0
    names = load_file(folder / "2-rlvr/model/model.safetensors").keys()
    assert not any("value_model" in name or "score" in name for name in names)


def test_a_value_model_that_cannot_be_one_is_refused(
    write: Callable[..., Path], checkpoint: Callable[..., str]
) -> None:
    stages = [
        rlvr(name="a", value_model="policy"),
        rlvr(name="b", **PPO, value_model=checkpoint()),
        rlvr(name="c", kl_controller="adaptive"),
    ]
    path = write(*stages)
    with pytest.raises(RecipeError) as caught:
        check(read_recipe(path), path)
    found = {fault.path: fault.message for fault in caught.value.faults}
    assert found["stages[0].rlvr"].startswith("value_model: the advantage 'group' reads no values")
    assert found["stages[1].rlvr.value_model"].endswith("is not a reward model; give one")
    assert found["stages[2].rlvr"].startswith("kl_controller: 'adaptive' steers a KL in the reward")


# --- the best policy by held-out reward -----------------------------------------------------------


def test_the_model_is_the_best_of_the_held_out_evaluations(write: Callable[..., Path]) -> None:
    ppo = rlvr(
        reward_funcs=["reward"],
        learning_rate=0.05,
        eval_fraction=0.25,
        eval_steps=1,
        early_stopping_patience=1,
        load_best_model_at_end=True,
        max_length=128,
        max_steps=8,
    )
    folder = run(write(REWARD, ppo))
    history = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    rewards = [row["eval_reward"] for row in history if "eval_reward" in row]
    assert 2 <= len(rewards) <= 9
    kept = load_file(folder / "2-rlvr/best/model.safetensors")
    model = load_file(folder / "2-rlvr/model/model.safetensors")
    assert all(value.equal(model[name]) for name, value in kept.items())
    steps = json.loads((folder / "report.json").read_text())["stages"][1]["steps"]
    # the first one that is no better is found a step later, and one more ends the run
    worse = next(i for i, pair in enumerate(pairwise(rewards)) if pair[1] <= pair[0])
    assert steps == min(worse + 3, 8)


# --- smoke ----------------------------------------------------------------------------------------


def test_a_smoke_run_needs_none_of_them(write: Callable[..., Path]) -> None:
    path = write(
        dpo(ref_model_name_or_path="org/reference"),
        rlvr(
            reward_funcs=["org/reward", "verifier"],
            datasets=["org/problems"],
            advantage="gae",
            value_model="org/value",
        ),
        model="org/llama",
    )
    folder = run(path, smoke=True)
    assert len(logged(folder, "dpo")) == 2
    assert "rewards/reward" in logged(folder, "rlvr")[0]
