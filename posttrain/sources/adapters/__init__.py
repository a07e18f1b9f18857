"""How a data set writes its rows -> rows in our shapes. One file per format that has any logic.

An adapter is a dataclass whose fields are the options of `format:`. Those of `ROW_FORMATS` turn one
raw row into raw rows that `formats.to_row` reads; those of `STREAM_FORMATS` read all raw rows in
order, because several of them make one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from posttrain.errors import DataError, build
from posttrain.formats import Row
from posttrain.sources.adapters.alpaca import Alpaca
from posttrain.sources.adapters.aya import Aya
from posttrain.sources.adapters.base import PLACE, LeftOut
from posttrain.sources.adapters.chat import Chat
from posttrain.sources.adapters.columns import (
    CoCoNot,
    Columns,
    Dolly,
    EvolCodeAlpaca,
    Flan,
    FlanCoT,
    OpenMath,
    OpenOrca,
    SciRIFF,
    TableGPT,
)
from posttrain.sources.adapters.glaive import Glaive
from posttrain.sources.adapters.gsm8k import GSM8K
from posttrain.sources.adapters.hh_rlhf import HHRLHF
from posttrain.sources.adapters.lima import LIMA
from posttrain.sources.adapters.oasst import OASST
from posttrain.sources.adapters.promptsource import PromptSource
from posttrain.sources.adapters.safety import WildGuardMix, WildJailbreak
from posttrain.sources.adapters.self_instruct import SelfInstruct
from posttrain.sources.adapters.sharegpt import ShareGPT
from posttrain.sources.adapters.superni import SuperNI
from posttrain.sources.adapters.ultrafeedback import UltraFeedback, UltraFeedbackBinarized
from posttrain.sources.adapters.wildchat import WildChat
from posttrain.sources.tulu import KNOWN_FORMATS

__all__ = [
    "FORMATS",
    "PLACE",
    "ROW_FORMATS",
    "STREAM_FORMATS",
    "LeftOut",
    "adapt",
    "detect",
    "get_format",
]

ROW_FORMATS: dict[str, type] = {
    "alpaca": Alpaca,
    "aya": Aya,
    "chat": Chat,
    "coconot": CoCoNot,
    "columns": Columns,
    "dolly": Dolly,
    "evol_codealpaca": EvolCodeAlpaca,
    "flan": Flan,
    "flan_cot": FlanCoT,
    "glaive": Glaive,
    "gsm8k": GSM8K,
    "hh_rlhf": HHRLHF,
    "lima": LIMA,
    "no_robots": Chat,
    "numina_tir": Chat,
    "open_orca": OpenOrca,
    "openmath": OpenMath,
    "promptsource": PromptSource,
    "rlvr": Chat,
    "sciriff": SciRIFF,
    "self_instruct": SelfInstruct,
    "sharegpt": ShareGPT,
    "superni": SuperNI,
    "table_gpt": TableGPT,
    "ultrafeedback": UltraFeedback,
    "ultrafeedback_binarized": UltraFeedbackBinarized,
    "wildchat": WildChat,
    "wildguardmix": WildGuardMix,
    "wildjailbreak": WildJailbreak,
}
STREAM_FORMATS: dict[str, type] = {"oasst": OASST}
FORMATS: dict[str, type] = ROW_FORMATS | STREAM_FORMATS

# columns that only one format has; the first line that fits decides
MARKS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("messages",), "chat"),
    (("message_tree_id",), "oasst"),
    (("prompt", "completion"), "chat"),
    (("Definition", "Instances"), "superni"),
    (("vanilla", "adversarial", "completion"), "wildjailbreak"),
    (("instruction", "completions"), "ultrafeedback"),
    (("instruction", "instances"), "self_instruct"),
    (("instruction", "context", "response"), "dolly"),
    (("instruction", "output"), "alpaca"),
    (("instruction", "response"), "alpaca"),
    (("instruction", "chosen", "rejected"), "alpaca"),
    (("system_prompt", "question", "response"), "open_orca"),
    (("conversation_hash", "conversation"), "wildchat"),
    (("inputs", "targets"), "flan"),
)


def get_format(
    spec: str | Mapping[str, Any] | None, raw_example: Any = None, path: str | None = None
) -> Any:
    """The adapter that `format:` names, or else the one for this hub id, or for rows like this.

    Args:
        spec: a name, `{name: ..., option: ...}` or `None`.
        raw_example: the source's first raw row.
        path: the source's hub id.

    Raises:
        RecipeError: an unknown name or option.
    """
    if spec is None:
        spec = KNOWN_FORMATS.get(path or "") or detect(raw_example)
    return build("format", FORMATS, spec)


def detect(raw: Any) -> str:
    """The format that a row's columns name without doubt; `chat` (as it is) where there is any."""
    if not isinstance(raw, Mapping):
        return "chat"
    turns = raw.get("conversations")
    if isinstance(turns, (list, tuple)) and turns and not raw.get("messages"):
        return "lima" if isinstance(turns[0], str) else "sharegpt"
    sides = [raw.get(side) for side in ("chosen", "rejected")]
    if all(isinstance(side, str) and "\n\nHuman:" in side for side in sides):
        return "hh_rlhf" if raw.get("prompt") is None else "chat"
    if isinstance(raw.get("system"), str) and isinstance(raw.get("chat"), str):
        return "glaive"
    for columns, name in MARKS:
        if all(raw.get(column) is not None for column in columns):
            return name
    return "chat"


def adapt(adapter: Any, raw_rows: Iterable[Any]) -> Iterator[tuple[int, Row | DataError]]:
    """What an adapter of either table makes of raw rows, without stopping at a bad one.

    Yields:
        The 0-based number of the raw row last read, and a raw row in one of our shapes or the
        error that stands in its place (`LeftOut` where nothing is wrong with it).
    """
    if type(adapter) in STREAM_FORMATS.values():
        last = -1

        def counted() -> Iterator[Any]:
            nonlocal last
            for last, raw in enumerate(raw_rows):  # noqa: B007 - read by the loop below
                yield raw

        for made in adapter(counted()):
            yield last, made
        return
    for number, raw in enumerate(raw_rows):
        try:
            rows = adapter(raw)
        except DataError as error:
            yield number, error
            continue
        for row in rows:
            yield number, row
