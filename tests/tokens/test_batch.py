"""Columns and counts of a batch, worked by hand on a tokenizer whose tokens are single bytes."""

from __future__ import annotations

import json
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from posttrain.errors import DataError
from posttrain.tokens import IGNORE, Tokenizer, load_template


@pytest.fixture(scope="module")
def byte_tokens() -> Any:
    """Every byte is a token; `</s>` and the marks of chatml are one each."""
    from tokenizers import Tokenizer as Backend
    from tokenizers import decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Backend(models.BPE(vocab, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
    fast.add_special_tokens({"additional_special_tokens": ["<|im_end|>"]})
    fast.chat_template = "{% for m in messages %}{{ m.role[0] + m.content }}"
    fast.chat_template += "{{ eos_token if m.role == 'assistant' }}{% endfor %}"
    fast.chat_template += "{{ 'a' if add_generation_prompt }}"
    return fast


def talk(*turns: str, source: str = "s") -> dict[str, Any]:
    names = {"u": "user", "a": "assistant", "t": "tool"}
    messages = [{"role": names[t[0]], "content": t[1:]} for t in turns]
    return {"messages": messages, "source": source}


def pair(prompt: str, chosen: str, rejected: str) -> dict[str, Any]:
    sides = {"chosen": f"a{chosen}", "rejected": f"a{rejected}"}
    row: dict[str, Any] = {side: talk(text)["messages"] for side, text in sides.items()}
    return row | {"prompt": talk(f"u{prompt}")["messages"], "source": "p"}


def words(tokenizer: Any, column: pa.ChunkedArray) -> list[str]:
    return [
        "".join(tokenizer.decode([t]) if t >= 0 else "_" for t in row.as_py()) for row in column
    ]


def test_conversations(byte_tokens: Any) -> None:
    rows = [
        talk("uhi", "aho", "uok", "aby", source="x"),  # uhi aho</s> uok aby</s>: 14 tokens
        talk("uh", "ao", source="y"),
        {"messages": [], "source": "y"},
        talk("uhihihihihihihi", "ao", source="z"),  # cut before the answer
    ]
    done = Tokenizer(byte_tokens, max_length=12).batch("conversation", rows)
    assert done.table.schema.field("input_ids").type == pa.list_(pa.int32())
    assert done.table.schema.field("labels").type == pa.list_(pa.int32())
    assert done.table.schema.field("source").type == pa.string()
    assert words(byte_tokens, done.table["input_ids"]) == ["uhiaho</s>uokab", "uhao</s>"]
    assert words(byte_tokens, done.table["labels"]) == ["____ho</s>____b", "___o</s>"]
    assert done.table["source"].to_pylist() == ["x", "y"]
    assert done.kept.tolist() == [0, 1]
    assert done.reasons == [
        (2, "the chat template refuses the conversation: it has no turn"),
        (3, "no trained token is left within max_length"),
    ]
    one = {"rows": 1, "tokens": 12, "trained_tokens": 4}
    flaws = {"truncated": 1, "cut_answers": 1, "without_eos": 0}
    assert dict(done.counts["x"]) == one | flaws
    assert dict(done.counts["y"]) == {
        "rows": 1, "tokens": 5, "trained_tokens": 2,
        "truncated": 0, "cut_answers": 0, "without_eos": 0,
    }  # fmt: skip
    assert done.counts["z"].total() == 0
    assert done.amounts["tokens"].tolist() == [12, 5]


def test_a_row_cut_at_an_end_or_in_a_question_has_no_cut_answer(byte_tokens: Any) -> None:
    row = talk("uhi", "aho", "uok", "aby")
    for size, cut in ((7, 0), (9, 0), (12, 1), (13, 1), (14, 0)):
        done = Tokenizer(byte_tokens, max_length=size).batch("conversation", [row])
        assert (done.counts["s"]["truncated"], done.counts["s"]["cut_answers"]) == (size < 14, cut)
    short = Tokenizer(byte_tokens, max_length=6).batch("conversation", [row])
    assert short.counts["s"]["without_eos"] == 1
    assert words(byte_tokens, short.table["input_ids"]) == ["uhiaho"]  # and no EOS is put there


def test_texts(byte_tokens: Any) -> None:
    rows = [{"text": "abc"}, {"text": "\ud83d"}, {"text": "é"}, {"text": "abcdef"}]
    done = Tokenizer(byte_tokens, max_length=5).batch("text", rows)
    assert [len(ids) for ids in done.table["input_ids"].to_pylist()] == [4, 3, 5]
    assert done.table["labels"].equals(done.table["input_ids"])
    assert done.kept.tolist() == [0, 2, 3]
    assert "surrogate" in done.reasons[0][1]
    assert (done.counts[""]["truncated"], done.counts[""]["without_eos"]) == (1, 1)


def test_pairs(byte_tokens: Any) -> None:
    rows = [pair("hi", "one", "off"), pair("hi", "same", "same"), pair("h" * 9, "a", "b")]
    done = Tokenizer(byte_tokens, max_length=7).batch("preference", rows)
    table = {name: words(byte_tokens, done.table[name]) for name in done.table.column_names[:3]}
    assert table == {"prompt_ids": ["uhia"], "chosen_ids": ["one"], "rejected_ids": ["off"]}
    assert done.reasons == [
        (1, "chosen and rejected are the same tokens within max_length"),
        (2, "no trained token is left within max_length"),
    ]
    assert dict(done.counts["p"]) == {
        "rows": 1, "tokens": 10, "trained_tokens": 6,
        "truncated": 2, "cut_answers": 2, "without_eos": 2,
    }  # fmt: skip
    whole = Tokenizer(byte_tokens, max_length=8).batch("preference", rows[:1])
    assert words(byte_tokens, whole.table["chosen_ids"]) == ["one</s>"]
    assert whole.counts["p"]["truncated"] == whole.counts["p"]["without_eos"] == 0


def test_problems_keep_every_field_as_text(byte_tokens: Any) -> None:
    row = {"prompt": talk("uhi")["messages"], "ground_truth": "4", "verifier": "math"}
    rows = [row | {"n": 3, "list": [1, "ü"]}, row | {"n": None}, row | {"ground_truth": "\udc00"}]
    done = Tokenizer(byte_tokens, max_length=9).batch("problem", rows)
    got = done.table.to_pylist()
    assert [r["n"] for r in got] == ["3", None]
    assert got[0]["list"] == '[1, "ü"]'
    assert json.loads(got[1]["prompt"]) == row["prompt"]
    assert words(byte_tokens, done.table["prompt_ids"]) == ["uhia", "uhia"]
    assert [i for i, _ in done.reasons] == [2]
    assert dict(done.counts[""]) == {"rows": 2, "tokens": 8}


@pytest.mark.parametrize("kind", ["text", "conversation", "preference", "problem"])
def test_nothing_gives_an_empty_table(kind: str, byte_tokens: Any) -> None:
    done = Tokenizer(byte_tokens, max_length=9).batch(kind, [])
    assert (done.table.num_rows, done.reasons, done.counts) == (0, [], {})
    some = {"text": "\ud83d", "messages": [], "prompt": []}
    lost = Tokenizer(byte_tokens, max_length=9).batch(kind, [some])
    assert (lost.table.num_rows, len(lost.reasons)) == (0, 1)


def test_options_reach_the_labels(byte_tokens: Any) -> None:
    row = talk("uhi", "aho", "tx", "aby")

    def labels(**options: bool) -> list[str]:
        mine = Tokenizer(byte_tokens, max_length=99, **options)
        return words(byte_tokens, mine.batch("conversation", [row]).table["labels"])

    assert labels() == ["____ho</s>___by</s>"]
    assert labels(last_turn_only=True) == ["__________by</s>"]
    assert labels(train_on_prompt=True) == ["uhiaho</s>__aby</s>"]


def test_drop_and_error(byte_tokens: Any) -> None:
    rows = [talk("uh", "ao"), talk("uhi", "ahohoho")]
    done = Tokenizer(byte_tokens, 6, "drop").batch("conversation", rows)
    assert (done.kept.tolist(), done.reasons) == ([0], [(1, "longer than max_length 6")])
    with pytest.raises(DataError, match="source 's': a row is longer than max_length 6; raise"):
        Tokenizer(byte_tokens, 6, "error").batch("conversation", rows)


def test_five_megabytes_in_one_row(tokenizer: Any) -> None:
    """It is cut like any other, and ten times the text takes about ten times as long."""
    mine = Tokenizer(tokenizer, max_length=64)

    def seconds(text: str) -> float:
        start = time.process_time()
        done = mine.batch("conversation", [talk("uhi", f"a{text}")])
        assert done.counts["s"]["tokens"] == 64
        return time.process_time() - start

    for make in (lambda n: "é\n" * (n // 3), lambda n: "a" * n, lambda n: " " * n):
        assert seconds(make(1_000_000)) < 30 * max(seconds(make(100_000)), 0.05)
    assert seconds("word 12 " * 625_000) < 60


def test_labels_are_the_tokens_or_ignored(byte_tokens: Any) -> None:
    done = Tokenizer(byte_tokens, max_length=99).batch("conversation", [talk("uhi", "aho")] * 3)
    ids = np.array(done.table["input_ids"].to_pylist())
    labels = np.array(done.table["labels"].to_pylist())
    assert ((labels == ids) | (labels == IGNORE)).all()


def test_chatml_ends_with_its_own_token(byte_tokens: Any) -> None:
    import copy

    other = copy.copy(byte_tokens)
    other.chat_template = load_template("chatml")
    mine = Tokenizer(other, max_length=99)
    done = mine.batch("conversation", [talk("uhi", "aho")])
    assert words(byte_tokens, done.table["labels"])[0].strip("_") == "ho<|im_end|>"
    assert done.counts["s"]["without_eos"] == 0
