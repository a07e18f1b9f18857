"""Packing a million lengths drawn like Tülu's: `best_fit` against TRL's `pack_dataset`.

Both are timed on packing alone. Ours answers with row numbers, and tokens are gathered when a
batch is read. TRL's copies the tokens, within windows of 1,000 rows; to spare it what it can be
spared, its data set is built beforehand, in memory, of one column of one-byte zeros. Ours is over
in a blink, so it runs five times and the median counts; TRL's takes a minute and runs once.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

from measure import in_child

CAPACITY = 4096


def lengths_like_tulu(num: int) -> Any:
    """`[num]` int64: log-normal of mean 700, a long tail, cut at 4,096."""
    import numpy as np

    draw = np.random.default_rng(0).lognormal(np.log(700) - 0.5, 1.0, num)
    return np.clip(draw, 8, CAPACITY).astype(np.int64)


def ours(num: int) -> dict[str, float]:
    """Seconds and fill of our packing."""
    from posttrain.packing.best_fit import best_fit

    lengths, seconds = lengths_like_tulu(num), []
    for _ in range(5):
        begin = time.perf_counter()
        bins = best_fit(lengths, CAPACITY)
        seconds.append(time.perf_counter() - begin)
    return {"seconds": statistics.median(seconds), "fill": bins.fill(lengths, CAPACITY)}


def trl(num: int) -> dict[str, float]:
    """Seconds and fill of TRL's."""
    import numpy as np
    import pyarrow as pa
    from datasets import Dataset, disable_progress_bars
    from trl import pack_dataset

    disable_progress_bars()
    lengths = lengths_like_tulu(num)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    tokens = pa.Array.from_buffers(
        pa.int8(), int(offsets[-1]), [None, pa.py_buffer(bytes(int(offsets[-1])))]
    )
    column = pa.LargeListArray.from_arrays(pa.array(offsets), tokens)
    rows = Dataset(pa.table({"input_ids": column}))
    pack_dataset(rows.select(range(1000)), CAPACITY, strategy="bfd")
    begin = time.perf_counter()
    packed = pack_dataset(rows, CAPACITY, strategy="bfd")
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "fill": float(lengths.sum()) / (len(packed) * CAPACITY)}


def run(quick: bool) -> dict[str, Any]:
    """The case "packing" of the data benchmark."""
    num = 50_000 if quick else 1_000_000
    mine, our_seconds, our_mb = in_child(ours, num)
    theirs, peer_seconds, peer_mb = in_child(trl, num)
    return {
        "bench": "data",
        "case": "packing",
        "ours": num / our_seconds,
        "peer": num / peer_seconds,
        "peer_name": "trl.pack_dataset bfd",
        "unit": "rows/s",
        "ratio": peer_seconds / our_seconds,
        "ours_peak_mb": our_mb,
        "peer_peak_mb": peer_mb,
        "fill": mine["fill"],
        "peer_fill": theirs["fill"],
    }
