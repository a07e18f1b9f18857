"""Reward functions by name, by path and as functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset
from transformers import AutoModelForSequenceClassification

from posttrain import RewardConfig, RewardTrainer, RLVRConfig, RLVRTrainer
from posttrain.errors import ModelError, RecipeError, VerifierError
from posttrain.generation.local import Completion
from posttrain.trainers.rewards import RewardModel, Rewards

PROMPTS = [[{"role": "user", "content": "Name an animal."}], [{"role": "user", "content": "Hi"}]]
TEXTS = [["A cat.", "A dog or a horse."], ["Hello", "Hi"]]


@pytest.fixture(scope="module")
def reward_model(checkpoint: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a reward model, as its trainer writes it."""
    folder = tmp_path_factory.mktemp("reward")
    args = RewardConfig(output_dir=str(folder), report_to=[], disable_tqdm=True)
    rows = [{"prompt_ids": [10, 11], "chosen_ids": [12, 1], "rejected_ids": [13, 1]}]
    trainer = RewardTrainer(checkpoint(), args, train_dataset=Dataset.from_list(rows))
    trainer.save_model(str(folder / "model"))
    return str(folder / "model")


def total(rewards: Rewards) -> torch.Tensor:
    rows = [{"prompt": prompt, "verifier": "x", "ground_truth": "y"} for prompt in PROMPTS]
    completions = [[Completion([5], True)] * 2] * 2
    return rewards(rows, TEXTS, completions)


def test_a_path_and_a_loaded_model_score_alike(reward_model: str) -> None:
    scores = total(Rewards.of(reward_model))
    assert scores.shape == (2, 2) and len(set(scores.flatten().tolist())) == 4
    theirs = AutoModelForSequenceClassification.from_pretrained(reward_model)
    torch.testing.assert_close(total(Rewards.of(theirs)), scores, rtol=0, atol=1e-5)


def test_scores_of_several_functions_add_up(reward_model: str) -> None:
    def twos(completions: Any, **_: Any) -> list[float]:
        return [2.0] * len(completions)

    both = total(Rewards.of([reward_model, twos]))
    torch.testing.assert_close(both, total(Rewards.of(reward_model)) + 2)


def test_weights_and_the_rows_own_verifier(reward_model: str) -> None:
    def twos(completions: Any, **_: Any) -> list[float]:
        return [2.0] * len(completions)

    rewards = Rewards.of([twos, "verifier", "gsm8k", twos], [0.5, 3, 10, 1])
    rows = [{"prompt": PROMPTS[0], "verifier": "string_match", "ground_truth": "42"}]
    texts, completions = [["42", "41"]], [[Completion([5], True)] * 2]
    scores = rewards.each(rows, texts, completions)
    assert scores.tolist() == [[[2, 2]], [[1, 0]], [[1, 0]], [[2, 2]]]
    assert rewards(rows, texts, completions).tolist() == [[0.5 * 2 + 3 + 10 + 2, 0.5 * 2 + 2]]
    assert rewards.verdicts(scores).tolist() == [[[1, 0]], [[1, 0]]]
    assert rewards.names == ("twos", "verifier", "gsm8k", "twos-2")
    assert rewards.defaults == {}  # the rows must name their verifier
    with pytest.raises(RecipeError, match="got 1 for 2 of `reward_funcs`"):
        Rewards.of(["gsm8k", "math"], [1])


def test_a_verifier_is_not_mistaken_for_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "math").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Rewards.of("math").functions == ("math",)


def test_a_prompt_is_forwarded_once(reward_model: str) -> None:
    model = RewardModel.of(reward_model)
    seen = []
    hook = model.scorer.model.base_model.register_forward_pre_hook(
        lambda _, args, kwargs: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    answer = [{"role": "assistant", "content": "A cat."}]
    model(prompts=[PROMPTS[0]], completions=[answer])
    model(prompts=[PROMPTS[0]] * 8, completions=[answer] * 8)
    hook.remove()
    one, eight = seen
    ids = model.scorer.group({"prompt": PROMPTS[0], "answers": ["A cat.", "A dog."]}).prompt_ids
    assert eight == one + 7 * (one - len(ids))


def test_rows_need_no_verifier_beside_a_reward_model(reward_model: str) -> None:
    assert Rewards.of(reward_model).defaults == {"verifier": "reward_funcs", "ground_truth": ""}


def test_a_name_that_is_no_verifier_and_no_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VerifierError, match="did you mean 'gsm8k'"):
        Rewards.of("gsm8")
    with pytest.raises(ModelError, match="does not exist"):
        Rewards.of(str(tmp_path / "nothing"))


def test_rlvr_trains_against_a_reward_model(
    reward_model: str, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    args = RLVRConfig(
        output_dir=str(tmp_path),
        num_generations=4,
        per_device_train_batch_size=8,
        max_completion_length=8,
        max_steps=1,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    rows = Dataset.from_list([{"prompt": prompt} for prompt in PROMPTS])
    trainer = RLVRTrainer(checkpoint(), reward_model, args, train_dataset=rows)
    seen: list[Any] = []
    trainer.on_rollout = seen.extend
    trainer.train()
    judge = RewardModel.of(reward_model)
    assert len(seen) == 2
    for rollout in seen:
        texts = [trainer.text(c) for c in rollout.completions]
        prompt = next(p for p in PROMPTS if p[0]["content"] in str(rollout.row["prompt"]))
        [expected] = judge.scorer([{"prompt": prompt, "answers": texts}])
        assert rollout.rewards.tolist() == pytest.approx(expected, abs=1e-5)
    logged = next(entry for entry in trainer.state.log_history if "loss" in entry)
    mean = sum(float(r.rewards.mean()) for r in seen) / 2
    assert logged["reward"] == pytest.approx(mean, abs=1e-5)
