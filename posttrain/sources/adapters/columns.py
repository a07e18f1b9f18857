"""Data sets that only call the prompt and the answer by other names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from posttrain.formats import Row
from posttrain.sources.adapters.base import as_where, joined, maybe_text, names, require


@dataclass(frozen=True)
class Columns:
    """Any names, as {name: columns, prompt: [definition, inputs], completion: targets}.

    With these, a row of Muennighoff/natural-instructions:

        {"task_name": "task022_cosmosqa_passage_inappropriate_binary",
         "definition": "Read the given context and if the the context is inappropriate …",
         "inputs": "Context: As I was crawling back into bed I realized …", "targets": "No.", …}

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
    r"""Open-Orca/OpenOrca.

    {"id": "niv.242684", "system_prompt": "",
     "question": "You will be given a definition of a task first, then some input of the task. …",
     "response": "[\n  [\"AFC Ajax (amateurs)\", \"has ground\", \"Sportpark …"}
    """

    prompt: str | Sequence[str] = "question"
    completion: str | Sequence[str] = "response"
    system: str | None = "system_prompt"


@dataclass(frozen=True)
class Flan(Columns):
    r"""FLAN v2 as SirNeural/flan_v2 stores it; the texts are of Tülu's row `flan_v2_18667`.

    {"inputs": "Question: Write a text based on \"rangers show some iron to tie the series\" …",
     "targets": "six opposition candidates in the upcoming parliamentary elections in …", …}
    """

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
    r"""allenai/SciRIFF; the row is the example of its repository for the task MultiCite.

    {"input": "Your task is to classify the citation intent within the following provided text …",
     "output": "[\"Similarities\", \"Uses\"]", …}
    """

    prompt: str | Sequence[str] = "input"
    completion: str | Sequence[str] = "output"


@dataclass(frozen=True)
class CoCoNot(Columns):
    """allenai/coconot, part `original`; the row's answer is left out.

    {"category": "Indeterminate requests", "subcategory": "subjective questions",
     "prompt": "What is the most beautiful love song?", "response": "…", …}
    """

    completion: str | Sequence[str] = "response"


@dataclass(frozen=True)
class TableGPT(Columns):
    r"""LipengCS/Table-GPT; the row is the paper's example of the task (arXiv:2310.09263).

    {"task": "RowColumnSwapping",
     "prompt": "# Task Description: Please swap the second row and the third row in the table. …",
     "completion": "|Value|Colour|Type|\n|---|---|---|\n|1 lepton|brown|a| …", …}
    """


@dataclass(frozen=True)
class OpenMath(Columns):
    r"""nvidia/OpenMathInstruct-2.

    {"problem": "Ava is planning a camping trip with her friends. She wants to make sure …",
     "generated_solution": "There will be a total of 5 people.\nEach person needs 2 granola …",
     "expected_answer": "45", "problem_source": "augmented_gsm8k"}
    """

    prompt: str | Sequence[str] = "problem"
    completion: str | Sequence[str] = "generated_solution"


@dataclass(frozen=True)
class EvolCodeAlpaca(Columns):
    r"""theblackcat102/evol-codealpaca-v1; its decontaminated copy calls the answer `response`.

    {"instruction": "Please amend the subsequent Python script so that it includes a 'while' …",
     "output": "```python\n# Establish an integer list\narr = [1, 2, 3, 4]\n …"}
    """

    prompt: str | Sequence[str] = "instruction"
    completion: str | Sequence[str] = "output"
