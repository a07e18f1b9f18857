"""One file per benchmark; the names of the recipe stand in the table."""

from __future__ import annotations

from posttrain.errors import RecipeError, nearest
from posttrain.evals.tasks.base import EvalTask
from posttrain.evals.tasks.best_of_n import BestOfN
from posttrain.evals.tasks.gsm8k import GSM8K
from posttrain.evals.tasks.ifeval import IFEval
from posttrain.evals.tasks.llmbar import LLMBar
from posttrain.evals.tasks.pairs import Pairs
from posttrain.evals.tasks.reward_bench import RewardBench
from posttrain.evals.tasks.tiny import Tiny, TinyPreference

TASKS: dict[str, type[EvalTask]] = {
    "best_of_n": BestOfN,
    "gsm8k": GSM8K,
    "ifeval": IFEval,
    "llmbar": LLMBar,
    "pairs": Pairs,
    "reward_bench": RewardBench,
    "tiny": Tiny,
    "tiny_preference": TinyPreference,
}

SUITES = {
    # the development suite of Tülu 3 (arXiv:2411.15124, Table 24), as far as its tasks exist here
    "tulu3-dev": ("gsm8k", "ifeval"),
    "tiny": ("tiny", "tiny_preference"),
}


def get_task(name: str) -> EvalTask:
    """The task of this name.

    Raises:
        RecipeError: no such task.
    """
    if name not in TASKS:
        raise RecipeError(f"unknown task {name!r}{nearest(name, TASKS)}")
    return TASKS[name]()


def get_suite(name: str) -> tuple[str, ...]:
    """The tasks of a suite.

    Raises:
        RecipeError: no such suite.
    """
    if name not in SUITES:
        raise RecipeError(f"unknown suite {name!r}{nearest(name, SUITES)}")
    return SUITES[name]
