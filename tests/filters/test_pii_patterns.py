"""Personal data found, and what looks like it passed over."""

from __future__ import annotations

import pytest

from posttrain.filters.pii_patterns import KINDS, has

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
