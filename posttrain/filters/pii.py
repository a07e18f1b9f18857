"""Finds personal data and secrets: e-mail and IP addresses, phone, card and account numbers, keys.

The patterns, and what they pass over, are in `pii_patterns`.
"""

from __future__ import annotations

from dataclasses import dataclass

from posttrain.filters.base import Flag, check_option, turns
from posttrain.filters.pii_patterns import KINDS, has
from posttrain.formats import Row


@dataclass(frozen=True)
class PII:
    """Reads every turn of the row, the system's, tools' and rejected ones too.

    Attributes:
        kinds: what to look for; all when left out: `email`, `phone`, `ipv4`, `ipv6`,
            `credit_card`, `iban`, `ssn` (US) and `secret` (private keys, tokens of well-known
            services).
        action: `flag` counts the row and keeps it, `drop` drops it.

    Raises:
        ValueError: an unknown kind or action.
    """

    kinds: tuple[str, ...] = KINDS
    action: str = "flag"

    def __post_init__(self) -> None:
        given = (self.kinds,) if isinstance(self.kinds, str) else tuple(self.kinds)
        for kind in given:
            check_option("kinds", kind, KINDS)
        object.__setattr__(self, "kinds", given)
        check_option("action", self.action, ("flag", "drop"))

    def __call__(self, row: Row) -> str | None:
        texts = [turn["content"] for turn in turns(row)]
        found = [kind for kind in self.kinds if any(has(kind, text) for text in texts)]
        if not found:
            return None
        reason = f"personal data: {', '.join(found)}"
        return reason if self.action == "drop" else Flag(reason)
