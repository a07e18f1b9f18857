"""Rows with personal data, flagged or dropped."""

from __future__ import annotations

from typing import Any

from posttrain.filters import Flag
from posttrain.filters.pii import PII


def test_a_real_prose_text_has_none() -> None:
    text = (
        "In 1969, Apollo 11 (launched 16 July, 13:32 UTC) flew 384,400 km; see section 4.2.1.3, "
        "ISBN 978-3-16-148410-0, π ≈ 3.14159265358979, f(x) = 12345678 * 87654321, v1.10.12.13."
    )
    assert PII()({"text": text}) is None


def turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def test_flag_and_drop() -> None:
    row = {"messages": [turn("user", "I am ann@mail.org"), turn("tool", "ip 81.2.69.142")]}
    flagged = PII()(row)
    assert isinstance(flagged, Flag)
    assert flagged == "personal data: email, ipv4"
    dropped = PII(action="drop", kinds=["ipv4"])(row)  # type: ignore[arg-type]
    assert dropped == "personal data: ipv4"
    assert not isinstance(dropped, Flag)
    assert PII(kinds=("ssn",))(row) is None


def test_every_turn_is_read() -> None:
    clean, personal = turn("assistant", "Yes."), turn("assistant", "Call 212-664-7665.")
    pair = {"prompt": [turn("user", "Who?")], "chosen": [clean], "rejected": [personal]}
    assert PII()(pair) == "personal data: phone"
    assert PII()({**pair, "rejected": [clean]}) is None
