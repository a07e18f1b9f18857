"""What accelerate would ignore, or would cut packs with, is refused with what to do instead."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from accelerate import Accelerator, ParallelismConfig
from accelerate.utils import DistributedType

from posttrain.errors import RunError
from posttrain.trainers.ways import check_ways


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
