"""What personal data and secrets look like, and how a find is proven.

Numbers are proven where they carry a proof (Luhn, IBAN's checksum), and what cannot belong to a
person is passed over: example domains, private addresses, 555 numbers, test cards, versions.
Names and postal addresses need a model and are not found.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable

_TEST_CARDS = frozenset(
    {"4111111111111111", "4242424242424242", "4012888888881881", "5555555555554444"}
    | {"5105105105105100", "378282246310005", "371449635398431"}
    | {"6011111111111117", "3530111333300000"}
)
# length -> the countries whose IBAN has it
_IBAN_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI NL",
    19: "SI",
    20: "AT EE LT LU",
    21: "CH HR LI LV",
    22: "BG DE GB IE RS",
    23: "AE GI IL",
    24: "AD CZ ES RO SA SE SK",
    25: "PT",
    26: "IS TR",
    27: "FR GR IT MC SM",
    28: "CY HU PL",
    29: "BR",
    31: "MT",
}
_IBAN_LENGTHS = {code: n for n, codes in _IBAN_COUNTRIES.items() for code in codes.split()}
_SPECIMEN_SSNS = frozenset(("078-05-1120", "219-09-9999", "123-45-6789"))
_TOLL_FREE = frozenset(("800", "833", "844", "855", "866", "877", "888"))


def _email(found: re.Match[str]) -> bool:
    domain = found["domain"].lower()
    return not re.search(
        r"(?:^|\.)example(?:\.(?:com|org|net))?$|\.(?:test|invalid|local)$", domain
    )


def _phone(found: re.Match[str]) -> bool:
    if found["area"]:
        return found["exchange"] != "555" and found["area"] not in _TOLL_FREE
    groups = re.findall(r"\d+", found[0])  # single digits in a row are a sum or a list
    return len(groups) <= 6 and max(map(len, groups)) >= 3


def _global(text: str) -> bool:
    try:
        return ipaddress.ip_address(text).is_global
    except ValueError:
        return False


def _ipv4(found: re.Match[str]) -> bool:
    # 1.2.3.4 is more often a version or a section, 8.8.8.8 belongs to nobody
    return len(found[0]) > len("1.2.3.4") and _global(found[0])


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(d), 10)) for d in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def _card(found: re.Match[str]) -> bool:
    digits = re.sub(r"\D", "", found[0])
    return digits not in _TEST_CARDS and _luhn(digits)


def _iban(found: re.Match[str]) -> bool:
    code = found[0].replace(" ", "")
    length = _IBAN_LENGTHS.get(code[:2], 0)
    if not length or len(code) < length:
        return False
    code = code[:length]  # a word in capitals may follow
    return int("".join(str(int(c, 36)) for c in code[4:] + code[:4])) % 97 == 1


def _ssn(found: re.Match[str]) -> bool:
    return found[0] not in _SPECIMEN_SSNS


def _any(found: re.Match[str]) -> bool:
    return True


# Each pattern starts where the character before cannot belong to it, and repeats a bounded
# number of times: the time is linear in the text.
_KINDS: dict[str, tuple[str, Callable[[re.Match[str]], bool]]] = {
    "email": (
        r"(?<![\w.%+-])[\w%+-][\w.%+-]{0,63}@(?P<domain>(?:[A-Za-z0-9-]{1,63}\.){1,6}[A-Za-z]{2,24})"
        r"(?![\w-])",
        _email,
    ),
    "phone": (
        r"(?<![\w.+/=-])(?:\+[1-9](?:[ .-]?\(?\d\)?){7,14}"
        r"|(?:1[ .-])?\(?(?P<area>[2-9]\d\d)\)?[ .-]{1,2}(?P<exchange>[2-9]\d\d)[ .-]\d{4})"
        r"(?![\w-]|\.\d)",
        _phone,
    ),
    "ipv4": (r"(?<![\w.-])(?<!version )(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)", _ipv4),
    "ipv6": (
        r"(?<![\w:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![\w:])",
        lambda found: _global(found[0]),
    ),
    "credit_card": (
        r"(?<![\w.-])(?:3[47]\d\d[ -]?\d{6}[ -]?\d{5}"
        r"|(?:4\d{3}|5[1-5]\d\d|2[2-7]\d\d|6011|65\d\d|64[4-9]\d|35\d\d)(?:[ -]?\d{4}){3})"
        r"(?![\w-]|\.\d)",
        _card,
    ),
    "iban": (r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)", _iban),
    "ssn": (r"(?<![\w.-])(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}(?![\w-])", _ssn),
    "secret": (
        r"-----BEGIN (?:[A-Z]{2,10} ){0,2}PRIVATE KEY-----"
        r"|(?<!\w)(?:(?:AKIA|ASIA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{36}|AIza[\w-]{35}"
        r"|xox[abprs]-[A-Za-z0-9-]{10,72}|sk_live_[A-Za-z0-9]{24,64})(?![\w-])",
        _any,
    ),
}
# What a find of the kind cannot be without, quick to look for: most texts end here.
_NUMBER = r"\d(?:[ .()-]{0,2}\d){4}"
_HINTS = {
    **dict.fromkeys(_KINDS, _NUMBER),
    "email": "@",
    "ipv6": r"[23][0-9A-Fa-f]{3}:",
    "secret": r"PRIVATE KEY|A[KS]IA|gh[pousr]_|AIza|xox|sk_live_",
}
KINDS = tuple(_KINDS)
_COMPILED = {
    name: (re.compile(_HINTS[name]), re.compile(pattern), proof)
    for name, (pattern, proof) in _KINDS.items()
}


def has(kind: str, text: str) -> bool:
    """The text holds at least one proven find of the kind."""
    hint, pattern, proof = _COMPILED[kind]
    return bool(hint.search(text)) and any(map(proof, pattern.finditer(text)))
