"""What is written down of a rollout is what was rolled out, and the report shows it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.evals.report import write_report
from posttrain.trainers import keeping

PROBLEMS = [{"prompt": f"Say {n}.", "source": f"s{n % 2}"} for n in range(8)]


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


def trainer_of(checkpoint: Callable[..., str], out: Path, **more: Any) -> RLVRTrainer:
    args = RLVRConfig(
        output_dir=str(out),
        **{
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "max_completion_length": 6,
            "num_mini_batches": 2,
            "max_steps": 4,
            "save_strategy": "no",
            "report_to": [],
            "disable_tqdm": True,
            **more,
        },
    )
    return RLVRTrainer(checkpoint(), even_share, args, train_dataset=PROBLEMS)


@pytest.mark.parametrize("kind", ["group", "gae"])
def test_every_completion_is_written_down_and_some_are_shown(
    kind: str, checkpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "ROWS_TOGETHER", 6)
    stage = tmp_path / "1-rlvr"
    trainer = trainer_of(checkpoint, stage, advantage=kind)
    seen: list[Any] = []
    trainer.on_rollout = seen.extend
    trainer.train()
    paths = sorted((stage / "rollouts").iterdir())
    assert [p.name for p in paths] == ["000000-0.parquet", "000002-0.parquet"]
    assert pq.ParquetFile(paths[0]).num_row_groups == 3  # of 6, 6 and 4 rows
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    expected = [
        {
            "step": 0 if i < 4 else 2,
            "row": rollout.row["index"],
            "source": rollout.row["source"],
            "verifier": "reward_funcs",
            "prompt": trainer.processing_class.decode(rollout.row["prompt_ids"]),
            "completion": trainer.text(completion),
            "tokens": len(completion.ids),
            "finished": completion.finished,
            "reward": float(rollout.rewards[g]),
            "advantage": None if kind == "gae" else float(rollout.advantages[g]),
        }
        for i, rollout in enumerate(seen)
        for g, completion in enumerate(rollout.completions)
    ]
    assert rows == expected and len(rows) == 32
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "2 of 2 rollouts" in page and "best of 4" in page
    assert ("advantage" in page) == (kind == "group")


def test_nothing_is_written_down_where_nobody_asks(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer_of(checkpoint, tmp_path, save_rollouts=False, max_steps=1).train()
    assert not (tmp_path / "rollouts").exists()


def test_a_file_that_is_not_whole_has_no_name(
    checkpoint: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(table: Any, path: Path, **_: Any) -> None:
        path.write_bytes(b"PAR1half")
        raise OSError("no space left on device")

    monkeypatch.setattr(keeping.pq, "write_table", full_disk)
    with pytest.raises(OSError, match="no space left"):
        trainer_of(checkpoint, tmp_path, max_steps=1).train()
    assert list((tmp_path / "rollouts").glob("*.parquet")) == []
