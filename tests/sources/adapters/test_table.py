"""The table of formats: names, recognition by columns, and any JSON through every adapter."""

from __future__ import annotations

import itertools
import json
import pickle
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import DataError, RecipeError
from posttrain.formats import to_row
from posttrain.sources.adapters import (
    FORMATS,
    ROW_FORMATS,
    STREAM_FORMATS,
    LeftOut,
    adapt,
    detect,
    get_format,
)

NEEDED = {"promptsource": {"template": "{{ prompt }} ||| {{ completion }}"}}
ADAPTERS = {name: get_format({"name": name} | NEEDED.get(name, {})) for name in FORMATS}


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ({"messages": [], "prompt": "a"}, "chat"),
        ({"prompt": "a", "completion": "b"}, "chat"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "chat"),
        ({"chosen": [{"role": "user"}], "rejected": []}, "chat"),
        ({"chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}, "hh_rlhf"),
        ({"prompt": "a", "chosen": "\n\nHuman: a", "rejected": "\n\nHuman: b"}, "chat"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "sharegpt"),
        ({"conversations": [{"role": "user", "content": "a"}]}, "sharegpt"),
        ({"conversations": ["a", "b"]}, "lima"),
        ({"conversations": [{"from": "human"}], "messages": [{"role": "user"}]}, "chat"),
        ({"instruction": "a", "input": "", "output": "b"}, "alpaca"),
        ({"instruction": "a", "response": "b"}, "alpaca"),
        ({"instruction": "a", "context": "", "response": "b"}, "dolly"),
        ({"instruction": "a", "instances": []}, "self_instruct"),
        ({"instruction": "a", "completions": []}, "ultrafeedback"),
        ({"message_tree_id": "1", "prompt": {}}, "oasst"),
        ({"message_tree_id": "1", "parent_id": None, "text": "a"}, "oasst"),
        ({"system": "SYSTEM: a", "chat": "USER: b"}, "glaive"),
        ({"inputs": "a", "targets": "b"}, "flan"),
        ({"system_prompt": "", "question": "a", "response": "b"}, "open_orca"),
        ({"Definition": ["a"], "Instances": []}, "superni"),
        ({"vanilla": "a", "adversarial": "", "completion": "b"}, "wildjailbreak"),
        ({"conversation_hash": "a", "conversation": []}, "wildchat"),
        ({"question": "a", "answer": "b"}, "chat"),  # not guessed
        ({"text": "a"}, "chat"),
        (None, "chat"),
    ],
)
def test_recognition_by_columns(raw: Any, name: str) -> None:
    assert detect(raw) == name
    assert type(get_format(None, raw)) is FORMATS[name]


def test_a_hub_id_knows_its_format() -> None:
    raw = {"question": "a", "answer": "b #### 1"}
    assert type(get_format(None, raw, "openai/gsm8k")) is ROW_FORMATS["gsm8k"]
    assert type(get_format("columns", raw, "openai/gsm8k")) is ROW_FORMATS["columns"]
    assert type(get_format(None, raw, "someone/else")) is ROW_FORMATS["chat"]


def test_an_id_that_was_renamed_is_known_by_both_names() -> None:
    for path in ("CohereForAI/aya_dataset", "CohereLabs/aya_dataset"):
        assert type(get_format(None, None, path)) is ROW_FORMATS["aya"]


def test_options() -> None:
    assert get_format({"name": "oasst", "paths": "best"}).paths == "best"


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ("alpacca", "unknown format 'alpacca'; did you mean 'alpaca'?"),
        ({"name": "oasst", "path": "best"}, "no option 'path'; did you mean 'paths'?"),
        ({"name": "oasst", "paths": "some"}, "all or best, got 'some'"),
        ({"name": "chat", "where": "flan"}, "`where` must map columns"),
        ("promptsource", "needs `template`"),
        ({"name": "superni", "encoding": "zero"}, "got 'zero'"),
        ({"name": "ultrafeedback", "score": "best"}, "aspects or overall"),
    ],
)
def test_wrong_formats(spec: Any, says: str) -> None:
    with pytest.raises(RecipeError) as caught:
        get_format(spec)
    assert says in str(caught.value)


@pytest.mark.parametrize("name", FORMATS)
def test_adapters_travel_to_worker_processes(name: str) -> None:
    assert pickle.loads(pickle.dumps(ADAPTERS[name])) == ADAPTERS[name]


