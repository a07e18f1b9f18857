"""`posttrain serve`: a model behind vLLM, for trainers to sample from."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from posttrain.cli.options import option, tell


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Hub id or folder.")],
    host: Annotated[str, option("--host", "Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, option("--port", "Default: a free one.", min=0, max=65535)] = 0,
    device_memory: Annotated[
        float | None, option("--device_memory", "Share of the GPU's (or machine's) memory.")
    ] = None,
    dtype: Annotated[str, option("--dtype", "auto, float32, bfloat16 or float16.")] = "auto",
    max_length: Annotated[
        int | None, option("--max_length", "Longest prompt with its answer, in tokens.")
    ] = None,
    tensor_parallel: Annotated[int, option("--tensor_parallel", "GPUs that share it.")] = 1,
    devices: Annotated[str | None, option("--devices", "GPUs to use: 0,1.")] = None,
    lora_rank: Annotated[int, option("--lora_rank", "Largest rank of pushed adapters.")] = 0,
    eager: Annotated[
        bool | None, option("--eager/--no-eager", "Run without compiling; default: on a CPU.")
    ] = None,
    sleep: Annotated[bool, option("--sleep", "Let clients put it to sleep (GPU).")] = False,
    log: Annotated[Path, option("--log", "File for what vLLM says.")] = Path("runs/vllm.log"),
) -> None:
    """Serve a model with vLLM until interrupted; prints address and token as one line of JSON.

    POSTTRAIN_VLLM_TOKEN is the token that clients must know, by default a random one.
    """
    from posttrain.generation.vllm.launch import TOKEN
    from posttrain.generation.vllm.serve import serve as serve_model
    from posttrain.generation.vllm.settings import VLLMSettings

    settings = VLLMSettings(
        device_memory=device_memory,
        dtype=dtype,
        max_length=max_length,
        tensor_parallel=tensor_parallel,
        devices=devices,
        lora_rank=lora_rank,
        eager=eager,
        sleep=sleep,
    )
    serve_model(
        model,
        settings,
        log,
        host=host,
        port=port,
        token=os.environ.get(TOKEN),
        say=tell,
        ready=lambda url, token: typer.echo(json.dumps({"url": url, "token": token})),
    )
