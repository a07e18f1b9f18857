"""Data sets that only call the prompt and the answer by other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.formats import Row
from posttrain.sources.adapters.base import as_where, joined, maybe_text, names, require


@dataclass(frozen=True)
class Columns:
    """Any names: {name: columns, prompt: [question, hint], completion: answer, system: role}.

        {"question": "Which is a species of fish? Tope or Rope", "answer": "Tope", …}

    Attributes:
        prompt: column of the user's turn, or several, joined with a blank line; empty ones are
            skipped, but the first must be there.
        completion: column of the answer, or several.
        system: column of a system turn, left out where it is empty.
        where: column -> the value or values that a row must have there.
    """

    prompt: str | Sequence[str] = "prompt"
    completion: str | Sequence[str] = "completion"
    system: str | None = None
    where: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "where", as_where(self.where))

    def __call__(self, raw: Any) -> list[Row]:
        require(raw, self.where)
        prompt = joined(raw, names(self.prompt))
        completion = joined(raw, names(self.completion))
        system = maybe_text(raw, self.system) if self.system else ""
        turns = [("system", system)] if system.strip() else []
        turns += [("user", prompt), ("assistant", completion)]
        return [{"messages": [{"role": role, "content": content} for role, content in turns]}]


@dataclass(frozen=True)
class Dolly(Columns):
    """databricks/databricks-dolly-15k.

    {"instruction": "When did Virgin Australia start operating?", "context": "Virgin Australia, …",
     "response": "Virgin Australia commenced services on 31 August 2000 …", "category": "closed_qa"}
    """

    prompt: str | Sequence[str] = ("instruction", "context")
    completion: str | Sequence[str] = "response"


@dataclass(frozen=True)
class OpenOrca(Columns):
    """Open-Orca/OpenOrca.

    {"id": "flan.…", "system_prompt": "You are an AI assistant. …", "question": "…",
     "response": "…"}
    """

    prompt: str | Sequence[str] = "question"
    completion: str | Sequence[str] = "response"
    system: str | None = "system_prompt"


@dataclass(frozen=True)
class Flan(Columns):
    """FLAN v2 as SirNeural/flan_v2 stores it: {"inputs": "…", "targets": "…", "task": "cot_…"}."""

    prompt: str | Sequence[str] = "inputs"
    completion: str | Sequence[str] = "targets"


@dataclass(frozen=True)
class FlanCoT(Columns):
    """The chain-of-thought tables of google-research/FLAN, columns named: rationale, then answer.

    {"question": "Are more people today related to Genghis Khan than Julius Caesar?",
     "answer": "yes", "rationale": "Julius Caesar had three children. …"}
    """

    prompt: str | Sequence[str] = "question"
    completion: str | Sequence[str] = ("rationale", "answer")


@dataclass(frozen=True)
class SciRIFF(Columns):
    """allenai/SciRIFF: {"input": "You will be shown …", "output": "…", "metadata": {…}}."""

    prompt: str | Sequence[str] = "input"
    completion: str | Sequence[str] = "output"


@dataclass(frozen=True)
class CoCoNot(Columns):
    """allenai/coconot: {"id": "…", "category": "…", "prompt": "…", "response": "…"}."""

    completion: str | Sequence[str] = "response"


@dataclass(frozen=True)
class TableGPT(Columns):
    """LipengCS/Table-GPT: {"task": "…", "dataset": "…", "prompt": "…", "completion": "…", …}."""


@dataclass(frozen=True)
class OpenMath(Columns):
    """nvidia/OpenMathInstruct-2.

    {"problem": "…", "generated_solution": "…", "expected_answer": "…",
     "problem_source": "augmented_gsm8k"}
    """

    prompt: str | Sequence[str] = "problem"
    completion: str | Sequence[str] = "generated_solution"


@dataclass(frozen=True)
class EvolCodeAlpaca(Columns):
    """theblackcat102/evol-codealpaca-v1: {"instruction": "…", "output": "…"}."""

    prompt: str | Sequence[str] = "instruction"
    completion: str | Sequence[str] = "output"
