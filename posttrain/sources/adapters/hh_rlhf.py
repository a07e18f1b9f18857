"""Anthropic's hh-rlhf: two transcripts that part at their last answer (arXiv:2204.05862)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from posttrain.errors import DataError
from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import text

MARKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class HHRLHF:
    r"""Anthropic/hh-rlhf.

    {"chosen": "\n\nHuman: What human emotion would you like to experience\n\nAssistant: Aww...
      how about love?  Can we feel it?",
     "rejected": "\n\nHuman: What human emotion would you like to experience\n\nAssistant: Fear."}

    As an SFT row it is the chosen transcript.
    """

    def __call__(self, raw: Any) -> list[Row]:
        chosen, rejected = (turns_of(text(raw, side)) for side in ("chosen", "rejected"))
        return [{"messages": chosen, "chosen": chosen, "rejected": rejected}]


def turns_of(transcript: str) -> list[dict[str, str]]:
    """The turns of a transcript, without the blanks around them.

    Raises:
        DataError: it does not begin with `Human:` or `Assistant:`.
    """
    before, *rest = MARKER.split(transcript)
    if before.strip() or not rest:
        raise DataError(f"a transcript must begin with Human: or Assistant:, got {shown(before)}")
    return [
        {"role": ROLES[who], "content": said.strip()}
        for who, said in zip(rest[::2], rest[1::2], strict=True)
    ]
