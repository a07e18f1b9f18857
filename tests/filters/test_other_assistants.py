"""Answers that name other assistants."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters.other_assistants import OtherAssistants


def answer(text: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": "Are you ChatGPT?"},
            {"role": "assistant", "content": text},
        ]
    }


@pytest.mark.parametrize(
    "text",
    [
        "OpenAI",
        "open ai",
        "chatgpt",
        "Chat GPT's",
        "GPT-3",
        "gpt3",
        "GPT 3.5",
        "GPT-4",
        "GPT4",
        "gpt-4o",
        "gpt-4-all",
        "Bing Chat",
        "BingChat",
        "LAION",
        "Open Assistant",
        "OpenAssistant",
        "import openai.api",
    ],
)
def test_names_that_are_found(text: str) -> None:
    assert OtherAssistants()(answer(f"I am ({text}).")) == "an answer names another assistant"


@pytest.mark.parametrize(
    "text",
    ["gpt4all", "GPT-2", "GPT-40", "openai_key", "pavilaion", "reopen air", "a bard", "Claude"],
)
def test_names_that_are_not(text: str) -> None:
    assert OtherAssistants()(answer(f"It is {text} here.")) is None


def test_only_answers_are_read() -> None:
    assert OtherAssistants()(answer("No.")) is None
    assert OtherAssistants()({"text": "A web page about ChatGPT."}) is None


def test_more_names() -> None:
    keep = OtherAssistants(extra=["Gemini", "mistral", "C++Bot"])  # type: ignore[arg-type]
    for text in ("Gemini", "Mistral", "mistral", "C++Bot", "ChatGPT"):
        assert keep(answer(f"I am {text}.")) is not None
    for text in ("gemini is a sign", "Geminid", "mistrals"):
        assert keep(answer(text)) is None
    with pytest.raises(ValueError, match="`extra` must be a list of names"):
        OtherAssistants(extra=("",))
