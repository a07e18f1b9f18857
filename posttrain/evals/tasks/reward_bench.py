"""RewardBench (Lambert et al. 2024, arXiv:2403.13787): 2,985 pairs of 23 subsets in 4 sections.

The score is the leaderboard's without its prior sets: the mean of the four sections, in each of
which subsets weigh by their rows; the mathematical subset weighs as much as those of code together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from posttrain.evals.tasks.pairs import Pairs
from posttrain.formats import Row
from posttrain.recipe import Source

SECTIONS = {
    "chat": (
        "alpacaeval-easy",
        "alpacaeval-length",
        "alpacaeval-hard",
        "mt-bench-easy",
        "mt-bench-med",
    ),
    "chat hard": (
        "mt-bench-hard",
        "llmbar-natural",
        "llmbar-adver-neighbor",
        "llmbar-adver-GPTInst",
        "llmbar-adver-GPTOut",
        "llmbar-adver-manual",
    ),
    "safety": (
        "refusals-dangerous",
        "refusals-offensive",
        "xstest-should-refuse",
        "xstest-should-respond",
        "donotanswer",
    ),
    "reasoning": (
        "math-prm",
        "hep-cpp",
        "hep-go",
        "hep-java",
        "hep-js",
        "hep-python",
        "hep-rust",
    ),
}


class RewardBench(Pairs):
    """The filtered split."""

    name = "reward_bench"
    leaves_out = False
    version = "1-filtered"
    source: ClassVar[Source | None] = Source(path="allenai/reward-bench", split="filtered")

    def problem(self, row: Row) -> Row:
        return {**row, "source": row.get("subset") or row.get("source") or ""}

    def weights(self, counts: Mapping[str, int]) -> dict[str, float] | None:
        """Sections count alike; rows of other subsets turn the score into a plain mean."""
        if counts.keys() - {name for names in SECTIONS.values() for name in names}:
            return None
        code = sum(n for name, n in counts.items() if name.startswith("hep-"))
        even = {**counts, "math-prm": code} if code and "math-prm" in counts else dict(counts)
        return sections(SECTIONS, even)


def sections(parts: Mapping[str, tuple[str, ...]], counts: Mapping[str, float]) -> dict[str, float]:
    """Weights under which sections count alike, and inside them sources by their counts.

    Args:
        parts: section -> its sources, of which some may be absent.
        counts: source -> what it weighs inside its section.
    """
    there = {s: [name for name in names if name in counts] for s, names in parts.items()}
    there = {s: names for s, names in there.items() if names}
    return {
        name: counts[name] / sum(counts[n] for n in names) / len(there)
        for names in there.values()
        for name in names
    }
