"""Languages told apart, the same every time."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from posttrain.errors import MissingExtraError
from posttrain.filters.language import Language

ENGLISH = "The weather is lovely today, so we are going for a long walk along the river."
GERMAN = "Das Wetter ist heute sehr schön, deshalb machen wir einen langen Spaziergang am Fluss."
CHINESE = "今天天气很好,所以我们沿着河边走了很长的一段路,然后回家吃饭,晚上看了一部电影。"


def chat(user: str, assistant: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": user},
            {"role": "assistant", "content": assistant},
        ]
    }


@pytest.mark.parametrize(
    ("text", "languages", "kept"),
    [
        (ENGLISH, ["en"], True),
        (GERMAN, ["en"], False),
        (GERMAN, ["en", "de"], True),
        (CHINESE, ["zh"], True),
        (CHINESE, "zh-cn", True),
        (CHINESE, ["en"], False),
    ],
)
def test_languages(text: str, languages: Any, kept: bool) -> None:
    keep = Language(languages=languages)
    reasons = {keep({"text": text}) for _ in range(5)}
    assert len(reasons) == 1
    assert (reasons == {None}) == kept


def test_the_reason_is_countable() -> None:
    reason = Language()({"text": GERMAN})
    assert reason == "the language is not en, got de"


def test_which_turns_are_read() -> None:
    row = chat(ENGLISH, GERMAN)
    assert Language(fields="prompt")(row) is None
    assert Language(fields="answer")(row) == "the language is not en, got de"


def test_texts_that_do_not_tell() -> None:
    for text in ("2 + 2 = 4", "ok", "12345 67890 " * 20):
        assert Language()({"text": text}) is None
        assert Language(unknown="drop")({"text": text}) == "the language cannot be told"


def test_a_mixed_text_needs_the_probability() -> None:
    mixed = {"text": f"{ENGLISH} {GERMAN}"}
    assert Language(languages=("en", "de"), min_probability=0.9)(mixed) is None
    assert Language(min_probability=0.999999)(mixed) is not None


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"languages": ["xx"]}, "langdetect knows no language 'xx'"),
        ({"languages": []}, "needs `languages`"),
        ({"min_probability": 0}, "above 0 and at most 1"),
        ({"unknown": "flag"}, "`unknown` must be one of keep, drop"),
    ],
)
def test_options_are_checked(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Language(**options)


def test_without_langdetect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "langdetect", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'posttrain\[eval\]'"):
        Language()
