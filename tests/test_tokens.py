"""Templates byte for byte, masks proven by decoding, and everything that stops a run."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from posttrain.errors import DataError, ModelError
from posttrain.tokens import (
    IGNORE,
    Tokenizer,
    load_template,
    render,
    show,
    template_names,
    tokenize,
)

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is 1 plus 2?"},
    {"role": "assistant", "content": "It is 3."},
    {"role": "user", "content": " And 4? "},
    {"role": "assistant", "content": "That is 7.\n"},
]


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def assistant(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def tokens(tokenizer: Any, rows: list[Any], kind: str = "conversation", **options: Any) -> Any:
    return tokenize(rows, kind, Tokenizer(tokenizer, **{"max_length": 256, **options}))


def trained_text(tokenizer: Any, row: dict[str, Any]) -> str:
    return tokenizer.decode([label for label in row["labels"] if label != IGNORE])


def llama3_like(tokenizer: Any) -> Any:
    """The same vocabulary, split as Llama 3 does: newlines stick together."""
    from tokenizers import Regex, pre_tokenizers

    other = copy.deepcopy(tokenizer)
    backend = other.backend_tokenizer
    split = pre_tokenizers.Split(Regex(r"\s*[\r\n]+|\s+|[^\s]+"), "isolated")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    return other


# --- the template ---------------------------------------------------------------------------------


def test_tulu_bytes(tokenizer: Any) -> None:
    assert render(tokenizer, TALK) == (
        "<|system|>\nBe brief.\n"
        "<|user|>\nWhat is 1 plus 2?\n"
        "<|assistant|>\nIt is 3.</s>\n"
        "<|user|>\n And 4? \n"
        "<|assistant|>\nThat is 7.\n</s>"
    )
    assert render(tokenizer, TALK[:2], generation_prompt=True) == (
        "<|system|>\nBe brief.\n<|user|>\nWhat is 1 plus 2?\n<|assistant|>\n"
    )


def test_no_bos_even_where_the_tokenizer_has_one(tokenizer: Any) -> None:
    other = copy.deepcopy(tokenizer)
    other.add_special_tokens({"bos_token": "<s>"})
    row = tokens(other, [{"messages": [user("Hi"), assistant("Ho")]}]).rows[0]
    assert other.decode(row["input_ids"]) == "<|user|>\nHi\n<|assistant|>\nHo</s>"


def test_templates_by_name_and_by_file(tmp_path: Any) -> None:
    assert {"tulu", "chatml"} <= set(template_names())
    file = tmp_path / "mine.jinja"
    file.write_text("{{ messages }}", encoding="utf-8")
    assert load_template(str(file)) == "{{ messages }}"
    with pytest.raises(DataError, match="did you mean 'tulu'"):
        load_template("tulu3")


def test_a_role_that_the_template_does_not_know_drops_the_row(tokenizer: Any) -> None:
    rows = [
        {"messages": [user("a"), {"role": "tool", "content": "b"}, assistant("c")]},
        {"messages": [user("a"), assistant("c")]},
    ]
    result = tokens(tokenizer, rows)
    assert len(result.rows) == 1
    assert "no role 'tool'" in str(result.dropped[""])


# --- masks ----------------------------------------------------------------------------------------


def test_every_answer_with_its_eos_is_trained_and_nothing_else(tokenizer: Any) -> None:
    row = tokens(tokenizer, [{"messages": TALK}]).rows[0]
    assert show(row, tokenizer) == (
        "<|system|>\nBe brief.\n<|user|>\nWhat is 1 plus 2?\n"
        "<|assistant|>\n⟦It is 3.</s>⟧\n<|user|>\n And 4? \n<|assistant|>\n⟦That is 7.\n</s>⟧"
    )
    eos = tokenizer.eos_token_id
    assert [label for label in row["labels"] if label == eos] == [eos, eos]


def test_several_turns_are_the_template_applied_once(tokenizer: Any) -> None:
    row = tokens(tokenizer, [{"messages": TALK}]).rows[0]
    once = tokenizer(render(tokenizer, TALK), add_special_tokens=False)["input_ids"]
    assert row["input_ids"] == once


@pytest.mark.parametrize(
    "answer",
    [
        "Grüße, 世界! 🙂👩‍👩‍👧",
        "🙂",
        " leading space",
        "   three spaces",
        "\nleading newline",
        "\n\n  both",
        "trailing \n\n",
        "</s> inside",
        "<|assistant|>\nIt is 3.",
        "a",
    ],
)
def test_unusual_answers_are_trained_whole(answer: str, tokenizer: Any) -> None:
    messages = [user("What? 🙂"), assistant(answer), user("And?"), assistant("ok")]
    row = tokens(tokenizer, [{"messages": messages}]).rows[0]
    assert tokenizer.decode(row["input_ids"]) == render(tokenizer, messages)
    assert trained_text(tokenizer, row) == f"{answer}</s>ok</s>"


def test_a_token_across_the_header_is_not_trained(tokenizer: Any) -> None:
    """Newlines that merge with the header's cannot be split: they are left out, never trained."""
    other = llama3_like(tokenizer)
    other.add_tokens(["\n\n"])
    row = tokens(other, [{"messages": [user("q"), assistant("\nyes")]}]).rows[0]
    assert trained_text(other, row) == "yes</s>"
    row = tokens(other, [{"messages": [user("q"), assistant("yes")]}]).rows[0]
    assert trained_text(other, row) == "yes</s>"


