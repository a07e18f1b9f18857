"""The same rows on 1 process, on 2 under DDP, and under ZeRO-2 and ZeRO-3: the same training."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationConfig,
)

pytestmark = pytest.mark.slow

WORKER = Path(__file__).parent / "worker.py"
WAYS = ("single", "ddp", "zero2", "zero3")
SFT_ROWS = [
    {
        "prompt": f"What is {n} plus {n * n}?",
        "completion": f"{n}+{n * n}={n + n * n}." + " Yes." * (n % 4),
        "source": ("sums", "squares")[n % 2],
    }
    for n in range(1, 25)
]
PAIR_ROWS = [
    {
        "prompt": f"What is {n} plus {n}?",
        "chosen": f"{n}+{n}={2 * n}." + " So it is." * (n % 3),
        "rejected": f"It is {2 * n + 1}",
        "source": "sums",
    }
    for n in range(1, 23)  # 22 rows: the last batch is a partial one
]
PROBLEM_ROWS = [
    {"prompt": f"What is {n} plus {n}?", "ground_truth": str(2 * n), "verifier": "string_match"}
    for n in range(1, 6)  # 2 prompts a step: in the third one a process has none
]
SPARE = 352  # rows of the embedding, more than the tokenizer has tokens
LEARN = {"learning_rate": 3e-3, "max_grad_norm": 1.0, "num_train_epochs": 1}
RLVR = {"learning_rate": 1e-3, "num_train_epochs": 1, "num_generations": 4}
RLVR |= {"max_completion_length": 12, "missing_eos_reward": 0.0}


def runs(way: str, folder: Path, model: str, hasty: str) -> list[dict[str, Any]]:
    """Every kind of training, 8 rows per step."""
    world = 1 if way == "single" else 2
    split = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4 // world}
    zero = {
        "zero_optimization": {
            "stage": 3 if way == "zero3" else 2,
            "stage3_gather_16bit_weights_on_model_save": True,
            # really partition: by default parameters this small stay whole
            "stage3_param_persistence_threshold": 0,
            "stage3_max_reuse_distance": 0,
        },
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
    }
    plans = {
        "sft": ("sft", SFT_ROWS, LEARN),
        "sft_sum": ("sft", SFT_ROWS, {**LEARN, "loss_reduction": "sum"}),
        "dpo": ("dpo", PAIR_ROWS, {**LEARN, "learning_rate": 3e-4}),
        "reward": ("reward", PAIR_ROWS, {**LEARN, "max_steps": 2}),
        "rlvr": ("rlvr", PROBLEM_ROWS, RLVR),
        "rlvr_kl": ("rlvr", PROBLEM_ROWS, {**RLVR, "beta": 0.05, "num_mini_batches": 2}),
    }
    return [
        {
            "kind": kind,
            "model": hasty if kind == "rlvr" else model,
            "rows": rows,
            "out": str(folder / name),
            "config": {**config, **split},
            "deepspeed": zero if way.startswith("zero") else None,
        }
        for name, (kind, rows, config) in plans.items()
    ]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def finish(command: list[str]) -> None:
    """Run to the end; a launch that hangs is ended with all its processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            status = process.wait(timeout=600)
        except subprocess.TimeoutExpired:
            status = "no end after 600 s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        log.seek(0)
        assert status == 0, f"{status}\n{log.read()[-6000:]}"


@pytest.fixture(scope="module")
def trained(checkpoint: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`trained(way)`: the folder with everything trained that way, run once."""
    done: dict[str, Path] = {}
    model = str(tmp_path_factory.mktemp("roomy"))
    shutil.copytree(checkpoint(), model, dirs_exist_ok=True)
    roomy = AutoModelForCausalLM.from_pretrained(model)
    roomy.resize_token_embeddings(SPARE)  # as many checkpoints have; nothing may cut them off
    roomy.save_pretrained(model)
    hasty = tmp_path_factory.mktemp("hasty")
    shutil.copytree(model, hasty, dirs_exist_ok=True)
    # a fifth of all tokens ends an answer, so processes stop generating at different steps
    GenerationConfig(eos_token_id=list(range(1, 320, 5))).save_pretrained(hasty)

    def launch(way: str) -> Path:
        if way in done:
            return done[way]
        folder = tmp_path_factory.mktemp(way)
        job = folder / "job.json"
        job.write_text(json.dumps({"runs": runs(way, folder, model, str(hasty))}), encoding="utf-8")
        many = ["-m", "torch.distributed.run", "--nproc_per_node", "2"]
        command = [] if way == "single" else [*many, "--master_port", str(free_port())]
        finish([sys.executable, *command, str(WORKER), str(job)])
        done[way] = folder
        return folder

    return launch


def losses(folder: Path, name: str) -> list[float]:
    log = json.loads((folder / name / "log.json").read_text(encoding="utf-8"))
    return [entry["loss"] for entry in log]


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", ["sft", "sft_sum", "dpo", "reward"])
def test_losses_of_every_step_are_those_of_one_process(trained: Any, way: str, name: str) -> None:
    alone = losses(trained("single"), name)
    assert len(alone) == (2 if name == "reward" else 3)
    assert len(set(alone)) == len(alone)
    assert losses(trained(way), name) == pytest.approx(alone, rel=1e-4)


@pytest.mark.parametrize("way", WAYS[1:])
def test_metrics_are_reduced_over_processes(trained: Any, way: str) -> None:
    for name, keys in (("sft", ["loss/sums", "loss/squares"]), ("dpo", ["rewards/margins"])):
        first, second = (
            json.loads((trained(w) / name / "log.json").read_text(encoding="utf-8"))
            for w in ("single", way)
        )
        for key in [*keys, "grad_norm"]:
            alone = [entry[key] for entry in first]
            assert [entry[key] for entry in second] == pytest.approx(alone, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("way", WAYS[1:])
@pytest.mark.parametrize("name", ["sft", "dpo", "reward"])
def test_weights_are_those_of_one_process(trained: Any, way: str, name: str) -> None:
    alone, many = (
        load_file(trained(w) / name / "model" / "model.safetensors") for w in ("single", way)
    )
    assert set(alone) == set(many)
    assert many["model.embed_tokens.weight"].shape[0] == SPARE
    for key, value in alone.items():
        assert (value - many[key]).abs().max() < 2e-4, key


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ["rlvr", "rlvr_kl"])
def test_rlvr_trains_and_its_model_loads(trained: Any, way: str, name: str) -> None:
    folder = trained(way) / name
    log = json.loads((folder / "log.json").read_text(encoding="utf-8"))
    assert len(log) == 3
    assert 0 < log[0]["reward"] < 1
    assert all(entry["grad_norm"] > 0 for entry in log)
    if name == "rlvr_kl":
        assert log[0]["kl"] == pytest.approx(0, abs=1e-9)
        assert log[1]["kl"] > 0
    start = load_file(start_of(trained, way))
    model = AutoModelForCausalLM.from_pretrained(folder / "model")
    state = model.state_dict()
    assert any(not value.equal(state[key]) for key, value in start.items())


def start_of(trained: Any, way: str) -> str:
    job = json.loads((trained(way) / "job.json").read_text(encoding="utf-8"))
    return str(Path(job["runs"][0]["model"]) / "model.safetensors")


@pytest.mark.parametrize("way", WAYS)
def test_reward_model_loads_as_a_sequence_classifier(trained: Any, way: str) -> None:
    model = AutoModelForSequenceClassification.from_pretrained(trained(way) / "reward" / "model")
    assert model.score.weight.shape == (1, 32)
