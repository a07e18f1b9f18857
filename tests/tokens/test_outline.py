"""A template that only copies contents is applied by joining strings; any other one is run."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.errors import DataError
from posttrain.tokens.outline import fill, hold, outline
from posttrain.tokens.template import ChatTemplate, load_template, only_copies

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}
SHIPPED = ["chatml", "llama-3", "tulu", "zephyr"]
LOOP = "{% for m in messages %}"
TURNS = st.lists(
    st.fixed_dictionaries(
        {
            "role": st.sampled_from(["system", "user", "assistant", "tool", "judge"]),
            "content": st.sampled_from(
                ["", " ", "a", "{{ 1 }}", "\ue0000\ue001", "<|user|>\n", "é\n"]
            ),
        }
    ),
    min_size=1,
    max_size=5,
)


def outcome(call: Any, *args: Any) -> str:
    try:
        return str(call(*args))
    except DataError as error:
        return f"error: {error}"


@pytest.mark.parametrize("name", SHIPPED)
@settings(max_examples=60, deadline=None)
@given(turns=TURNS, prompt=st.booleans())
def test_an_outline_is_what_jinja_writes(name: str, turns: list[Any], prompt: bool) -> None:
    template = ChatTemplate(load_template(name), SPECIAL)
    assert only_copies(template.source(None))
    expected = outcome(template.run, turns, None, prompt)
    assert outcome(template.render, turns, None, prompt) == expected
    assert outcome(template.render, turns, None, prompt) == expected  # now from memory


@pytest.mark.parametrize(
    "text",
    [
        LOOP + "{{ m.content or '' }}{{ m['role'] | upper }}{% endfor %}",
        LOOP + "{{ 'x' + m['content'] if m['content'] else loop.index }}{% endfor %}",
        "{% if messages[0]['content'] %}{{ messages[0].content }}{% endif %}",
        "{% set n = namespace(i=0) %}" + LOOP + "{% set n.i = n.i + 1 %}{{ n.i }}{% endfor %}",
    ],
)
def test_a_template_that_copies(text: str) -> None:
    assert only_copies(text)
    template = ChatTemplate(text)
    for contents in (["a", "b"], ["", "b"], ["a", ""]):
        turns = [{"role": "user", "content": content} for content in contents]
        assert template.render(turns) == template.run(turns, None, False)


@pytest.mark.parametrize(
    "text",
    [
        LOOP + "{{ m['content'] | trim }}{% endfor %}",
        LOOP + "{{ m.content.strip() }}{% endfor %}",
        LOOP + "{{ m.get('content') | trim }}{% endfor %}",
        LOOP + "{{ m['get']('content') }}{% endfor %}",
        LOOP + "{{ m.values() }}{% endfor %}",
        LOOP + "{{ m | tojson }}{% endfor %}",
        LOOP + "{{ m }}{% endfor %}",
        LOOP + "{% set c = m['content'] %}{{ c | trim }}{% endfor %}",
        LOOP + "{% set n = m %}{{ n['content'][0] }}{% endfor %}",
        LOOP + "{% if 'x' in m['content'] %}x{% endif %}{% endfor %}",
        LOOP + "{% if m['content'] == 'x' %}x{% endif %}{% endfor %}",
        LOOP + "{% if (m['content'] + 'x') | length > 3 %}x{% endif %}{% endfor %}",
        LOOP + "{% if m['content'] is string %}x{% endif %}{% endfor %}",
        LOOP + "{{ m['content'] ~ 'x' }}{% endfor %}",
        LOOP + "{{ loop.previtem['content'] | trim }}{% endfor %}",
        LOOP + "{{ m[m['role']] }}{% endfor %}",
        LOOP + "{% generation %}{{ m['content'] }}{% endgeneration %}{% endfor %}",
        "{% for m in messages[1:] %}{{ m['content'] }}{% endfor %}",
        "{% for m in messages | reverse %}{{ m['content'] }}{% endfor %}",
        "{% for m in messages recursive %}{{ m['content'] }}{% endfor %}",
        "{% for k, m in messages %}{{ m }}{% endfor %}",
        "{% set all = messages %}{{ all[0]['content'] | trim }}",
        "{% set f = messages[0] %}{% macro a() %}{{ f['content'] }}{% endmacro %}{{ a() | trim }}",
        "{% set a %}{{ messages[0]['content'] }}{% endset %}{{ a | trim }}",
        "{% filter upper %}{{ messages[0]['content'] }}{% endfilter %}",
        "{{ messages[-1]['content'][0] }}",
        "{{ messages | map(attribute='content') | join }}",
        "{{ strftime_now('%Y') }}",
        "\ue000",
    ],
)
def test_a_template_that_may_look_at_contents(text: str) -> None:
    assert not only_copies(text)


def test_a_role_that_looks_like_a_held_place_is_rendered() -> None:
    template = ChatTemplate(LOOP + "{{ m['role'] + m['content'] }}{% endfor %}")
    assert template.render([{"role": "\ue0000\ue001", "content": "a"}]) == "\ue0000\ue001a"


def test_contents_are_put_where_they_were_held() -> None:
    assert hold(["a", "", "b"]) == ["\ue0000\ue001", "", "\ue0002\ue001"]
    around, which = outline("<\ue0002\ue001|\ue0000\ue001>")
    assert (around, which) == (["<", "|", ">"], [2, 0])
    assert fill(around, which, ["a", "", "b"]) == "<b|a>"


def test_other_rows_are_rendered_by_the_template() -> None:
    template = ChatTemplate(load_template("chatml"), SPECIAL)
    call = {"function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b", "tool_calls": [call]},
    ]
    assert "<tool_call>" in template.render(turns)
    assert "<tools>" in template.render(turns[:1], [call])
    assert not template.outlines