@pytest.mark.parametrize("name", FORMATS)
def test_the_repr_names_the_settings_and_no_address(name: str) -> None:
    assert " at 0x" not in repr(ADAPTERS[name])  # it is part of the cache's key


def test_adapt_numbers_rows_and_goes_on_after_a_bad_one() -> None:
    raws = [{"prompt": "a"}, 3, {"messages": []}]
    made = list(adapt(get_format("chat"), raws))
    assert [n for n, _ in made] == [0, 1, 2]
    assert made[0][1] == raws[0] and isinstance(made[1][1], DataError)
    seeds = {"instruction": "a", "instances": [{"input": "", "output": "b"}] * 2}
    assert [n for n, _ in adapt(get_format("self_instruct"), [seeds, seeds])] == [0, 0, 1, 1]


def test_adapt_streams() -> None:
    tree = {"message_tree_id": "t", "role": "prompter", "text": "a"}
    raws = [
        tree | {"message_id": "1", "parent_id": None},
        tree | {"message_id": "2", "parent_id": "1", "role": "assistant", "text": "b"},
        tree | {"message_id": "3", "parent_id": "9", "message_tree_id": "u"},
    ]
    (first, row), (second, error) = adapt(get_format("oasst"), raws)
    assert (first, second) == (2, 2) and isinstance(error, DataError)
    assert [m["content"] for m in row["messages"]] == ["a", "b"]


@pytest.mark.parametrize(
    ("name", "kind", "rows"),
    [
        ("dpo_en_demo/dpo_en_demo.jsonl.gz", "preference", 299),
        ("glaive_toolcall/glaive_toolcall_en_demo.jsonl.gz", "conversation", 300),
        ("gpteacher/codegen-instruct.jsonl.gz", "conversation", 4535),
        ("self_instruct/seed_tasks.jsonl", "conversation", 175),
        ("llms_from_scratch/instruction-data.jsonl.gz", "conversation", 1100),
        ("tinystories/tiny_stories_sample.jsonl.gz", "text", 1097),
        ("ultrafeedback/train_1000.jsonl.gz", "preference", 993),
    ],
)
def test_real_files_are_recognised(
    name: str, kind: str, rows: int, shared_rows: Callable[..., Any]
) -> None:
    raws, reasons, read = shared_rows(name), Counter[str](), 0
    for _, made in adapt(get_format(None, raws[0]), raws):
        try:
            if isinstance(made, DataError):
                raise made
            to_row(kind, made)
            read += 1
        except DataError as error:
            reasons[str(error).split(", got ")[0]] += 1
    assert (read, len(reasons) < 4) == (rows, True), reasons


# the fields that the rows in the docstrings have
FIELDS = {
    name: sorted(set(re.findall(r'"(\w+)":', FORMATS[name].__doc__ or ""))) for name in FORMATS
}
COLUMNS = sorted(
    {"history", "chosen", "rejected", "tools", "replies", *itertools.chain(*FIELDS.values())}
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
values = st.recursive(
    scalars | st.sampled_from(["USER: a", "<functioncall> {", "\n\nHuman: a", "#### 1", "human"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(max_size=4) | st.sampled_from(COLUMNS),
            inner,
            max_size=4,
        )
    ),
    max_leaves=5,
)
raws = st.dictionaries(st.sampled_from(COLUMNS), values, max_size=6) | values


@settings(max_examples=15, deadline=None)
@pytest.mark.parametrize("name", FORMATS)
@given(data=st.data())
def test_any_json_gives_rows_or_a_data_error(name: str, data: st.DataObject) -> None:
    given_rows = data.draw(st.lists(raws, max_size=2))
    given_rows.append(data.draw(st.fixed_dictionaries({field: values for field in FIELDS[name]})))
    for number, made in adapt(ADAPTERS[name], given_rows):
        assert 0 <= number < len(given_rows)
        if isinstance(made, DataError):
            assert isinstance(made, LeftOut) or str(made)
            continue
        for kind in ("text", "conversation", "preference", "problem"):
            try:
                json.dumps(to_row(kind, made), ensure_ascii=False).encode()
            except DataError:
                continue


def test_the_tables_do_not_overlap() -> None:
    assert not ROW_FORMATS.keys() & STREAM_FORMATS.keys()
