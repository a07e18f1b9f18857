"""The row shapes that travel down the road, and the `Generate` protocol. No torch here.

    text          {"text": str}                                                       pretrain
    conversation  {"messages": [Message, ...]}                                        sft
    preference    {"prompt": [Message, ...], "chosen": [Message], "rejected": [...]}  dpo, reward
    problem       {"prompt": [Message, ...], "ground_truth": str, "verifier": str}    rlvr, eval

Every row also carries `source`, the name of where it came from, all the way to the loss, and
`tools` (a list of JSON schemas) where the model may call any. `to_row(kind, raw)` turns what the
ecosystem writes (messages; prompt/completion; strings or message lists) into these. What can be
mended is mended by a named rule (`REPAIRS`), and the rest refused with the reason.
"""

from __future__ import annotations

from posttrain.formats.messages import to_messages
from posttrain.formats.repairs import REPAIRS, clean, decode_json, from_json, shown
from posttrain.formats.rows import SEVERAL, to_row
from posttrain.formats.shapes import ROLES, Generate, Message, Row, Verdict

__all__ = [
    "REPAIRS",
    "ROLES",
    "SEVERAL",
    "Generate",
    "Message",
    "Row",
    "Verdict",
    "clean",
    "decode_json",
    "from_json",
    "shown",
    "to_messages",
    "to_row",
]