def test_every_token_of_a_text_row_is_trained(tokenizer: Any) -> None:
    row = tokens(tokenizer, [{"text": "one two"}], "text").rows[0]
    assert row["labels"] == row["input_ids"]
    assert tokenizer.decode(row["input_ids"]) == "one two</s>"


def test_a_template_that_rewrites_earlier_turns_is_refused(tokenizer: Any) -> None:
    other = copy.deepcopy(tokenizer)
    other.chat_template = (
        "{% for m in messages %}{{ m.role if loop.last else '' }}:{{ m.content }}{{ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}assistant:{% endif %}"
    )
    with pytest.raises(DataError, match=r"differently once others follow|rewrites earlier turns"):
        tokens(other, [{"messages": TALK[1:]}])


# --- pairs and problems ---------------------------------------------------------------------------


def pair(chosen: str, rejected: str) -> dict[str, Any]:
    return {
        "prompt": [user("Hello?")],
        "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
    }


def test_pairs_share_the_prompt_and_train_whole_answers(tokenizer: Any) -> None:
    row = tokens(tokenizer, [pair("It is a cat.", "It is a dog.")], "preference").rows[0]
    assert tokenizer.decode(row["prompt_ids"]) == "<|user|>\nHello?\n<|assistant|>\n"
    # the beginning that both answers share is part of the answers, not of the prompt
    assert tokenizer.decode(row["chosen_ids"]) == "It is a cat.</s>"
    assert tokenizer.decode(row["rejected_ids"]) == "It is a dog.</s>"


def test_a_token_across_the_header_belongs_to_the_answer(tokenizer: Any) -> None:
    other = llama3_like(tokenizer)
    other.add_tokens(["\n\n"])
    row = tokens(other, [pair("\nyes", "no")], "preference").rows[0]
    assert other.decode(row["prompt_ids"]) == "<|user|>\nHello?\n<|assistant|>"
    assert other.decode(row["chosen_ids"]) == "\n\nyes</s>"
    assert other.decode(row["rejected_ids"]) == "\nno</s>"


def test_pairs_that_truncation_makes_useless_are_dropped_and_counted(tokenizer: Any) -> None:
    prompt = len(tokens(tokenizer, [pair("a", "b")], "preference").rows[0]["prompt_ids"])
    rows = [pair("one one one one X", "one one one one Y"), pair("a", "b")]
    result = tokens(tokenizer, rows, "preference", max_length=prompt + 3)
    assert len(result.rows) == 1
    assert dict(result.dropped[""]) == {
        "chosen and rejected are the same tokens within max_length": 1
    }
    with pytest.raises(DataError, match="no trained token is left within max_length"):
        tokens(tokenizer, [pair("a", "b")], "preference", max_length=prompt)


def test_problems_keep_their_columns_and_end_with_the_generation_prompt(tokenizer: Any) -> None:
    row = {"prompt": [user("2+2?")], "ground_truth": "4", "verifier": "gsm8k"}
    result = tokens(tokenizer, [row, {**row, "solution": "2+2=4"}], "problem")
    assert tokenizer.decode(result.rows[0]["prompt_ids"]) == "<|user|>\n2+2?\n<|assistant|>\n"
    assert result.rows["solution"][:] == [None, "2+2=4"]
    assert result.rows[0]["prompt"] == '[{"role": "user", "content": "2+2?"}]'
    with pytest.raises(DataError, match="prompt longer than max_prompt_length 3"):
        tokens(tokenizer, [row], "problem", max_prompt_length=3)


