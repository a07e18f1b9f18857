"""WildChat: conversations of real users (arXiv:2405.01470)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from posttrain.formats import Row, shown
from posttrain.sources.adapters.base import LeftOut, items, text, value


@dataclass(frozen=True)
class WildChat:
    """allenai/WildChat-1M.

        {"conversation_hash": "c9ec5b440fbdd2a269333dd241f32f64", "model": "gpt-4-0314",
         "language": "English", "toxic": false, "redacted": false, "conversation": [
          {"role": "user", "content": "Hey there! Are you familiar with reality shifting? …", …},
          {"role": "assistant", "content": "Hey there! I'm more than happy to help you …", …}], …}

    Attributes:
        model: only conversations with a model whose name begins so; Tülu 3 took `gpt-4`.
        language: only conversations in this language.
        toxic: keep conversations marked as toxic.
    """

    model: str = ""
    language: str | None = None
    toxic: bool = False

    def __call__(self, raw: Any) -> list[Row]:
        if self.model and not text(raw, "model").startswith(self.model):
            raise LeftOut(f"another model answers, got {shown(value(raw, 'model'))}")
        if self.language and value(raw, "language") != self.language:
            raise LeftOut(f"the row is in another language, got {shown(value(raw, 'language'))}")
        if value(raw, "toxic") and not self.toxic:
            raise LeftOut("the conversation is marked as toxic")
        turns = [
            {"role": value(turn, "role"), "content": value(turn, "content")}
            for turn in items(raw, "conversation")
        ]
        return [{"messages": turns}]
