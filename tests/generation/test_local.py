"""Generation in process: the tokens of `model.generate`, with less work."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.attention import NAME
from posttrain.errors import ModelError
from posttrain.generation.local import LocalGenerate, Sampling, eos_ids, generate_ids

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


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "llama"},
        {"kind": "mistral", "sliding_window": 4},
        {"kind": "qwen2"},
        {"kind": "gpt2"},
        {"kind": "llama", "tie_word_embeddings": True},
    ],
    ids=["llama", "mistral with a window", "qwen2", "gpt2", "tied"],
)
def test_greedy_is_generate_token_for_token(
    fields: dict[str, Any], build: Callable[..., Any]
) -> None:
    model = build(**fields)
    for stops in (STOPS, [1]):
        expected = [theirs(model, prompt, stops) for prompt in PROMPTS]
        for size, static in ((1, False), (2, False), (4, False), (2, True), (4, True)):
            done = generate_ids(
                model, PROMPTS, GREEDY, stops, batch_size=size, static_shapes=static
            )
            assert [group[0].ids for group in done] == expected
            assert [group[0].finished for group in done] == [e[-1] in stops for e in expected]
    assert len({len(theirs(model, prompt, STOPS)) for prompt in PROMPTS}) > 1


def test_answers_come_back_in_the_order_of_their_prompts(checkpoint: Callable[..., str]) -> None:
    model = load(checkpoint())
    seen: list[int] = []
    done = generate_ids(
        model,
        PROMPTS,
        GREEDY,
        STOPS,
        batch_size=3,
        on_group=lambda index, group: seen.append(index),
    )
    turned = generate_ids(model, PROMPTS[::-1], GREEDY, STOPS, batch_size=3)
    assert done == turned[::-1]
    assert sorted(seen) == [0, 1, 2, 3]


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


def test_a_prompt_without_tokens(checkpoint: Callable[..., str]) -> None:
    model = load(checkpoint())
    with pytest.raises(ModelError, match="prompt 1 has no tokens"):
        generate_ids(model, [[5], []], GREEDY, [1])
    assert generate_ids(model, [], GREEDY, [1]) == []