# --- length ---------------------------------------------------------------------------------------


def test_truncation_policies(tokenizer: Any) -> None:
    long = {"messages": [user("Hi"), assistant("one two three four five six")], "source": "l"}
    short = {"messages": [user("Hi"), assistant("a")], "source": "s"}
    limit = len(tokens(tokenizer, [short]).rows[0]["input_ids"]) + 1
    cut = tokens(tokenizer, [long, short], max_length=limit)
    assert [len(ids) for ids in cut.rows["input_ids"]] == [limit, limit - 1]
    assert (cut.counts["l"]["truncated"], cut.counts["l"]["without_eos"]) == (1, 1)
    assert (cut.counts["s"]["truncated"], cut.counts["s"]["without_eos"]) == (0, 0)
    with pytest.raises(DataError, match=r"source 'l': no token is trained .1 rows: longer than"):
        tokens(tokenizer, [long, short], max_length=limit, truncation="drop")
    same = [{**long, "source": "s"}, short]
    dropped = tokens(tokenizer, same, max_length=limit, truncation="drop")
    assert (len(dropped.rows), dropped.dropped["s"].total()) == (1, 1)
    with pytest.raises(DataError, match="source 'l': a row is longer than max_length"):
        tokens(tokenizer, [long, short], max_length=limit, truncation="error")


def test_text_rows_obey_truncation_too(tokenizer: Any) -> None:
    rows = [{"text": "a b c d e f g h"}, {"text": "a"}]
    cut = tokens(tokenizer, rows, "text", max_length=4).rows["input_ids"]
    assert [len(ids) for ids in cut] == [4, 2]
    assert len(tokens(tokenizer, rows, "text", max_length=4, truncation="drop").rows) == 1
    with pytest.raises(DataError, match="longer than max_length 4"):
        tokens(tokenizer, rows, "text", max_length=4, truncation="error")


# --- what stops a run -----------------------------------------------------------------------------


def test_a_row_cut_before_its_answer_is_dropped_and_a_source_of_such_rows_stops(
    tokenizer: Any,
) -> None:
    long = {"messages": [user("Hi " * 50), assistant("yes")], "source": "long"}
    short = {"messages": [user("Hi"), assistant("yes")], "source": "short"}
    result = tokens(tokenizer, [long, {**short, "source": "long"}], max_length=40)
    assert dict(result.dropped["long"]) == {"no trained token is left within max_length": 1}
    with pytest.raises(DataError, match="source 'long': no token is trained"):
        tokens(tokenizer, [long, short], max_length=40)
    with pytest.raises(DataError, match=r"no row is left to train on .1 rows: no trained token"):
        tokens(tokenizer, [long], max_length=40)
    with pytest.raises(DataError, match=r"no row is left to train on .the sources are empty"):
        tokens(tokenizer, [])


def test_an_eos_that_is_never_trained_stops(tokenizer: Any) -> None:
    row = {"messages": [user("Hi"), assistant("one two three four five six")]}
    with pytest.raises(DataError, match="EOS is not trained in any row"):
        tokens(tokenizer, [row], max_length=25)
    other = copy.deepcopy(tokenizer)
    other.chat_template = tokenizer.chat_template.replace("+ eos_token", "")
    with pytest.raises(DataError, match="EOS is not trained in any row"):
        tokens(other, [row])


def test_tokenizers_that_cannot_be_used(tokenizer: Any) -> None:
    row = {"messages": [user("Hi"), assistant("yes")]}
    other = copy.deepcopy(tokenizer)
    other.chat_template = None
    with pytest.raises(ModelError, match=r"no chat template; set `chat_template:`.*chatml, .*tulu"):
        tokens(other, [row])
    assert len(tokens(other, [{"text": "plain text needs none"}], "text").rows) == 1
    other = copy.deepcopy(tokenizer)
    other.eos_token = None
    with pytest.raises(ModelError, match="no EOS token"):
        tokens(other, [row])
