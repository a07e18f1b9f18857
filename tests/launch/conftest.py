"""A whole small stack in a folder, to be run as a user would."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from posttrain.sources import tiny

SHAPE = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.15,
}
COMMON = {"max_length": 128, "batch_size": 8, "lr_scheduler_type": "constant"}
STAGES: dict[str, dict[str, Any]] = {
    "sft": {"datasets": [{"path": "chats.jsonl"}], "learning_rate": 3.0e-3, **COMMON},
    # accumulation differs from the stage before: a launcher's own settings must not outlive it
    "dpo": {
        "datasets": [{"path": "pairs.jsonl"}],
        "learning_rate": 3.0e-4,
        "per_device_train_batch_size": 2,
        **COMMON,
    },
    "reward": {
        "datasets": [{"path": "pairs.jsonl"}],
        "learning_rate": 1.0e-3,
        "max_steps": 3,
        **COMMON,
    },
    "rlvr": {
        "datasets": [{"path": "problems.jsonl"}],
        "learning_rate": 1.0e-3,
        "max_steps": 3,
        "num_generations": 4,
        "max_prompt_length": 96,
        "max_completion_length": 8,
        **COMMON,
    },
}
LETTER = {"letter": "a", "let_frequency": 1, "let_relation": "at least"}


def problems(seed: int) -> Iterator[dict[str, Any]]:
    """The tiny prompts with a demand that a random model meets now and then."""
    truth = {"instruction_id_list": ["keywords:letter_frequency"], "kwargs": [LETTER]}
    return (row | {"ground_truth": truth, "verifier": "ifeval"} for row in tiny.problems(seed))


ROWS = {
    "chats.jsonl": (tiny.conversations, 24),
    "pairs.jsonl": (tiny.preferences, 20),  # the third batch is a partial one
    "problems.jsonl": (problems, 24),
}
EVAL = {
    "tasks": [{"name": "tiny", "num_samples": 9}, {"name": "tiny_preference", "num_samples": 9}],
    "max_new_tokens": 8,
}


def _recipe(stages: Sequence[str], fields: Mapping[str, Any], every: Mapping[str, Any]) -> str:
    blocks = [{name: {**STAGES[name], **every}} for name in stages]
    head: dict[str, Any] = {
        "name": "stack",
        "model_name_or_path": "model",
        "chat_template": "tulu",
        "seed": 3,
        "decontaminate": False,  # it trains on the very prompts that it is evaluated on
    }
    return yaml.safe_dump({**head, "stages": blocks, "eval": EVAL, **fields}, sort_keys=False)


def _texts() -> list[str]:
    return [row["text"] for row in itertools.islice(tiny.text(0), 200)]


OF_THE_MACHINE = {
    "tokens_per_second", "trained_tokens_per_second", "tflops_per_device", "mfu",
    "peak_memory_gb",
}  # fmt: skip


@pytest.fixture(scope="session")
def write_stack() -> Callable[..., Path]:
    """`write_stack(folder, stages=..., shape=..., every=..., **recipe_keys)`: the recipe's path."""

    def write(
        folder: Path,
        stages: Sequence[str] = tuple(STAGES),
        shape: Mapping[str, Any] | None = None,
        every: Mapping[str, Any] | None = None,
        **fields: Any,
    ) -> Path:
        from posttrain.scratch import new_model, new_tokenizer

        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = new_tokenizer(_texts(), 400, None)
        new_model({**SHAPE, **(shape or {})}, tokenizer, folder / "model", seed=1)
        for name, (make, count) in ROWS.items():
            rows = itertools.islice(make(5), count)
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder / name).write_text(lines, encoding="utf-8")
        (folder / "stack.yaml").write_text(_recipe(stages, fields, every or {}), encoding="utf-8")
        return folder / "stack.yaml"

    return write


@pytest.fixture(scope="session")
def metrics() -> Callable[..., dict[str, list[dict[str, Any]]]]:
    """`metrics(run_folder)`: stage -> its rows of metrics.jsonl, less what the machine decides."""

    def read(run: Path) -> dict[str, list[dict[str, Any]]]:
        stages: dict[str, list[dict[str, Any]]] = {}
        for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            assert set(row) >= OF_THE_MACHINE, f"not in {row}"
            row = {name: value for name, value in row.items() if name not in OF_THE_MACHINE}
            row = {name: value for name, value in row.items() if not name.startswith("seconds/")}
            stages.setdefault(row["stage"], []).append(row)
        return stages

    return read
