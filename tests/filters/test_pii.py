"""Personal data found, and what looks like it passed over."""

from __future__ import annotations

from typing import Any

import pytest

from posttrain.filters import Flag
from posttrain.filters.pii import KINDS, PII, has

FOUND = {
    "email": ["ann.lee@mail.org", "x+y@sub.firm.co.uk", "<bo@firm.de>"],
    "phone": [
        "(212) 664-7665",
        "212-664-7665",
        "1-212-664-7665",
        "+44 20 7946 0958",
        "+4915123456789",
        "+1 (650) 253-0000",
    ],
    "ipv4": ["81.2.69.142", "host 81.2.69.142:8080"],
    "ipv6": ["2a00:1450:4001:81b::200e", "[2607:f8b0:4005:805::200e]"],
    "credit_card": ["4539 1488 0343 6467", "4539148803436467", "3782-822463-10013"],
    "iban": ["GB82 WEST 1234 5698 7654 32", "DE89370400440532013000", "DE89370400440532013000 OK"],
    "ssn": ["536-22-1234"],
    "secret": [
        "AKIA" + "ABCDEFGHIJKLMNOP",
        "ghp_" + "a1" * 18,
        "-----BEGIN " + "RSA PRIVATE KEY-----",
    ],
}
PASSED = {
    "email": [
        "ann@example.com",
        "bo@sub.example.org",
        "a@b",
        "@handle",
        "x @ y.com",
        "it@host.local",
    ],
    "phone": [
        "(212) 555-0123",
        "800-664-7665",
        "2126647665",
        "112-664-7665",
        "2023-10-11",
        "+1 2 3 4 5 6 7 8",
        "3.1415926535",
        "212-664-76651",
        "+12",
    ],
    "ipv4": [
        "1.2.3.4",
        "8.8.8.8",
        "10.11.12.13",
        "192.168.100.200",
        "127.0.0.1",
        "256.10.10.10",
        "81.2.69.142.3",
        "v81.2.69.142",
        "version 81.2.69.142",
        "192.0.2.146",
        "81.2.69",
    ],
    "ipv6": ["12:30:45", "std::vector", "2001:db8::1", "fe80::1", "dead::beef", "2023:10:11"],
    "credit_card": [
        "4539 1488 0343 6468",
        "4111 1111 1111 1111",
        "1234 5678 9012 3456",
        "45391488034364670",
        "0.4539148803436467",
    ],
    "iban": [
        "GB82 WEST 1234 5698 7654 33",
        "XX82 WEST 1234 5698 7654 32",
        "GB82 WEST 1234",
        "US12 3456 7890 1234",
    ],
    "ssn": [
        "000-22-1234",
        "666-22-1234",
        "912-22-1234",
        "536-00-1234",
        "536-22-0000",
        "078-05-1120",
        "1536-22-1234",
        "536-22-12345",
    ],
    "secret": ["AKIA", "ghp_short", "-----BEGIN PUBLIC KEY-----", "xAKIA" + "A" * 16],
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind(kind: str) -> None:
    for text in FOUND[kind]:
        assert has(kind, f"It is {text}, I think."), text
        assert has(kind, text), text
    for text in PASSED[kind]:
        assert not has(kind, f"It is {text}, I think."), text
        assert not has(kind, text), text


def test_what_is_passed_over_is_no_other_kind_either() -> None:
    for kind, texts in PASSED.items():
        for text in texts:
            others = [other for other in KINDS if other != kind and has(other, text)]
            assert others == [], text


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
