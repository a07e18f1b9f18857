"""Packing: examples -> batches without padding, of the rows that each optimizer step is about.

`layout` puts sequences side by side in one row, `best_fit` fills packs, `batches` says which rows
each step and process takes, `collate` reads tokenised rows. `docs/packing.md` compares the ways.
"""

from posttrain.packing.batches import GlobalBatches, TokenBatches, check_budget, split_by_tokens
from posttrain.packing.best_fit import Bins, best_fit
from posttrain.packing.collate import Collator, Rows, pack_rows, row_lengths
from posttrain.packing.layout import EMPTY, IGNORE, Group, forward_inputs, pack

__all__ = [
    "EMPTY",
    "IGNORE",
    "Bins",
    "Collator",
    "GlobalBatches",
    "Group",
    "Rows",
    "TokenBatches",
    "best_fit",
    "check_budget",
    "forward_inputs",
    "pack",
    "pack_rows",
    "row_lengths",
    "split_by_tokens",
]
