"""RLVR: what is rolled out, what is credited, what reaches the model, and that reward goes up."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from datasets import Dataset

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.errors import DataError, RecipeError, VerifierError
from posttrain.trainers.rlvr import Rollout

PROBLEMS = [
    {"prompt": f"Say {n}.", "ground_truth": str(n), "verifier": "string_match"} for n in range(8)
]


def config(out: Path, **more: Any) -> RLVRConfig:
    values = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 6,
        "loss_reduction": "token_mean",
        "max_steps": 1,
        "optim": "sgd",
        "learning_rate": 0.01,
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
    }
    return RLVRConfig(output_dir=str(out), **{**values, **more})


def entries(trainer: Any) -> list[dict[str, float]]:
    return [entry for entry in trainer.state.log_history if "loss" in entry]


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of even token ids: a random policy scores about a half."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def always_one(completions: list[Any], **_: Any) -> list[float]:
    return [1.0] * len(completions)


def every_other(completions: list[Any], **_: Any) -> list[float]:
    """No group's rewards are equal."""
    return [float(i % 2) for i in range(len(completions))]


def watched(trainer: RLVRTrainer) -> list[Rollout]:
    """Every rollout that the trainer makes from now on."""
    seen: list[Rollout] = []
    trainer.on_rollout = seen.extend
    return seen


def test_the_constructor_takes_what_trl_takes() -> None:
    from trl import GRPOTrainer

    theirs = list(inspect.signature(GRPOTrainer.__init__).parameters)
    ours = list(inspect.signature(RLVRTrainer.__init__).parameters)
    assert ours[1:4] == theirs[1:4] == ["model", "reward_funcs", "args"]


