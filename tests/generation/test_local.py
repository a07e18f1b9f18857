"""Generation in process: the tokens of `model.generate`, with less work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.attention import NAME
from posttrain.generation.local import (
    LocalGenerate,
    Sampling,
    eos_ids,
    generate_batch,
    generate_ids,
    pick,
)

PROMPTS = [[10, 11, 12, 13, 14, 15, 16], [20], [30, 31, 32], [40, 41, 42, 43]]
GREEDY = Sampling(max_new_tokens=12, temperature=0)
STOPS = list(range(1, 320, 12))  # so many that the rows end at different steps


def load(folder: str) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def theirs(model: Any, prompt: list[int], stops: list[int]) -> list[int]:
    out = model.generate(
        torch.tensor([prompt]),
        attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
        max_new_tokens=12,
        do_sample=False,
        eos_token_id=stops,
        pad_token_id=0,
    )
    return out[0, len(prompt) :].tolist()


def calls_of(model: Any) -> list[tuple[int, int]]:
    """`(rows, columns)` of every forward pass from now on."""
    shapes: list[tuple[int, int]] = []
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    return shapes


@pytest.mark.parametrize(
    "fields",
    [{}, {"model_type": "mistral", "sliding_window": 4}, {"tie_word_embeddings": True}],
    ids=["llama", "mistral with a window", "tied"],
)
def test_greedy_is_generate_token_for_token(
    fields: dict[str, Any], checkpoint: Callable[..., str]
) -> None:
    model = load(checkpoint(**fields))
    for stops in (STOPS, [1]):
        expected = [theirs(model, prompt, stops) for prompt in PROMPTS]
        for size in (1, 2, 4):
            done = generate_ids(model, PROMPTS, GREEDY, stops, batch_size=size)
            assert [group[0].ids for group in done] == expected
            assert [group[0].finished for group in done] == [e[-1] in stops for e in expected]
    assert len({len(theirs(model, prompt, STOPS)) for prompt in PROMPTS}) > 1


def test_finished_rows_leave_the_batch(checkpoint: Callable[..., str]) -> None:
    model = load(checkpoint())
    lengths = sorted(len(theirs(model, prompt, STOPS)) for prompt in PROMPTS)
    shapes = calls_of(model)
    generate_batch(model, PROMPTS, GREEDY, STOPS)
    assert shapes[0] == (4, 7)
    # one forward per token of the longest answer: the last token is never fed back
    assert len(shapes) == lengths[-1]
    sizes = [rows for rows, _ in shapes]
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < 4


def test_a_prompt_is_prefilled_once_for_all_its_answers(checkpoint: Callable[..., str]) -> None:
    model = load(checkpoint())
    expected = [theirs(model, prompt, STOPS) for prompt in PROMPTS]
    shapes = calls_of(model)
    done = generate_batch(model, PROMPTS, GREEDY, STOPS, num_generations=3)
    assert shapes[0] == (4, 7)
    assert shapes[1][1] == 1
    assert [[c.ids for c in group] for group in done] == [[e] * 3 for e in expected]


def test_sampling_depends_on_its_generator_only(checkpoint: Callable[..., str]) -> None:
    model = load(checkpoint())
    sampling = Sampling(max_new_tokens=8, temperature=1.0)

    def draw(seed: int) -> list[list[list[int]]]:
        generator = torch.Generator().manual_seed(seed)
        done = generate_batch(model, PROMPTS, sampling, STOPS, 4, generator)
        return [[c.ids for c in group] for group in done]

    first = draw(5)
    torch.manual_seed(0)
    assert draw(5) == first
    assert draw(6) != first
    assert len({tuple(ids) for ids in first[0]}) > 1


def test_answers_come_back_in_the_order_of_their_prompts(checkpoint: Callable[..., str]) -> None:
    model = load(checkpoint())
    seen: list[int] = []
    done = generate_ids(model, PROMPTS, GREEDY, STOPS, batch_size=3, progress=seen.append)
    turned = generate_ids(model, PROMPTS[::-1], GREEDY, STOPS, batch_size=3)
    assert done == turned[::-1]
    assert seen == [3, 1]


def test_sampled_frequencies_and_temperature() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0]]).repeat(20_000, 1)
    for temperature in (1.0, 0.5):
        drawn = pick(logits, Sampling(temperature=temperature), torch.Generator().manual_seed(1))
        shares = torch.bincount(drawn, minlength=3) / len(drawn)
        expected = (logits[0] / temperature).softmax(-1)
        assert shares.tolist() == pytest.approx(expected.tolist(), abs=0.015)
    assert pick(logits[:2], Sampling(temperature=0), None).tolist() == [2, 2]


def test_top_p_keeps_the_smallest_set_that_reaches_it() -> None:
    logits = torch.tensor([[0.5, 0.1, 0.3, 0.1]]).log().repeat(20_000, 1)
    generator = torch.Generator().manual_seed(1)
    drawn = pick(logits, Sampling(top_p=0.7), generator)
    shares = torch.bincount(drawn, minlength=4) / len(drawn)
    assert shares.tolist() == pytest.approx([0.625, 0.0, 0.375, 0.0], abs=0.015)
    assert set(pick(logits, Sampling(top_p=0.4), generator).tolist()) == {0}
    assert set(pick(logits, Sampling(top_p=0.99), generator).tolist()) == {0, 1, 2, 3}


def test_a_training_model_comes_back_as_it_was(checkpoint: Callable[..., str]) -> None:
    model = AutoModelForCausalLM.from_pretrained(checkpoint(), attn_implementation=NAME).train()
    done = generate_ids(model, PROMPTS, GREEDY, STOPS)
    assert model.training
    assert model.config._attn_implementation == NAME
    assert done[0][0].ids == theirs(load(checkpoint()), PROMPTS[0], STOPS)


def test_every_eos_of_model_and_tokenizer_counts(
    checkpoint: Callable[..., str], tokenizer: Any
) -> None:
    model = load(checkpoint())
    assert eos_ids(model, tokenizer) == [1]
    model.generation_config.eos_token_id = [7, 5]
    assert eos_ids(model, tokenizer) == [1, 5, 7]
    model.generation_config.eos_token_id = None
    assert eos_ids(model, tokenizer) == [1]


def test_conversations_in_texts_out(checkpoint: Callable[..., str], tokenizer: Any) -> None:
    model = load(checkpoint())
    prompts = [[{"role": "user", "content": text}] for text in ("What is 1 plus 2?", "Hi")]
    texts = LocalGenerate(model, tokenizer, Sampling(12, 0))(prompts)
    for prompt, text in zip(prompts, texts, strict=True):
        ids = tokenizer(f"<|user|>\n{prompt[0]['content']}\n<|assistant|>\n")["input_ids"]
        expected = theirs(model, ids, [1])
        assert text == tokenizer.decode(expected, skip_special_tokens=True)
