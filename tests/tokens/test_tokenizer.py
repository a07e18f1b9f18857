"""What a `Tokenizer` is: its options, its stop tokens, its fingerprint, and how it travels."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.tokens import Tokenizer, load_template, stop_ids, tokenize

ROWS = [
    {
        "messages": [
            {"role": "user", "content": "What is 1+1?"},
            {"role": "assistant", "content": "It's 2 🙂."},
        ],
        "source": "s",
    }
]


def with_template(tokenizer: Any, name: str | None) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = load_template(name) if name else None
    return other


@pytest.mark.parametrize(
    ("template", "tokens"),
    [
        (None, ["</s>"]),
        ("tulu", ["</s>"]),
        ("zephyr", ["</s>"]),
        ("mistral", ["</s>"]),
        ("llama-3", ["</s>", "<|eot_id|>"]),
        ("chatml", ["</s>", "<|im_end|>"]),
    ],
)
def test_stop_tokens(template: str | None, tokens: list[str], tokenizers: dict[str, Any]) -> None:
    tokenizer = with_template(tokenizers["gpt2"], template)
    assert stop_ids(tokenizer) == sorted(tokenizer.convert_tokens_to_ids(tokens))


def test_an_end_of_turn_that_the_vocabulary_lacks_stops_the_run(tokenizer: Any) -> None:
    """`<|eot_id|>` in five tokens of text, and no EOS: the model would write it and go on."""
    with pytest.raises(DataError, match="EOS is not trained in any row"):
        tokenize(ROWS, "conversation", Tokenizer(with_template(tokenizer, "llama-3"), 256))


def test_a_special_end_of_turn_counts_as_an_end(tokenizers: dict[str, Any]) -> None:
    for name in ("llama-3", "chatml"):
        mine = Tokenizer(with_template(tokenizers["gpt2"], name), 256)
        done = tokenize(ROWS, "conversation", mine)
        assert done.counts["s"]["without_eos"] == 0
        assert done.rows[0]["labels"][-1 if name == "llama-3" else -2] == mine.stop_ids[1]


def test_the_fingerprint_is_that_of_the_output(tokenizers: dict[str, Any]) -> None:
    base = Tokenizer(tokenizers["gpt2"], 256)
    other_pad = copy.deepcopy(tokenizers["gpt2"])
    other_pad.add_special_tokens({"bos_token": "<s>"})
    others = [
        replace(base, max_length=255),
        replace(base, truncation="drop"),
        replace(base, max_prompt_length=9),
        replace(base, last_turn_only=True),
        replace(base, train_on_prompt=True),
        replace(base, tokenizer=with_template(tokenizers["gpt2"], "chatml")),
        replace(base, tokenizer=with_template(tokenizers["gpt2"], None)),
        replace(base, tokenizer=other_pad),
        replace(base, tokenizer=tokenizers["digits"]),
    ]
    assert len({t.fingerprint() for t in [base, *others]}) == 10
    used = copy.deepcopy(tokenizers["gpt2"])
    used(["a", "b c"], padding=True, truncation=True, max_length=4)  # leaves its settings behind
    assert Tokenizer(used, 256).fingerprint() == base.fingerprint()
    assert len(base.fingerprint()) == 64


@pytest.mark.parametrize("family", ["gpt2", "llama3", "metaspace"])
def test_it_travels_light(family: str, tokenizers: dict[str, Any], tmp_path: Path) -> None:
    """Another process makes the same tokens and never imports transformers."""
    mine = Tokenizer(tokenizers[family], 256)
    rows = [*ROWS, {"messages": [*ROWS[0]["messages"][:1]] * 2, "source": "s"}]
    again = pickle.loads(pickle.dumps(mine))
    assert again.tokenizer is None
    assert again.fingerprint() == mine.fingerprint()
    assert again.batch("conversation", rows).table.equals(mine.batch("conversation", rows).table)
    (tmp_path / "in").write_bytes(pickle.dumps((mine, rows)))
    program = (
        "import pickle, sys; sent, rows = pickle.load(open('in', 'rb'))\n"
        "ids = sent.batch('conversation', rows).table['input_ids'].to_pylist()\n"
        "print(ids, [m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    ids = mine.batch("conversation", rows).table["input_ids"].to_pylist()
    assert done.stdout.strip() == f"{ids} []"


def test_rows_one_by_one(tokenizers: dict[str, Any]) -> None:
    mine = Tokenizer(tokenizers["gpt2"], 256)
    out = mine.each("conversation", [*ROWS, {"messages": []}, *ROWS])
    assert isinstance(out[1], DataError)
    assert out[0] == out[2] and list(out[0]) == ["input_ids", "labels"]
    assert mine.conversation(ROWS) == [out[0]]


def test_options_that_contradict_each_other(tokenizers: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="contradict each other"):
        Tokenizer(tokenizers["gpt2"], 9, last_turn_only=True, train_on_prompt=True)
    with pytest.raises(DataError, match="truncate, drop, error, got cut"):
        Tokenizer(tokenizers["gpt2"], 9, "cut")


def test_a_tokenizer_that_encodes_in_its_own_way_is_asked(tokenizers: dict[str, Any]) -> None:
    class Own(type(tokenizers["gpt2"])):  # type: ignore[misc]
        def __call__(self, text: Any, **kwargs: Any) -> Any:
            return super().__call__([t.upper() for t in text], **kwargs)

    other = copy.deepcopy(tokenizers["gpt2"])
    other.__class__ = Own
    ids = Tokenizer(other, 256).each("conversation", ROWS)[0]["input_ids"]  # type: ignore[index]
    assert "WHAT IS 1+1?" in other.decode(ids)


def test_problems_in_memory_keep_their_types(tokenizer: Any) -> None:
    prompt = ROWS[0]["messages"][:1]
    row = {"prompt": prompt, "ground_truth": "2", "verifier": "math", "n": 3, "tags": ["a"]}
    done = tokenize([row, {**row, "n": None}], "problem", Tokenizer(tokenizer, 99))
    assert (done.rows["n"][:], done.rows[0]["tags"]) == ([3, None], ["a"])
    with pytest.raises(DataError, match="the field 'n' has values of different types"):
        tokenize([row, {**row, "n": "three"}], "problem", Tokenizer(tokenizer, 99))
