"""`posttrain doctor`: what this machine has, and whether a loss depends on how a batch is split."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch

from posttrain.errors import ServerError
from posttrain.generation.vllm.launch import vllm_python
from posttrain.store import cache_root
from posttrain.verifiers.sandbox.host import protection

REQUIRED = (
    "torch", "transformers", "accelerate", "datasets", "peft", "trl", "safetensors", "pyyaml",
)  # fmt: skip
# import name -> a small thing that it must be able to do, what it is for, what to do without it
OPTIONAL = {
    "bitsandbytes": (
        "import torch, bitsandbytes.functional as f; f.quantize_4bit(torch.randn(64, 64))",
        "load_in_4bit, 8-bit optimizers",
        "pip install 'posttrain[bitsandbytes]'",
    ),
    "deepspeed": ("import deepspeed", "ZeRO", "pip install 'posttrain[deepspeed]'"),
    "flash_attn": (
        "from flash_attn import flash_attn_varlen_func",
        "attention over packs without padding",
        "pip install flash-attn (needs CUDA); without it torch's own kernels are used",
    ),
}
LEAST_GB = 20
SECONDS = 180


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, whether it is fine, what was found, what to do.

    Attributes:
        state: `ok`, `missing` (optional) or `bad` (nothing works without it).
    """

    name: str
    state: str
    found: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.state:8}{self.name:16}{self.found}" + (
            f"; {self.advice}" if self.advice else ""
        )


def examine() -> list[Finding]:
    """Versions, devices, optional packages, disk and cache of this machine."""
    findings = [Finding("python", "ok", sys.version.split()[0])]
    findings += [required(name) for name in REQUIRED]
    findings += devices()
    findings += [optional(name) for name in OPTIONAL]
    return [*findings, vllm(), sandbox(), disk(Path.cwd()), cache()]


def required(name: str) -> Finding:
    """A package that everything needs."""
    try:
        return Finding(name, "ok", metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(name, "bad", "not installed", "pip install posttrain")


def sandbox() -> Finding:
    """What keeps code in that a model wrote (docs/verifiers.md)."""
    found = protection()
    said = ", ".join(f"{what}: {how}" for what, how in found.items())
    weak = found["network"] == "open" or found["files"] != "namespace"
    if not weak:
        return Finding("sandbox", "ok", said)
    return Finding("sandbox", "missing", said, "verify code as root, or with user namespaces")


def devices() -> list[Finding]:
    """Accelerators, or the lack of them."""
    if torch.cuda.is_available():
        out = []
        for i in range(torch.cuda.device_count()):
            seen = torch.cuda.get_device_properties(i)
            out.append(Finding(f"cuda:{i}", "ok", f"{seen.name}, {seen.total_memory / 1e9:.0f} GB"))
        return out
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    built = f"torch is built for CUDA {torch.version.cuda}" if torch.version.cuda else "a CPU build"
    return [
        Finding("cpu", "ok", f"{cores} cores, {torch.get_num_threads()} threads"),
        Finding(
            "gpu",
            "missing",
            f"none that torch can use ({built})",
            "training runs on the CPU; for a GPU install its driver and a torch build for it",
        ),
    ]


def optional(name: str) -> Finding:
    """A package that one thing needs: whether it is there, and works in a process of its own."""
    trial, use, advice = OPTIONAL[name]
    if importlib.util.find_spec(name) is None:
        return Finding(name, "missing", f"not installed ({use})", advice)
    version = metadata.version(name.replace("_", "-"))
    if (why := attempt(sys.executable, trial, use)) is None:
        return Finding(name, "ok", f"{version} ({use})")
    return Finding(name, "missing", f"{version} {why}", advice)


def attempt(python: str | Path, trial: str, use: str) -> str | None:
    """What a few lines do wrong in a process of their own; `None`: nothing."""
    try:
        done = subprocess.run(
            [python, "-c", trial], capture_output=True, text=True, timeout=SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"does not answer in {SECONDS} s ({use})"
    if not done.returncode:
        return None
    why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return f"does not work ({use}): {why}"


def vllm() -> Finding:
    """The environment of the vLLM server (docs/generation.md)."""
    use = "generation on a server"
    try:
        python = vllm_python()
    except ServerError:
        return Finding("vllm", "missing", f"no environment with it ({use})", "make vllm-env")
    if (why := attempt(python, "import vllm", use)) is None:
        return Finding("vllm", "ok", f"{python} ({use})")
    return Finding("vllm", "missing", f"{python} {why}", "make vllm-env")


def disk(folder: Path) -> Finding:
    """Room where runs are written."""
    free = shutil.disk_usage(folder).free / 1e9
    found = f"{free:.0f} GB free in {folder}"
    if free >= LEAST_GB:
        return Finding("disk", "ok", found)
    return Finding("disk", "missing", found, "make room, or write elsewhere with --run_dir")


def cache() -> Finding:
    """The folder of prepared data."""
    folder = cache_root()
    there = folder
    while not there.exists():
        there = there.parent
    if os.access(there, os.W_OK):
        return Finding("cache", "ok", str(folder))
    return Finding(
        "cache",
        "missing",
        f"{folder} cannot be written",
        "set POSTTRAIN_CACHE to a folder that can",
    )