def test_reward_goes_up(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    args = config(
        tmp_path,
        per_device_train_batch_size=32,
        gradient_accumulation_steps=1,
        num_generations=8,
        max_steps=20,
        optim="adamw_torch",
        learning_rate=1e-2,
    )
    trainer = RLVRTrainer(checkpoint(), even_share, args, train_dataset=PROBLEMS)
    trainer.train()
    rewards = [entry["reward"] for entry in entries(trainer)]
    assert rewards[0] < 0.65
    assert sum(rewards[-3:]) / 3 > rewards[0] + 0.25


def test_the_verifier_of_each_row_scores_it(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    from posttrain import get_verifier

    trainer = RLVRTrainer(checkpoint(), args=config(tmp_path), train_dataset=PROBLEMS)
    seen = watched(trainer)
    trainer.train()
    assert len(seen) == 2
    verifier = get_verifier("string_match")
    for rollout in seen:
        assert len(rollout.completions) == 4
        for completion, reward in zip(rollout.completions, rollout.rewards, strict=True):
            text = trainer.text(completion)
            assert reward == verifier(text, rollout.row["ground_truth"]).score


def test_trl_reward_functions_run_unchanged(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    from trl.rewards import think_format_reward

    asked: dict[str, Any] = {}

    def spy(prompts: Any, completions: Any, solution: Any, trainer_state: Any, **rest: Any) -> Any:
        asked.update(prompts=prompts, completions=completions, solution=solution, rest=rest)
        asked["step"] = trainer_state.global_step
        return [None if s == "odd" else 0.5 for s in solution]

    rows = [
        {"prompt": [{"role": "user", "content": f"Say {n}."}], "solution": ("even", "odd")[n % 2]}
        for n in range(4)
    ]
    trainer = RLVRTrainer(
        checkpoint(),
        [think_format_reward, spy],
        config(tmp_path),
        train_dataset=Dataset.from_list(rows),
    )
    trainer.train()
    assert asked["step"] == 0
    assert [type(p) for p in asked["prompts"]] == [list] * 8
    assert asked["prompts"][0] == asked["prompts"][3] != asked["prompts"][4]
    assert asked["completions"][0][0]["role"] == "assistant"
    assert len(asked["rest"]["completion_ids"]) == len(asked["solution"]) == 8
    share = asked["solution"].count("even") / 8
    assert entries(trainer)[0]["reward"] == pytest.approx(0.5 * share)


def test_groups_with_equal_rewards_never_reach_the_model(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = RLVRTrainer(checkpoint(), always_one, config(tmp_path), train_dataset=PROBLEMS)
    before = {n: p.clone() for n, p in trainer.model.state_dict().items()}
    trained: list[int] = []
    inner = trainer.loss_sum
    trainer.loss_sum = lambda m, b: (trained.append(len(b["keep"])), inner(m, b))[1]
    trainer.train()
    assert trained == [0, 0]
    assert entries(trainer)[0]["useful_groups"] == 0.0
    assert entries(trainer)[0]["loss"] == 0.0
    for name, weight in trainer.model.state_dict().items():
        assert torch.equal(weight, before[name])


def test_only_useful_groups_are_packed_and_all_completions_count(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    def some(prompts: Any, completions: Any, **_: Any) -> list[float]:
        """The first group of the batch is mixed, the second one all alike."""
        return [1.0, 0.0, 0.0, 1.0, *[1.0] * 4][: len(completions)]

    trainer = RLVRTrainer(checkpoint(), some, config(tmp_path), train_dataset=PROBLEMS)
    seen = watched(trainer)
    batches: list[Any] = []
    inner = trainer.loss_sum
    trainer.loss_sum = lambda m, b: (batches.append(b), inner(m, b))[1]
    trainer.train()
    lengths = [[len(c.ids) for c in rollout.completions] for rollout in seen]
    assert batches[0]["tokens"].tolist() == lengths[0]
    assert len(batches[1]["keep"]) == 0
    assert trainer.num_items(batches[0]) == sum(lengths[0]) + sum(lengths[1])
    # the prompt stands once, and its four answers after it
    prompt = len(seen[0].row["prompt_ids"])
    assert batches[0]["input_ids"].shape == (1, prompt + sum(lengths[0]))


def test_gradient_equals_a_plain_policy_gradient(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    trainer = RLVRTrainer(
        checkpoint(), even_share, config(tmp_path, temperature=0.7), train_dataset=PROBLEMS
    )
    seen = watched(trainer)
    trainer.train()
    start = AutoModelForCausalLM.from_pretrained(checkpoint())
    loss, tokens = 0.0, sum(len(c.ids) for r in seen for c in r.completions)
    for rollout in seen:
        rewards = rollout.rewards
        advantages = (rewards - rewards.mean()) / (rewards.std() + 1e-8)
        for completion, advantage in zip(rollout.completions, advantages, strict=True):
            prompt = rollout.row["prompt_ids"]
            logits = start(torch.tensor([prompt + completion.ids])).logits[0, len(prompt) - 1 : -1]
            logps = (logits / 0.7).log_softmax(-1)
            chosen = logps.gather(1, torch.tensor(completion.ids)[:, None])
            loss = loss - advantage * chosen.sum() / tokens
    loss.backward()
    for (name, before), after in zip(
        start.named_parameters(), trainer.model.parameters(), strict=True
    ):
        expected = before.detach() - 0.01 * before.grad
        torch.testing.assert_close(after.detach(), expected, rtol=1e-4, atol=1e-6, msg=name)


def test_a_cut_off_completion_gets_the_reward_for_it(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    args = config(tmp_path, missing_eos_reward=-10.0, max_completion_length=3)
    trainer = RLVRTrainer(checkpoint(), always_one, args, train_dataset=PROBLEMS)
    trainer.model.generation_config.eos_token_id = list(range(1, 320, 4))
    seen = watched(trainer)
    trainer.train()
    pairs = [
        (completion.finished, reward.item())
        for rollout in seen
        for completion, reward in zip(rollout.completions, rollout.rewards, strict=True)
    ]
    assert set(pairs) == {(True, 1.0), (False, -10.0)}


def test_reward_scale_and_several_functions_add_up(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = RLVRTrainer(
        checkpoint(),
        [always_one, always_one],
        config(tmp_path, reward_scale=5.0),
        train_dataset=PROBLEMS,
    )
    seen = watched(trainer)
    trainer.train()
    assert seen[0].rewards.tolist() == [10.0] * 4


def test_steps_that_share_a_rollout_remember_the_sampling_policy(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    args = config(tmp_path, num_mini_batches=2, max_steps=3, learning_rate=0.2)
    trainer = RLVRTrainer(checkpoint(), even_share, args, train_dataset=PROBLEMS)
    calls: list[int] = []
    trainer.on_rollout = lambda rollouts: calls.append(len(rollouts))
    gaps: list[float] = []
    inner = trainer.loss_sum

    def spy(model: Any, batch: Any) -> torch.Tensor:
        with torch.no_grad():
            now = trainer.logps(model, batch)
        gaps.append((now - batch["old_logps"]).abs().max().item() if len(now) else 0.0)
        return inner(model, batch)

    trainer.loss_sum = spy
    trainer.train()
    assert calls == [4, 4]  # two rollouts of two steps' prompts each, for three steps
    assert max(gaps[:2]) < 1e-5
    assert max(gaps[2:4]) > 1e-3
    assert max(gaps[4:]) < 1e-5


def test_the_first_pass_over_a_rollout_says_its_old_log_probs(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """Where the sampler's are not exact; the updates are those with log-probs computed before."""

    def trained(before: bool) -> tuple[torch.Tensor, int]:
        args = config(tmp_path, num_ppo_epochs=3, max_steps=6, learning_rate=0.05)
        trainer = RLVRTrainer(checkpoint(), even_share, args, train_dataset=PROBLEMS)
        logps, fill, forwards = trainer.logps, trainer.fill, []

        def counted(*args: Any, **kwargs: Any) -> torch.Tensor:
            forwards.append(1)
            return logps(*args, **kwargs)

        def filled(batches: list[Any], fresh: bool) -> None:
            fill(batches, fresh)
            assert not any("old_logps" in batch for batch in batches)
            with torch.no_grad():
                for batch in batches if before else []:
                    batch["old_logps"] = counted(trainer.model_wrapped, batch)

        trainer.samples_exactly = lambda batches: False  # type: ignore[method-assign]
        trainer.logps, trainer.fill = counted, filled  # type: ignore[method-assign]
        trainer.train()
        return torch.cat([p.detach().flatten() for p in trainer.model.parameters()]), len(forwards)

    (weights, forwards), (expected, more) = trained(before=False), trained(before=True)
    torch.testing.assert_close(weights, expected, rtol=0, atol=1e-6)
    assert more == forwards * 4 // 3


def test_the_kl_term_starts_at_zero_and_holds_the_policy_back(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    drift = []
    for beta in (1e-6, 1.0):
        args = config(tmp_path, beta=beta, max_steps=24, optim="adamw_torch", learning_rate=5e-3)
        trainer = RLVRTrainer(checkpoint(), even_share, args, train_dataset=PROBLEMS)
        trainer.train()
        assert entries(trainer)[0]["kl"] == pytest.approx(0.0, abs=1e-9)
        drift.append(entries(trainer)[-1]["kl"])
    assert 0 < drift[1] < 0.5 * drift[0]


def test_a_controller_moves_the_weight_between_rollouts(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """No KL at first: 0.1 x (1 - 0.2 x 8 completions / 16) is the weight in the second rollout."""
    args = config(
        tmp_path,
        beta=0.1,
        kl_in="reward",
        kl_controller={"name": "adaptive", "target": 5.0, "horizon": 16},
        num_ppo_epochs=2,
        max_steps=4,
    )
    trainer = RLVRTrainer(checkpoint(), even_share, args, train_dataset=PROBLEMS)
    trainer.train()
    found = [entry["kl_beta"] for entry in entries(trainer) if "kl_beta" in entry]
    assert found == pytest.approx([0.1, 0.09])
    kl = [entry["kl_completion"] for entry in entries(trainer) if "kl_completion" in entry]
    assert kl[0] == pytest.approx(0.0, abs=1e-4)


def test_a_rollout_is_trained_on_several_times(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """8 prompts, 2 a step: 4 steps of 2 rollouts an epoch, each taken three times."""
    args = config(tmp_path, num_mini_batches=2, num_ppo_epochs=3, max_steps=-1, num_train_epochs=1)
    trainer = RLVRTrainer(checkpoint(), every_other, args, train_dataset=PROBLEMS)
    seen, steps = watched(trainer), []
    inner = trainer.loss_sum
    trainer.loss_sum = lambda m, b: (steps.append(b["number"].tolist()), inner(m, b))[1]
    trainer.train()
    assert trainer.state.global_step == 12
    assert len(seen) == 8
    assert sorted(rollout.row["index"] for rollout in seen) == list(range(8))
    assert steps[:4] == steps[4:8] == steps[8:12] == [list(range(i, i + 4)) for i in (0, 4, 8, 12)]


def test_adapters_are_off_in_the_reference(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    from posttrain.models import Adapter

    trainer = RLVRTrainer(
        checkpoint(),
        even_share,
        config(tmp_path, beta=0.1, max_steps=2, learning_rate=1.0),
        train_dataset=PROBLEMS,
        peft_config=Adapter(r=2),
    )
    trainer.train()
    assert trainer.reference.copy is None
    assert entries(trainer)[0]["kl"] == pytest.approx(0.0, abs=1e-9)
    assert entries(trainer)[1]["kl"] > 1e-6


def test_rollouts_depend_on_the_seed_and_on_nothing_else(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    drawn = []
    for seed, noise in ((3, 0), (3, 1), (4, 0)):
        trainer = RLVRTrainer(
            checkpoint(),
            even_share,
            config(tmp_path, seed=seed, data_seed=0),
            train_dataset=PROBLEMS,
        )
        seen = watched(trainer)
        torch.manual_seed(noise)
        trainer.train()
        drawn.append([c.ids for rollout in seen for c in rollout.completions])
    assert drawn[0] == drawn[1] != drawn[2]


def test_user_mistakes(checkpoint: Callable[..., str], tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="not whole groups of 3"):
        config(tmp_path, num_generations=3)
    with pytest.raises(VerifierError, match="gsm8k"):
        RLVRTrainer(checkpoint(), "gsm8", config(tmp_path), train_dataset=PROBLEMS)
    with pytest.raises(DataError, match="row 0: a problem needs a `ground_truth`"):
        RLVRTrainer(checkpoint(), args=config(tmp_path), train_dataset=[{"prompt": "a"}])
    trainer = RLVRTrainer(
        checkpoint(), lambda completions, **_: [1.0], config(tmp_path), train_dataset=PROBLEMS
    )
    with pytest.raises(DataError, match="returned 1 scores for 8 completions"):
        trainer.train()
