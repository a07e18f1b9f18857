"""Templates byte for byte, and our rendering against transformers' own."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from posttrain.errors import DataError
from posttrain.tokens import load_template, render, template_names
from posttrain.tokens.template import ChatTemplate, plain_turns

NAMES = ["chatml", "llama-3", "mistral", "tulu", "zephyr"]
TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Ho\n"},
    {"role": "user", "content": "And?"},
    {"role": "assistant", "content": "Bye."},
]
CALL = {
    "id": "call00001",
    "type": "function",
    "function": {"name": "add", "arguments": {"a": 1, "b": "ü"}},
}
WRITTEN = {"name": "add", "arguments": '{"a": 2}'}  # flat, and its arguments are JSON text
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]
WORK = [
    {"role": "user", "content": "1+?"},
    {"role": "assistant", "content": "", "tool_calls": [CALL, WRITTEN]},
    {"role": "tool", "content": "3", "tool_call_id": "call00001"},
    {"role": "assistant", "content": "It is 3."},
]
TALKS = {
    "tulu": "<|system|>\nBe brief.\n<|user|>\n Hi \n<|assistant|>\nHo\n</s>\n"
    "<|user|>\nAnd?\n<|assistant|>\nBye.</s>",
    "chatml": "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi <|im_end|>\n"
    "<|im_start|>assistant\nHo\n<|im_end|>\n<|im_start|>user\nAnd?<|im_end|>\n"
    "<|im_start|>assistant\nBye.<|im_end|>\n",
    "zephyr": "<|system|>\nBe brief.</s>\n<|user|>\n Hi </s>\n<|assistant|>\nHo\n</s>\n"
    "<|user|>\nAnd?</s>\n<|assistant|>\nBye.</s>\n",
    "llama-3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n Hi <|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nHo\n<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nAnd?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nBye.<|eot_id|>",
    "mistral": "<s>[INST] Be brief.\n\n Hi [/INST] Ho\n</s>[INST] And?[/INST] Bye.</s>",
}
PROMPTS = {
    "tulu": "<|user|>\n1+?\n<|assistant|>\n",
    "chatml": "<|im_start|>user\n1+?<|im_end|>\n<|im_start|>assistant\n",
    "zephyr": "<|user|>\n1+?</s>\n<|assistant|>\n",
    "llama-3": "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n1+?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "mistral": "<s>[INST] 1+?[/INST]",
}
LISTED = '{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}'
CALLED = (
    '<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": "ü"}}\n</tool_call>\n'
    '<tool_call>\n{"name": "add", "arguments": {"a": 2}}\n</tool_call>'
)
ASKED = (
    "Call a function by writing its name and arguments as JSON between <tool_call> and "
    f"</tool_call>. Functions:\n<tools>\n{LISTED}\n</tools>"
)
WORKS = {
    "chatml": f"<|im_start|>system\n{ASKED}<|im_end|>\n<|im_start|>user\n1+?<|im_end|>\n"
    f"<|im_start|>assistant\n{CALLED}<|im_end|>\n"
    "<|im_start|>tool\n<tool_response>\n3\n</tool_response><|im_end|>\n"
    "<|im_start|>assistant\nIt is 3.<|im_end|>\n",
    "zephyr": f"<|system|>\n{ASKED}</s>\n<|user|>\n1+?</s>\n<|assistant|>\n{CALLED}</s>\n"
    "<|tool|>\n<tool_response>\n3\n</tool_response></s>\n<|assistant|>\nIt is 3.</s>\n",
    "llama-3": "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Environment: ipython\n\n"
    'To call a function, answer with {"name": its name, "parameters": its arguments} alone. '
    'Functions:\n\n{\n    "type": "function",\n    "function": {\n        "name": "add",\n'
    '        "parameters": {\n            "type": "object"\n        }\n    }\n}\n<|eot_id|>'
    "<|start_header_id|>user<|end_header_id|>\n\n1+?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
    '{"name": "add", "parameters": {"a": 1, "b": "ü"}}\n{"name": "add", "parameters": {"a": 2}}'
    "<|eot_id|><|start_header_id|>ipython<|end_header_id|>\n\n3<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\nIt is 3.<|eot_id|>",
    "mistral": f"<s>[AVAILABLE_TOOLS] [{LISTED}][/AVAILABLE_TOOLS][INST] 1+?[/INST]"
    '[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1, "b": "ü"}, "id": "call00001"}, '
    '{"name": "add", "arguments": {"a": 2}}]</s>'
    '[TOOL_RESULTS] {"content": "3", "call_id": "call00001"}[/TOOL_RESULTS] It is 3.</s>',
}
ODD = {
    "generation": "{%- for m in messages %}\n  {% if m.role == 'user' %}Q: {{ m.content }}\n"
    "  {%- else %}\nA:{% generation %} {{ m.content | trim }}{% set x = 1 %}{% endgeneration %}"
    "{{ x is defined }}{% endif %}\n{% endfor %}",
    "namespace": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
    "{{ ns.n }}{{ loop.index }}{{ loop.cycle('a', 'b') }}{{ loop.previtem is defined }}"
    "{% if loop.index == 2 %}{% continue %}{% endif %}{{ m['content'] }}{% endfor %}",
    "json": "{{ messages | tojson(indent=2) }}{{ dict(a='ü<') | tojson }}{{ bos_token }}"
    "{{ tools is none }}{{ documents is none }}{{ pad_token }}{{ 'x' if x is defined }}",
    "date": "{{ strftime_now('%Y-%m') }}{{ messages[0].content.split('.')[-1] }}",
    "reasoning": "{% for m in messages %}{{ m.reasoning_content or m.content }}{% endfor %}",
}


@pytest.fixture(scope="module")
def tokenizer(tokenizers: dict[str, Any]) -> Any:
    other = copy.deepcopy(tokenizers["gpt2"])
    other.add_special_tokens({"bos_token": "<s>"})
    return other


def with_template(tokenizer: Any, text: Any) -> Any:
    other = copy.deepcopy(tokenizer)
    other.chat_template = text
    return other


def ask(tokenizer: Any, messages: Any, tools: Any = None, prompt: bool = False) -> str:
    return tokenizer.apply_chat_template(
        messages, tools=tools, tokenize=False, add_generation_prompt=prompt
    )


def test_the_shipped_templates() -> None:
    assert template_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_bytes_of_a_conversation(name: str, tokenizer: Any) -> None:
    other = with_template(tokenizer, load_template(name))
    assert render(other, TALK) == TALKS[name]
    assert render(other, WORK[:1], generation_prompt=True) == PROMPTS[name]


@pytest.mark.parametrize("name", WORKS)
def test_bytes_of_tool_calls(name: str, tokenizer: Any) -> None:
    other = with_template(tokenizer, load_template(name))
    assert render(other, WORK, tools=TOOLS) == WORKS[name]
    assert render(other, WORK, tools=[]) == render(other, WORK)
    said = [TALK[0], *WORK]  # a system turn of the row's own stands with the tools
    assert "Be brief." in render(other, said, tools=TOOLS)
    assert render(other, said, tools=TOOLS).count("system") == ("system" in WORKS[name])


@pytest.mark.parametrize(
    ("messages", "tools", "why"),
    [
        (WORK[:1], TOOLS, "no place for tools"),
        (WORK[:2], None, "no tool calls"),
        (WORK[2:], None, "no role 'tool'"),
    ],
)
def test_tulu_refuses_what_it_cannot_say(
    messages: Any, tools: Any, why: str, tokenizer: Any
) -> None:
    with pytest.raises(DataError, match=why):
        render(with_template(tokenizer, load_template("tulu")), messages, tools=tools)


def test_mistral_has_no_system_turn_later(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="only before the first user turn"):
        render(with_template(tokenizer, load_template("mistral")), [*TALK, TALK[0]])


@pytest.mark.parametrize("prompt", [False, True])
@pytest.mark.parametrize("name", [*NAMES, *ODD])
def test_renders_as_transformers_does(name: str, prompt: bool, tokenizer: Any) -> None:
    other = with_template(tokenizer, ODD[name] if name in ODD else load_template(name))
    thinking = [TALK[1], {**TALK[2], "thinking": "hm"}]
    empty = [{**TALK[1], "tool_calls": None}, TALK[2]]
    for messages in (TALK, TALK[:2], thinking, empty):
        assert render(other, messages, prompt) == ask(other, messages, prompt=prompt)
    if name != "tulu":
        assert render(other, WORK, prompt, TOOLS) == ask(other, WORK, TOOLS, prompt)


def test_several_templates_by_name(tokenizer: Any) -> None:
    named = {"default": "plain", "tool_use": "{{ tools | length }}"}
    other = with_template(tokenizer, named)
    assert (render(other, TALK), render(other, TALK, tools=TOOLS)) == ("plain", "1")
    with pytest.raises(DataError, match="none is called `default`"):
        render(with_template(tokenizer, {"rag": "x"}), TALK)


def test_a_tokenizer_with_its_own_way_is_asked(tokenizer: Any) -> None:
    class Own(type(tokenizer)):  # type: ignore[misc]
        def apply_chat_template(self, *args: Any, **kwargs: Any) -> str:
            return f"mine {kwargs['add_generation_prompt']}"

    other = copy.deepcopy(tokenizer)
    other.__class__ = Own
    assert render(other, TALK, generation_prompt=True) == "mine True"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{% for %}", "cannot be read"),
        ("{{ raise_exception('no  such\nrole') }}", "refuses the conversation: no such role"),
        ("{{ messages.append(1) }}", "refuses the conversation"),
        ("{{ ''.__class__.__mro__ }}{{ x.y }}", "refuses the conversation"),
        ("{% set ns = namespace(_x=1) %}", "may not set the attribute '_x'"),
        ("{% set ns = namespace() %}{% set ns._x = 1 %}", "may not set the attribute '_x'"),
        ("{{ messages[0].nothing.more }}", "refuses the conversation"),
    ],
)
def test_templates_that_fail(text: str, why: str, tokenizer: Any) -> None:
    with pytest.raises(DataError, match=why):
        render(with_template(tokenizer, text), TALK)


def test_no_turns_and_no_template(tokenizer: Any) -> None:
    with pytest.raises(DataError, match="it has no turn"):
        render(tokenizer, [])
    with pytest.raises(DataError, match="no chat template"):
        render(with_template(tokenizer, None), TALK)


def test_our_own_fields_are_not_shown_to_a_template(tokenizer: Any) -> None:
    assert plain_turns([{"role": "user", "content": "a", "train": False, "name": None}]) == [
        {"role": "user", "content": "a"}
    ]
    template = pickle.loads(pickle.dumps(ChatTemplate.of(tokenizer)))
    assert template.render(plain_turns(TALK)) == TALKS["tulu"]
