"""The example on local files, for real: Dolly, UltraFeedback and GSM8K on a Llama folder."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain.scratch import new_model, new_tokenizer

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared/data"
FILES = {
    "instructions.jsonl": "dolly_hhrlhf/train_small.jsonl.gz",
    "pairs.jsonl": "ultrafeedback/train_1000.jsonl.gz",
    "gsm8k_train.jsonl": "gsm8k/train.jsonl.gz",
    "gsm8k_test.jsonl": "gsm8k/test.jsonl.gz",
}
ROWS = 60
SPEC = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
}
SHORT = [
    *(f"stages.{stage}.max_steps=2" for stage in ("sft", "dpo", "reward", "rlvr")),
    *(f"stages.{stage}.batch_size=4" for stage in ("dpo", "reward")),
    "stages.rlvr.batch_size=16",
    "stages.rlvr.num_generations=4",
    "stages.rlvr.max_completion_length=8",
    "eval.max_new_tokens=4",
    "eval.tasks.0.num_samples=20",
]

pytestmark = pytest.mark.skipif(
    not all((DATA / name).is_file() for name in FILES.values()),
    reason="the shared data sets are not beside this checkout",
)


def lay_out(folder: Path) -> None:
    """The files and the checkpoint that the recipe names, where it names them."""
    (folder / "data").mkdir()
    texts = []
    for name, origin in FILES.items():
        with gzip.open(DATA / origin, "rt", encoding="utf-8") as file:
            lines = list(itertools.islice(file, ROWS))
        texts += lines
        (folder / "data" / name).write_text("".join(lines), encoding="utf-8")
    tokenizer = new_tokenizer(texts, 2000, None)
    new_model(SPEC, tokenizer, folder / "models/llama", seed=3)


def test_real_rows(
    tmp_path: Path,
    run_recipe: Callable[..., str],
    check_run: Callable[..., dict[str, Any]],
) -> None:
    lay_out(tmp_path)
    recipe = ROOT / "recipes/examples/local_files.yaml"
    run_recipe(recipe, tmp_path, *SHORT)
    report = check_run(tmp_path / "run", ["sft", "dpo", "reward", "rlvr"])
    assert [stage["steps"] for stage in report["stages"]] == [2, 2, 2, 2]
    for name in ("base", "sft", "dpo", "rlvr"):
        assert report["evals"][name]["gsm8k"]["n"] == 20
    lock = json.loads((tmp_path / "run/mixture.lock").read_text())
    for stage, name in zip(lock.values(), ("instructions", "pairs", "pairs"), strict=False):
        [source] = stage["sources"]
        assert (source["source"], source["rows_read"]) == (name, ROWS)


@pytest.mark.slow
def test_real_rows_in_a_smoke_run(
    tmp_path: Path,
    run_recipe: Callable[..., str],
    check_run: Callable[..., dict[str, Any]],
) -> None:
    """With the files in place, `--smoke` reads them, and a tiny tokenizer still fits them."""
    lay_out(tmp_path)
    run_recipe(ROOT / "recipes/examples/local_files.yaml", tmp_path, "--smoke")
    check_run(tmp_path / "run", ["sft", "dpo", "reward", "rlvr"])
    lock = json.loads((tmp_path / "run/mixture.lock").read_text())
    assert lock["rlvr"]["sources"][0]["rows_read"] == ROWS
