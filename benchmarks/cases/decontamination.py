"""Training rows against all public evaluation sets, and against the rule written out plainly.

The peer reads the rule aloud: for each training row the set of its n-grams, for each evaluation
prompt the n-grams of it that are in that set. Ours is timed with the building of its index, the
peer without its preparation. `python_index_rows_per_s` is a plainer rival that is fairer: the same
rule in pure Python over a dictionary from n-gram to prompt.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
ANSWERS = ("possible_answer", "reference_answer")  # files of an evaluation set without its prompts
TULU = 939_343  # rows of the Tülu 3 SFT mixture
N, THRESHOLD = 8, 0.5

Matches = list[list[float]]  # [row, evaluation prompt, overlap]


def files(*kinds: str) -> list[Path]:
    """Data files of these kinds."""
    with (DATA / "MANIFEST.jsonl").open(encoding="utf-8") as lines:
        entries = [json.loads(line) for line in lines]
    return [
        DATA / entry["file"]
        for entry in entries
        if entry["kind"] in kinds and not any(part in entry["file"] for part in ANSWERS)
    ]


def read(count: int, every: int = 1) -> tuple[list[list[str]], list[str]]:
    """User turns of every so many of `count` training rows, and all evaluation prompts."""
    from posttrain.decontamination import read_eval_file, user_turns
    from posttrain.decontamination.lines import open_lines, parse

    rows = [
        user_turns(parse(place, line))
        for path in files("train", "train/dev")
        for place, line in open_lines(path)
    ]
    prompts = [prompt for path in files("eval (80%)") for prompt in read_eval_file(path).prompts]
    return [rows[i % len(rows)] for i in range(0, count, every)], prompts


def ours(count: int, every: int) -> dict[str, Any]:
    """Seconds for all rows, and the matches of those that the peer looks at too."""
    from posttrain.decontamination import Decontaminator, EvalSet

    rows, prompts = read(count)
    begin = time.perf_counter()
    finder = Decontaminator([EvalSet("all", prompts)], "ngram", N, THRESHOLD)
    build = time.perf_counter() - begin
    found = []
    for start in range(0, count, 2048):
        found += finder.matches_of(rows[start : start + 2048])
    seconds = time.perf_counter() - begin
    shown: Matches = [
        [i, match.eval_row, match.overlap]
        for i, matches in enumerate(found[::every])
        for match in matches
    ]
    matched = sum(map(bool, found))
    return {"seconds": seconds, "build": build, "matches": shown, "matched_rows": matched}


def tokens(text: str) -> list[str]:
    """Runs of word characters in lower case: enough for rows in English."""
    return re.findall(r"\w+", text.lower())


def grams_of(turn: list[str]) -> list[str]:
    return [" ".join(turn[i : i + N]) for i in range(len(turn) - N + 1)]


def overlap_of(prompt: list[str], shared: set[str]) -> float:
    flags = [False] * len(prompt)
    for i, gram in enumerate(grams_of(prompt)):
        if gram in shared:
            flags[i : i + N] = [True] * N
    return sum(flags) / len(flags)


def plain(count: int, every: int) -> dict[str, Any]:
    """The rule, row by row and prompt by prompt."""
    rows, texts = read(count, every)
    prompts = [tokens(text) for text in texts]
    grams = [grams_of(prompt) for prompt in prompts]
    found: Matches = []
    begin = time.perf_counter()
    for i, row in enumerate(rows):
        turns = [tokens(turn) for turn in row]
        shared = {gram for turn in turns for gram in grams_of(turn)}
        for j, prompt in enumerate(prompts):
            if 0 < len(prompt) < N:
                overlap = 1.0 if prompt in turns else 0.0
            elif shared.isdisjoint(grams[j]):
                continue
            else:
                overlap = overlap_of(prompt, shared)
            if overlap >= THRESHOLD:
                found.append([i, j, overlap])
    return {"seconds": time.perf_counter() - begin, "matches": found}


def python_index(count: int, every: int) -> dict[str, Any]:
    """The same with a dictionary from n-gram to prompts."""
    rows, texts = read(count, every)
    prompts = [tokens(text) for text in texts]
    where: dict[str, set[int]] = defaultdict(set)
    for j, prompt in enumerate(prompts):
        for gram in grams_of(prompt) if len(prompt) >= N else [" ".join(prompt)]:
            where[gram].add(j)
    found: Matches = []
    begin = time.perf_counter()
    for i, row in enumerate(rows):
        turns = [tokens(turn) for turn in row]
        shared = {gram for turn in turns for gram in grams_of(turn)}
        near = {j for gram in shared for j in where.get(gram, ())}
        whole = {j for turn in turns if 0 < len(turn) < N for j in where.get(" ".join(turn), ())}
        overlaps = {j: overlap_of(prompts[j], shared) for j in near} | dict.fromkeys(whole, 1.0)
        found += [[i, j, share] for j, share in sorted(overlaps.items()) if share >= THRESHOLD]
    return {"seconds": time.perf_counter() - begin, "matches": found}


def run(quick: bool) -> dict[str, Any]:
    """200,000 training rows; the peer looks at 2,000 of them (quick: 10,000 and 200)."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    from measure import in_child

    child: Callable[..., Any] = in_child
    count, sample = (10_000, 200) if quick else (200_000, 2_000)
    every = count // sample
    mine, seconds, peak = child(ours, count, every)
    peer, peer_seconds, peer_peak = child(plain, count, every)
    rival, rival_seconds, _ = child(python_index, count, 1 if quick else 10)
    build = mine["build"]
    rate, peer_rate = count / seconds, sample / peer_seconds
    return {
        "bench": "data",
        "case": "decontamination",
        "ours": rate,
        "peer": peer_rate,
        "peer_name": "plain reference",
        "unit": "rows/s",
        "ratio": rate / peer_rate,
        "ours_peak_mb": peak,
        "peer_peak_mb": peer_peak,
        "identical": mine["matches"] == peer["matches"],
        "compared_matches": len(peer["matches"]),
        "rows": count,
        "seconds": seconds,
        "matched_rows": mine["matched_rows"],
        "build_seconds": build,
        "extrapolated_tulu_939343_seconds": build + (seconds - build) * TULU / count,
        "python_index_rows_per_s": (count if quick else count // 10) / rival_seconds,
        "python_index_matches": len(rival["matches"]),
    }
