"""RL whose completions come from a real vLLM server: it follows the weights, and may die."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from posttrain import RLVRConfig, RLVRTrainer
from posttrain.errors import ModelError, ProbeError, RecipeError, ServerError
from posttrain.generation.base import Completion
from posttrain.generation.vllm.launch import vllm_python
from posttrain.models import Adapter
from posttrain.trainers.served import Served

PROBLEMS = [
    {"prompt": f"Say {n}.", "ground_truth": str(n), "verifier": "string_match"} for n in range(8)
]
SERVER = {"name": "vllm", "dtype": "float32", "device_memory": 0.02, "start_seconds": 300}


def even_share(completion_ids: list[list[int]], **_: Any) -> list[float]:
    """Share of even token ids: a random policy scores about a half."""
    return [sum(i % 2 == 0 for i in ids) / len(ids) for ids in completion_ids]


@pytest.fixture
def python() -> Path:
    try:
        return vllm_python()
    except ServerError as error:
        pytest.skip(f"no vLLM here: {error}")


def trainer_of(
    model: Any, out: Path, ahead: int = 0, adapter: Adapter | None = None, **server: Any
) -> RLVRTrainer:
    args = RLVRConfig(
        output_dir=str(out),
        rollouts_ahead=ahead,
        generation={**SERVER, **server},
        per_device_train_batch_size=32,
        num_generations=8,
        max_completion_length=6,
        max_steps=4,
        optim="adamw_torch",
        learning_rate=1e-2,
        lr_scheduler_type="constant",
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    rows = PROBLEMS * (2 if ahead else 1)
    return RLVRTrainer(model, even_share, args, train_dataset=rows, peft_config=adapter)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("weights", "adapter"),
    [("folder", None), ("folder", Adapter(r=4)), ("broadcast", None)],
    ids=["full", "lora", "broadcast"],
)
def test_a_server_follows_the_policy_and_may_die(
    weights: str,
    adapter: Adapter | None,
    python: Path,
    checkpoint: Callable[..., str],
    tmp_path: Path,
) -> None:
    """Every rollout is compared with the trainer (fp32: to 0.001); before one the server dies.

    Of adapters nothing else is sent, to the server that took its place either.
    """
    server = {"weights": weights, "probe_rollouts": 1, "max_gap": 0.01, "mean_gap": 0.001}
    trainer = trainer_of(checkpoint(head_dim=32), tmp_path, 0, adapter, **server)
    seen: list[int] = []
    versions: list[set[int | None]] = []

    def watch(rollouts: Any) -> None:
        seen.extend(int(r.row["index"]) for r in rollouts)
        versions.append({c.version for r in rollouts for c in r.completions})
        assert trainer.served is not None and trainer.served.engine.server is not None
        assert [v.adapter for v in trainer.served.engine.loaded] == [adapter is not None]
        if len(versions) == 2:
            process = trainer.served.engine.server.process
            assert process is not None
            os.killpg(process.pid, signal.SIGKILL)

    trainer.on_rollout = watch
    trainer.train()
    assert versions == [{1}, {2}, {3}, {4}]  # a push before each, nothing of older weights
    assert sorted(seen) == sorted([*range(8), *range(8)])  # two epochs of four prompts a step
    logs = [entry for entry in trainer.state.log_history if "reward" in entry]
    assert len(logs) == 4 and all(entry["seconds/sync"] > 0 for entry in logs)
    assert logs[-1]["ratio_max"] == pytest.approx(1.0, abs=1e-4)  # the trainer's own log-probs
    assert trainer.served is None


@pytest.mark.slow
def test_rollouts_are_written_while_others_are_trained_on(
    python: Path, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """One version behind from the second on; the server dies with one under way."""
    server = {"probe_rollouts": 1, "max_gap": 0.01, "mean_gap": 0.001}
    trainer = trainer_of(checkpoint(head_dim=32), tmp_path, 1, **server)
    seen: list[int] = []
    versions: list[set[int | None]] = []
    under_way: list[bool] = []

    def watch(rollouts: Any) -> None:
        seen.extend(int(r.row["index"]) for r in rollouts)
        versions.append({c.version for r in rollouts for c in r.completions})
        under_way.append(any(not asked.future.done() for asked in trainer.ahead.waiting))
        assert trainer.served is not None and trainer.served.engine.server is not None
        if len(versions) == 3:
            process = trainer.served.engine.server.process
            assert process is not None
            os.killpg(process.pid, signal.SIGKILL)

    trainer.on_rollout = watch
    trainer.train()
    assert versions == [{1}, {1}, {2}, {3}]
    assert sorted(seen) == list(range(16))
    assert any(under_way)
    assert [e["staleness"] for e in trainer.state.log_history if "staleness" in e] == [0, 1, 1, 1]


@pytest.mark.slow
def test_a_failed_probe_stops_before_the_first_step(
    python: Path, checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    trainer = trainer_of(checkpoint(head_dim=32), tmp_path, mean_gap=1e-12)
    with pytest.raises(ProbeError, match="disagree"):
        trainer.train()
    assert trainer.state.global_step == 0
    assert trainer.served is None


def test_a_model_made_in_memory_has_no_server(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(checkpoint())
    model.config._name_or_path = ""
    trainer = trainer_of(checkpoint(), tmp_path)
    trainer.model_wrapped = model
    with pytest.raises(ModelError, match="made in memory"):
        trainer.follow()


def test_a_server_sleeps_while_the_trainer_trains(
    checkpoint: Callable[..., str], tmp_path: Path
) -> None:
    """The order of what it is told; vLLM itself cannot sleep without a GPU."""
    told: list[str] = []

    class Told:
        version = 0

        def __getattr__(self, name: str) -> Any:
            return lambda *rest, **more: told.append(name)

        def __call__(self, prompts: Any, *rest: Any, on_group: Any, **more: Any) -> list[Any]:
            told.append("write")
            for i in range(len(prompts)):
                on_group(i, [Completion([3 + g, 4], True, [-1.0, -1.0]) for g in range(8)])
            return []

    class Near(Served):
        def start(self) -> Any:
            return Told()

        def compare(self, model: Any) -> None: ...

    trainer = trainer_of(checkpoint(), tmp_path, sleep=True)
    trainer.served = Near(trainer, trainer.methods.engine)
    trainer.train()
    assert told == ["push", "write", "sleep", *["wake", "push", "write", "sleep"] * 3, "close"]
    with pytest.raises(RecipeError, match="cannot sleep"):
        trainer_of(checkpoint(), tmp_path, 1, sleep=True)
