from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import yaml

from posttrain.recipe import DPO, RLVR, SFT, Eval, Reward, Source, Task, load_recipe

ROOT = Path(__file__).parents[2]


SHIPPED = ["tulu.yaml", "tulu31.yaml", "tiny.yaml", "tiny_ppo.yaml", "examples/local_files.yaml"]


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_load_without_a_warning(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_recipe(ROOT / "recipes" / name)


def test_tulu_is_exact():
    recipe = load_recipe(ROOT / "recipes/tulu.yaml")
    pairs = (Source(path="allenai/llama-3.1-tulu-3-8b-preference-mixture"),)
    assert recipe.model_name_or_path == "meta-llama/Llama-3.1-8B"
    assert (recipe.chat_template, recipe.eval) == ("tulu", Eval(suite="tulu3-dev"))
    assert recipe.stages == (
        SFT(
            bad_rows="drop",
            datasets=(Source(path="allenai/tulu-3-sft-mixture"),),
            loss_reduction="sum",
            max_length=4096,
            batch_size=128,
            learning_rate=5e-6,
            warmup_ratio=0.03,
            num_train_epochs=2,
            seed=123,
        ),
        DPO(
            bad_rows="drop",
            datasets=pairs,
            loss={"name": "dpo", "length_normalise": True, "beta": 5},
            max_length=2048,
            batch_size=128,
            learning_rate=5e-7,
            warmup_ratio=0.1,
            gradient_checkpointing=True,
            seed=42,
        ),
        Reward(
            start="sft",
            bad_rows="drop",
            datasets=pairs,
            max_length=2048,
            truncation="drop",
            batch_size=256,
            learning_rate=3e-6,
            adam_epsilon=1e-5,
            weight_decay=0.01,
            gradient_checkpointing=True,
            seed=1,
        ),
        RLVR(
            start="dpo",
            bad_rows="drop",
            datasets=(Source(path="allenai/RLVR-GSM-MATH-IF-Mixed-Constraints"),),
            remap_verifier={"ifeval": "ifeval_old"},
            max_wrong_gold=0.5,
            max_prompt_length=2048,
            max_completion_length=2048,
            num_generations=1,
            batch_size=224,
            num_ppo_epochs=4,
            max_steps=1784,
            save_steps=400,
            learning_rate=3e-7,
            lr_scheduler_type="constant",
            weight_decay=0.01,
            advantage={"name": "gae", "gamma": 1.0, "lam": 0.95, "whiten": True},
            value_model="reward",
            loss={"name": "ppo", "epsilon": 0.2},
            loss_reduction="token_mean",
            beta=0.05,
            kl_in="reward",
            kl_estimator="k1",
            reward_scale=10,
            missing_eos_reward=-10.0,
            gradient_checkpointing=True,
            seed=3,
        ),
    )


def test_tulu_3_1_is_exact():
    stage = load_recipe(ROOT / "recipes/tulu31.yaml").stages[-1]
    assert stage == RLVR(
        start="dpo",
        bad_rows="drop",
        datasets=(Source(path="allenai/RLVR-GSM-MATH-IF-Mixed-Constraints"),),
        remap_verifier={"ifeval": "ifeval_old"},
        max_wrong_gold=0.5,
        max_prompt_length=2048,
        max_completion_length=2048,
        num_generations=16,
        batch_size=768,
        num_mini_batches=2,
        max_steps=3840,
        save_steps=80,
        learning_rate=5e-7,
        lr_scheduler_type="constant",
        weight_decay=0.01,
        advantage={"name": "group", "scale": "std"},
        loss={"name": "grpo", "epsilon": 0.2},
        loss_reduction="token_mean",
        beta=0.01,
        kl_estimator="k3",
        reward_scale=10,
        missing_eos_reward=0.0,
        seed=1,
    )


def test_local_files_name_their_own_columns():
    recipe = load_recipe(ROOT / "recipes/examples/local_files.yaml")
    assert [stage.kind for stage in recipe.stages] == ["sft", "dpo", "reward", "rlvr"]
    columns = [stage.datasets[0].columns for stage in recipe.stages]
    assert columns[0] == {"prompt": "prompt", "completion": "response"}
    assert columns[3] == {"prompt": "question", "ground_truth": "answer"}
    assert recipe.stages[3].datasets[0].verifier == "gsm8k"
    assert recipe.eval == Eval(
        tasks=(Task(name="gsm8k", path="data/gsm8k_test.jsonl", columns=columns[3]),)
    )


def test_yaml_blocks_of_the_reference_load(tmp_path):
    blocks = (ROOT / "docs/recipes.md").read_text(encoding="utf-8").split("```yaml\n")[1:]
    assert blocks
    for block in blocks:
        path = tmp_path / "block.yaml"
        path.write_text(block.split("```")[0])
        assert load_recipe(path).name == yaml.safe_load(path.read_text())["name"]
