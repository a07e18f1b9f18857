"""What accelerate would ignore, or would cut packs with, is refused with what to do instead."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator, ParallelismConfig
from accelerate.utils import DistributedType

from posttrain.errors import RunError
from posttrain.trainers.ways import check_offloaded, check_ways


def test_plain_training_is_not_in_the_way() -> None:
    check_ways(SimpleNamespace(fsdp=None), Accelerator(cpu=True))


@pytest.mark.parametrize("name", ["sp_size", "cp_size"])
def test_cut_sequences_are_refused(name: str) -> None:
    config = ParallelismConfig(**{name: 2})
    given = SimpleNamespace(parallelism_config=config)
    with pytest.raises(RunError, match=rf"{name}: 2 .* leave it out: max_tokens_per_device"):
        check_ways(SimpleNamespace(fsdp=None), given)


def test_fsdp_that_would_be_ignored_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match=r"made NO of it: .* --hardware zero3"):
        check_ways(SimpleNamespace(fsdp=True), Accelerator(cpu=True))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    two_processes = SimpleNamespace(distributed_type=DistributedType.MULTI_CPU)
    with pytest.raises(RunError, match="made MULTI_CPU of it"):
        check_ways(SimpleNamespace(fsdp=None), two_processes)


def test_an_optimizer_that_would_become_another_is_refused() -> None:
    offload: dict[str, Any] = {"zero_optimization": {"offload_optimizer": {"device": "cpu"}}}

    def check(settings: dict[str, Any], optimizer: type) -> None:
        given = optimizer([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
        plugin = SimpleNamespace(deepspeed_config=settings)
        state = SimpleNamespace(deepspeed_plugin=plugin)
        kind = DistributedType.DEEPSPEED
        check_offloaded(given, SimpleNamespace(distributed_type=kind, state=state))

    with pytest.raises(RunError, match=r"SGD with .* become DeepSpeed's Adam; set optim: adamw"):
        check(offload, torch.optim.SGD)
    for known in (torch.optim.AdamW, torch.optim.Adam, torch.optim.Adagrad):
        check(offload, known)
    check({**offload, "zero_force_ds_cpu_optimizer": False}, torch.optim.SGD)
    check({"zero_optimization": {"stage": 2}}, torch.optim.SGD)
    check({}, torch.optim.SGD)
    alone = SimpleNamespace(distributed_type=DistributedType.NO)
    check_offloaded(torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1), alone)
