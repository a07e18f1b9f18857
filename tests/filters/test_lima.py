"""LIMA's rules, each with a row that passes and one that fails."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters.lima import Lima

FILL = "Plain words about the matter. " * 42  # 1,260 characters


def answer(text: str) -> dict[str, Any]:
    return {
        "messages": [
            {"role": "user", "content": "I ask, as mentioned, for my answer."},
            {"role": "assistant", "content": text},
        ]
    }


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (FILL, None),
        (FILL[:1200], None),
        (FILL[:1199], "an answer has fewer than 1200 characters"),
        ("a" * 4096, None),
        ("a" * 4097, "an answer has more than 4096 characters"),
        (FILL + "It worked for me and my dog.", "an answer is written in the first person"),
        (FILL + "I would try it.", "an answer is written in the first person"),
        (FILL + "A list of i and j, i.e. indices; MYSQL, mystery, IV.", None),
        (FILL + "```\nfor I in my list: print(I)\n```", None),  # code is not read
        (FILL + "Set `my` to 1.", None),
        (FILL + "As mentioned by others, no.", "an answer refers to other answers"),
        (FILL + "See the accepted answer.", "an answer refers to other answers"),
        (FILL + "The answer is 4. Mentioned here is all.", None),
        (FILL + "See https://a.b/c.", None),
    ],
)
def test_rules(text: str, reason: str | None) -> None:
    assert Lima()(answer(text)) == reason


def test_links_may_be_refused() -> None:
    keep = Lima(links="drop")
    for link in ("https://a.b/c", "[here](x.html)", "![plot](p.png)", '<a href="x">y</a>'):
        assert keep(answer(FILL + link)) == "an answer has links or images"
    assert keep(answer(FILL + "arrays such as a[0] (zero)")) is None
    with pytest.raises(ValueError, match="`links` must be keep or drop"):
        Lima(links="strip")
