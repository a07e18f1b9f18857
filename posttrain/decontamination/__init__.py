"""Training rows against evaluation prompts: which rows hold one, and how much of each set leaks.

In process, exact, one pass over the training rows. One file per way of comparing; their names are
in the table `MODES`. They find copies; paraphrases only as far as an embedding knows them.
"""

from __future__ import annotations

from posttrain.decontamination.contamination import Contamination, contamination
from posttrain.decontamination.embedding import Embed, Lexical
from posttrain.decontamination.files import decontaminate_file
from posttrain.decontamination.match import MODES, Decontaminator, Match, drop_reason
from posttrain.decontamination.prompts import EvalSet, eval_set, read_eval_file, user_turns
from posttrain.decontamination.settings import Against, Decontamination, read_settings

__all__ = [
    "MODES",
    "Against",
    "Contamination",
    "Decontamination",
    "Decontaminator",
    "Embed",
    "EvalSet",
    "Lexical",
    "Match",
    "contamination",
    "decontaminate_file",
    "drop_reason",
    "eval_set",
    "read_eval_file",
    "read_settings",
    "user_turns",
]
