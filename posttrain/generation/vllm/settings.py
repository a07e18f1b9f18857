"""How a vLLM server is to run; imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from posttrain.errors import RecipeError

WEIGHTS = ("folder", "broadcast")
DTYPES = ("auto", "float32", "bfloat16", "float16")
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # of adapters: those that vLLM has room for
SPARE_ADAPTERS = 2  # the one in use, and the one that follows it


@dataclass(frozen=True)
class VLLMSettings:
    """What `posttrain serve` and a recipe may say about the server.

    Attributes:
        device_memory: share of a GPU's memory that vLLM takes; without a GPU, share of the
            machine's memory that keeps keys and values. Default: 0.9, without a GPU 0.1.
        dtype: of the weights; `auto`: that of the checkpoint.
        max_length: longest prompt and answer together, in tokens; default: the model's own.
        tensor_parallel: GPUs that share the model.
        devices: GPUs that the server sees, as CUDA_VISIBLE_DEVICES has them.
        lora_rank: largest rank of adapters that are sent; 0: none are.
        eager: run layer by layer, without compiling; default: without a GPU, where compiling takes
            longer than most tests.
        weights: how they reach the server. `folder`: as safetensors in a folder that both can read.
            `broadcast`: over NCCL if the server has GPUs of its own, which trainer and server may
            not share, else over gloo; adapters go as files all the same.
        sleep: whether the server may be put to sleep (GPUs that a trainer shares).
        start_seconds: time until it must answer.
        restarts: how often in one call it is started, or looked for, anew after it died.
        probe_rollouts: rollouts from one comparison of server and trainer to the next; the first is
            at the start.
        max_gap, mean_gap: what their log-probs may differ by, in nats; in fp32 0.01 and 0.001 do.
        url: of a server that runs already; its token is read from POSTTRAIN_VLLM_TOKEN.
        options: further arguments of vLLM's engine, by their own names.

    Raises:
        RecipeError: a value that is not allowed.
    """

    device_memory: float | None = None
    dtype: str = "auto"
    max_length: int | None = None
    tensor_parallel: int = 1
    devices: str | None = None
    lora_rank: int = 0
    eager: bool | None = None
    weights: str = "folder"
    sleep: bool = False
    start_seconds: float = 900.0
    restarts: int = 3
    probe_rollouts: int = 50
    max_gap: float = 1.0
    mean_gap: float = 0.05
    url: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        memory = 1.0 if self.device_memory is None else self.device_memory
        for name, right, allowed in (
            ("device_memory", 0 < memory <= 1, "a share, above 0 and at most 1"),
            ("dtype", self.dtype in DTYPES, f"one of {', '.join(DTYPES)}"),
            ("max_length", (self.max_length or 2) > 1, "at least 2"),
            ("tensor_parallel", self.tensor_parallel >= 1, "at least 1"),
            ("lora_rank", 0 <= self.lora_rank <= RANKS[-1], f"0 to {RANKS[-1]}"),
            ("weights", self.weights in WEIGHTS, f"one of {', '.join(WEIGHTS)}"),
            (
                "weights",
                self.weights == "folder" or not self.sleep,
                "folder with sleep: true, for NCCL does not go from a GPU to itself",
            ),
            ("start_seconds", self.start_seconds > 0, "above 0"),
            ("restarts", self.restarts >= 0, "0 or more"),
            ("probe_rollouts", self.probe_rollouts >= 1, "at least 1"),
            ("max_gap", self.max_gap > 0, "above 0"),
            ("mean_gap", self.mean_gap > 0, "above 0"),
        ):
            if not right:
                raise RecipeError(f"{name}: {getattr(self, name)!r} must be {allowed}")

    def engine_options(self) -> dict[str, Any]:
        """Arguments of vLLM's engine that do not depend on the device."""
        chosen: dict[str, Any] = {
            "dtype": self.dtype,
            "tensor_parallel_size": self.tensor_parallel,
            "enable_sleep_mode": self.sleep,
        }
        if self.max_length is not None:
            chosen["max_model_len"] = self.max_length
        if self.lora_rank:
            chosen |= {
                "enable_lora": True,
                "max_lora_rank": next(rank for rank in RANKS if rank >= self.lora_rank),
                "max_cpu_loras": SPARE_ADAPTERS,
            }
        return {**chosen, **self.options}
