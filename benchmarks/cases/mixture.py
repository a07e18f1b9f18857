"""Memory of a mixture of generated rows: flat in their number.

The peer is what most libraries do: `datasets` builds the same rows with `Dataset.from_generator`
and shuffles them. It maps its file into memory, which counts as resident while it is read. It is
the faster of the two, for it checks nothing: ours reads every row as a conversation, counts what it
drops and hashes what it keeps.
"""

from __future__ import annotations

import os
import resource
import tempfile
from typing import Any


def ours(folder: str, count: int) -> dict[str, Any]:
    """Build the mixture and walk through every hundredth row of it."""
    os.environ["POSTTRAIN_CACHE"] = folder
    from posttrain.mixture import build_mixture

    entry = {"path": "generated:tiny_conversations", "num_samples": count}
    rows = build_mixture([entry], seed=1).rows
    characters = sum(len(rows[i]["messages"][-1]["content"]) for i in range(0, len(rows), 100))
    return {"rows": len(rows), "characters": characters, "own_peak_mb": own_peak()}


def theirs(folder: str, count: int) -> dict[str, Any]:
    """The same rows, built and shuffled by `datasets`."""
    from itertools import islice

    from datasets import Dataset

    from posttrain.sources.tiny import conversations

    def generate() -> Any:
        yield from islice(conversations(1), count)

    rows = Dataset.from_generator(generate, cache_dir=folder).shuffle(seed=1)
    characters = sum(len(str(rows[i])) for i in range(0, len(rows), 100))
    return {"rows": len(rows), "characters": characters, "own_peak_mb": own_peak()}


def own_peak() -> float:
    """Peak resident memory of this process without its children, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(quick: bool) -> dict[str, Any]:
    """1,000,000 and 2,000,000 rows (quick: 50,000 and 100,000)."""
    from measure import in_child

    half, whole = (50_000, 100_000) if quick else (1_000_000, 2_000_000)
    answers = {}
    for name, function, count in (
        ("half", ours, half),
        ("ours", ours, whole),
        ("peer", theirs, whole),
    ):
        with tempfile.TemporaryDirectory() as folder:
            answers[name] = in_child(function, folder, count)
    (_, seconds, peak), (_, peer_seconds, peer_peak) = answers["ours"], answers["peer"]
    return {
        "bench": "data",
        "case": "mixture",
        "ours": peak,
        "peer": peer_peak,
        "peer_name": "datasets.Dataset.from_generator + shuffle",
        "unit": "MB at most",
        "ratio": peer_peak / peak,
        "ours_rows_per_s": whole / seconds,
        "peer_rows_per_s": whole / peer_seconds,
        "ours_peak_mb": peak,
        "peer_peak_mb": peer_peak,
        "ours_peak_mb_half": answers["half"][2],
        "ours_own_peak_mb": answers["ours"][0]["own_peak_mb"],
        "ours_own_peak_mb_half": answers["half"][0]["own_peak_mb"],
        "rows": whole,
    }
