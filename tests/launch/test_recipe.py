"""One recipe, launched in every way there is: the same losses, and a whole run folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

pytestmark = pytest.mark.slow

ALONE = {
    "posttrain": ["posttrain", "run", "stack.yaml"],
    "module": ["python", "-m", "posttrain", "stack.yaml"],
    "python": ["python", "stack.yaml"],
    "accelerate": ["accelerate", "launch", "--num_processes", "1", "stack.yaml"],
}
TOGETHER = ("ddp", "zero2", "zero3", "accelerate_zero2", "accelerate_zero3")
STAGES = ("sft", "dpo", "reward", "rlvr")
ZERO = {
    "zero_optimization": {
        "stage": 3,
        "stage3_gather_16bit_weights_on_model_save": True,
        # really partition: by default parameters this small stay whole
        "stage3_param_persistence_threshold": 0,
    },
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": "auto",
    "gradient_clipping": "auto",
}


def accelerate_settings(stage: int) -> dict[str, Any]:
    return {
        "compute_environment": "LOCAL_MACHINE",
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "zero_stage": stage,
            "gradient_accumulation_steps": 1,
            "offload_optimizer_device": "none",
            "offload_param_device": "none",
            "zero3_init_flag": stage == 3,
            "zero3_save_16bit_model": True,
        },
        "mixed_precision": "no",
        "num_machines": 1,
        "num_processes": 2,
        "use_cpu": False,
    }


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, write_stack: Callable[..., Path]) -> Path:
    """The folder of the recipe, with hardware files beside it."""
    folder = tmp_path_factory.mktemp("stack")
    write_stack(folder)
    (folder / "hardware").mkdir()
    zero2 = {**ZERO, "zero_optimization": {"stage": 2}}
    for name, settings in (("zero2", zero2), ("zero3", ZERO)):
        text = yaml.safe_dump({"deepspeed": settings})
        (folder / "hardware" / f"{name}.yaml").write_text(text, encoding="utf-8")
    for stage in (2, 3):
        text = yaml.safe_dump(accelerate_settings(stage))
        (folder / f"ds{stage}.yaml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def ran(
    stack: Path, launch: Callable[..., Any], free_port: Callable[[], int]
) -> Callable[[str], tuple[Path, str]]:
    """`ran(way)`: the run folder and what was said on stderr; every way is launched once."""
    done: dict[str, tuple[Path, str]] = {}

    def command(way: str) -> list[str]:
        if way in ALONE:
            return ALONE[way]
        if way.startswith("accelerate"):
            config = ["--config_file", f"ds{way[-1]}.yaml", "--main_process_port"]
            return ["accelerate", "launch", *config, str(free_port()), "stack.yaml"]
        two = ["torchrun", "--nproc_per_node", "2", "--master_port", str(free_port())]
        hardware = [] if way == "ddp" else ["--hardware", way]
        return [*two, "stack.yaml", *hardware]

    def run(way: str) -> tuple[Path, str]:
        if way not in done:
            launched = launch([*command(way), "--run_dir", f"runs/{way}"], stack)
            done[way] = stack / "runs" / way, launched.said()
        return done[way]

    return run


@pytest.mark.parametrize("way", list(ALONE)[1:])
def test_one_process_is_the_same_however_it_is_launched(
    way: str, ran: Callable[..., Any], metrics: Callable[..., Any]
) -> None:
    first, second = metrics(ran("posttrain")[0]), metrics(ran(way)[0])
    assert list(first) == list(STAGES)
    assert [len(rows) for rows in first.values()] == [3, 3, 3, 3]
    assert second == first


def test_the_stack_has_something_to_learn_from(
    ran: Callable[..., Any], metrics: Callable[..., Any]
) -> None:
    rows = metrics(ran("posttrain")[0])
    assert all(len({row["loss"] for row in rows[stage]}) == 3 for stage in STAGES[:3])
    assert any(row["grad_norm"] > 0 and 0 < row["reward"] < 1 for row in rows["rlvr"])


@pytest.mark.parametrize("way", TOGETHER)
def test_two_processes_have_the_losses_of_one(
    way: str, ran: Callable[..., Any], metrics: Callable[..., Any]
) -> None:
    alone, both = metrics(ran("posttrain")[0]), metrics(ran(way)[0])
    assert list(both) == list(STAGES)
    for stage in ("sft", "dpo", "reward"):
        expected = [row["loss"] for row in alone[stage]]
        assert [row["loss"] for row in both[stage]] == pytest.approx(expected, rel=1e-5)
    assert [row["step"] for row in both["rlvr"]] == [1, 2, 3]
    assert all(0 < row["reward"] < 1 for row in both["rlvr"])


@pytest.mark.parametrize("way", ["posttrain", *TOGETHER])
def test_every_stage_is_done_and_its_model_loads(way: str, ran: Callable[..., Any]) -> None:
    run, _ = ran(way)
    report = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert [(s["kind"], s["status"], s["steps"]) for s in report["stages"]] == [
        (stage, "done", 3) for stage in STAGES
    ]
    assert list(report["evals"]) == ["base", *STAGES]
    for number, stage in enumerate(STAGES, 1):
        folder = run / f"{number}-{stage}" / "model"
        auto = AutoModelForSequenceClassification if stage == "reward" else AutoModelForCausalLM
        _, found = auto.from_pretrained(folder, output_loading_info=True)
        assert not any(found[key] for key in ("missing_keys", "unexpected_keys"))
        assert "<|assistant|>" in AutoTokenizer.from_pretrained(folder).chat_template


@pytest.mark.parametrize("way", TOGETHER)
def test_the_evaluation_of_two_processes_is_that_of_one(way: str, ran: Callable[..., Any]) -> None:
    """The base model is the same in all of them, so are its answers, row by row."""
    alone, both = ran("posttrain")[0], ran(way)[0]
    for task in ("tiny", "tiny_preference"):
        first, second = (
            (run / "transcripts" / "base" / f"{task}.jsonl").read_text(encoding="utf-8")
            for run in (alone, both)
        )
        assert first == second
        assert first.count("\n") == 9  # an odd number: one process has a row more
    scores = [
        json.loads((run / "report.json").read_text())["evals"]["base"] for run in (alone, both)
    ]
    assert scores[0] == scores[1]


@pytest.mark.parametrize("way", TOGETHER)
def test_only_the_first_process_speaks(way: str, ran: Callable[..., Any]) -> None:
    _, said = ran(way)
    lines = [line for line in said.splitlines() if line.startswith(("stack:", *STAGES, "report:"))]
    assert len(lines) >= 20
    assert len(set(lines)) == len(lines)
    assert "LOAD REPORT" not in said and "find_unused_parameters" not in said


def test_a_user_s_mistake_ends_all_processes_with_one_message(
    stack: Path, begin: Callable[..., Any], free_port: Callable[[], int]
) -> None:
    two = ["torchrun", "--nproc_per_node", "2", "--master_port", str(free_port())]
    launched = begin([*two, "stack.yaml", "stages.sft.batch_size=7"], stack)
    assert launched.wait() != 0
    message = "stages.sft.batch_size: 7 cannot be divided over 2 process(es)"
    assert launched.said().count(message) == 1
