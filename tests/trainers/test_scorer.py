"""Numbers for answers equal those of a plain pass over each conversation alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from posttrain import RewardConfig, RewardTrainer
from posttrain.attention import set_attention
from posttrain.errors import DataError, ModelError
from posttrain.models import load_model, load_tokenizer
from posttrain.tokens import Tokenizer, render
from posttrain.trainers.scorer import Scorer, load_reward_model

ROWS: list[dict[str, Any]] = [
    {
        "prompt": [{"role": "user", "content": "What is 12 plus 30?"}],
        "answers": ["42", "43", "12+30=42. The answer is 42."],
    },
    {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Name an animal."},
        ],
        "answers": ["A cat.", "A cat, a dog or a horse.", "A cat."],
    },
    {"prompt": [{"role": "user", "content": "Hi"}], "answers": ["Hello"]},
]


@pytest.fixture(scope="module")
def reward_model(checkpoint: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """A saved reward model with a head of some size."""
    folder = tmp_path_factory.mktemp("reward")
    args = RewardConfig(output_dir=str(folder), report_to=[], disable_tqdm=True)
    rows = [{"prompt_ids": [10, 11], "chosen_ids": [12, 1], "rejected_ids": [13, 1]}]
    from datasets import Dataset

    trainer = RewardTrainer(checkpoint(), args, train_dataset=Dataset.from_list(rows))
    trainer.save_model(str(folder / "model"))
    return str(folder / "model")


def whole(tokenizer: Any, row: dict[str, Any], answer: str) -> tuple[list[int], int]:
    """A conversation up to the end of its answer, and how many tokens the prompt has."""
    turn = {"role": "assistant", "content": answer}
    text = render(tokenizer, [*row["prompt"], turn]).rstrip("\n")
    start = render(tokenizer, row["prompt"], generation_prompt=True)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids, len(tokenizer(start, add_special_tokens=False)["input_ids"])


def flat(values: list[list[float]]) -> list[float]:
    return [value for row in values for value in row]


def test_scores_of_a_reward_model(reward_model: str) -> None:
    scorer = load_reward_model(reward_model)
    plain = AutoModelForSequenceClassification.from_pretrained(reward_model)
    tokenizer = load_tokenizer(reward_model)
    with torch.no_grad():
        expected = [
            plain(torch.tensor([whole(tokenizer, row, answer)[0]])).logits.item()
            for row in ROWS
            for answer in row["answers"]
        ]
    got = scorer(ROWS)
    assert [len(row) for row in got] == [3, 3, 1]
    assert flat(got) == pytest.approx(expected, abs=1e-5)
    assert got[1][0] == got[1][2] != got[1][1]


def test_loaded_sequence_classifiers_score_the_same(reward_model: str) -> None:
    theirs = AutoModelForSequenceClassification.from_pretrained(reward_model)
    before = theirs.config._attn_implementation
    theirs.train()
    got = Scorer.of(theirs)(ROWS)
    assert flat(got) == pytest.approx(flat(load_reward_model(reward_model)(ROWS)), abs=1e-5)
    assert theirs.training and theirs.config._attn_implementation == before


def test_log_probs_of_a_policy_and_implicit_rewards(checkpoint: Callable[..., str]) -> None:
    path, other = checkpoint(), checkpoint(initializer_range=0.12)
    tokenizer = load_tokenizer(path)

    def logp(model: Any, row: dict[str, Any], answer: str) -> tuple[float, int]:
        ids, start = whole(tokenizer, row, answer)
        with torch.no_grad():
            logps = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        taken = [logps[i - 1, ids[i]].item() for i in range(start, len(ids))]
        return sum(taken), len(taken)

    policies = [AutoModelForCausalLM.from_pretrained(p) for p in (path, other)]
    asked = [(row, answer) for row in ROWS for answer in row["answers"]]
    sums = [[logp(model, row, answer) for row, answer in asked] for model in policies]
    first, second = load_model(path), load_model(other)
    summed = flat(Scorer.of(first, tokenizer)(ROWS))
    mean = flat(Scorer.of(first, tokenizer, length_normalise=True)(ROWS))
    implicit = flat(Scorer.of(first, tokenizer, reference=second)(ROWS))
    mine, theirs = sums
    assert summed == pytest.approx([a for a, _ in mine], rel=1e-5)
    assert mean == pytest.approx([a / n for a, n in mine], rel=1e-5)
    assert implicit == pytest.approx(
        [a - b for (a, _), (b, _) in zip(mine, theirs, strict=True)], rel=1e-5, abs=1e-5
    )


def test_batches_do_not_matter(reward_model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import posttrain.trainers.scorer as module

    scorer = load_reward_model(reward_model)
    together = flat(scorer(ROWS))
    monkeypatch.setattr(module, "MAX_TOKENS", 1)
    assert flat(scorer(ROWS)) == pytest.approx(together, abs=1e-5)


def test_answers_beyond_the_context_are_cut_and_counted(reward_model: str) -> None:
    model, tokenizer = load_model(reward_model, head="scalar"), load_tokenizer(reward_model)
    scorer = Scorer(model, Tokenizer(tokenizer, 40))
    long = {**ROWS[0], "answers": ["42", "forty two " * 30]}
    scores = scorer([long])[0]
    assert scorer.cut == 1
    ids, _ = whole(tokenizer, long, long["answers"][1])
    set_attention(model, "sdpa")
    with torch.no_grad():
        expected = model(torch.tensor([ids[:40]])).logits[0, -1, 0].item()
    assert scores[1] == pytest.approx(expected, abs=1e-5)


def test_a_prompt_without_room_for_an_answer_is_told(reward_model: str) -> None:
    model, tokenizer = load_model(reward_model, head="scalar"), load_tokenizer(reward_model)
    scorer = Scorer(model, Tokenizer(tokenizer, 8))
    with pytest.raises(
        DataError, match=r"prompt 'What is 12 plus 30.*context is 8: no answer fits"
    ):
        scorer(ROWS[:1])


def test_a_policy_is_no_reward_model(checkpoint: Callable[..., str]) -> None:
    with pytest.raises(ModelError, match="is not a reward model"):
        load_reward_model(checkpoint())


def test_a_tokenizer_without_a_template_is_refused(reward_model: str, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(reward_model)
    tokenizer.chat_template = None
    with pytest.raises(ModelError, match="has no chat template"):
        Scorer.of(load_model(reward_model, head="scalar"), tokenizer)
