"""An HTTP server around one vLLM engine. This file is run in vLLM's environment.

    GET  /health    what is served, and the version of its weights
    POST /generate  prompts as token ids; a line of JSON per prompt, when its answers have ended
    POST /weights   a folder of safetensors or of an adapter, loaded in place; a new version
    POST /join      a trainer's process group, over which its weights may come instead
    POST /offer, POST /receive   whether tensors fit the model, and then the tensors; a new version
    POST /sleep, POST /wake   leave the memory of a GPU to a trainer, and take it back

Answers are under way together, and a change of the weights waits until none is: all tokens of an
answer come from one version, which is returned with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from posttrain_vllm_files import TIED, differ, shapes, unlike
from posttrain_vllm_http import Refused, application

GRACE_SECONDS = 8.0
BEAT_SECONDS = 5.0  # an empty line so often: the server lives, though no prompt is done


class Served:
    """The engine, and the weights that are in it."""

    def __init__(self, engine: Any, settings: dict[str, Any], device: str) -> None:
        import vllm

        self.engine, self.model, self.device = engine, settings["model"], device
        self.vllm = vllm.__version__
        self.workers = engine.vllm_config.parallel_config.world_size
        self.sleeping = self.broken = False
        self.version, self.temperature = 0, 1.0
        # of a model of the hub, the first that is pushed says what follows
        self.shapes = shapes(self.model) if os.path.isdir(self.model) else {}
        self.adapter: Any = None
        self.adapters = self.asked = self.running = 0
        self.turn, self.idle = asyncio.Lock(), asyncio.Event()
        self.idle.set()

    async def health(self) -> dict[str, Any]:
        await self.engine.check_health()
        return {
            "model": self.model,
            "version": -1 if self.broken else self.version,
            "vllm": self.vllm,
            "device": self.device,
            "workers": self.workers,
            "sleeping": self.sleeping,
            "pid": os.getpid(),
        }

    # --- answers ----------------------------------------------------------------------------------

    async def begin(self, asked: dict[str, Any]) -> None:
        """Take a place among the answers under way, if the weights are those that are asked for."""
        async with self.turn:
            if self.sleeping:
                raise Refused(409, "the server sleeps; wake it first")
            if self.broken:
                raise Refused(412, "the last weights could not be loaded; push some that can")
            if asked["version"] != self.version:
                raise Refused(412, f"asked for version {asked['version']}, not {self.version}")
            temperature = asked["temperature"] or 1.0
            if temperature != self.temperature:
                await self.idle.wait()
                await self.engine.collective_rpc("divide_logits", args=(temperature,))
                self.temperature = temperature
            self.running += 1
            self.idle.clear()

    def end(self) -> None:
        self.running -= 1
        if not self.running:
            self.idle.set()

    async def lines(self, done: asyncio.Queue[dict[str, Any]], left: int) -> AsyncIterator[str]:
        """A line per prompt as it is done, empty ones in between."""
        while left:
            try:
                line = await asyncio.wait_for(done.get(), BEAT_SECONDS)
            except TimeoutError:
                yield "\n"
                continue
            left -= 1
            yield json.dumps(line) + "\n"

    async def answer(
        self, one: dict[str, Any], asked: dict[str, Any], done: asyncio.Queue[dict[str, Any]]
    ) -> None:
        """All answers to one prompt, or why there are none."""
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        greedy = asked["temperature"] == 0
        self.asked += 1
        try:
            sampling = SamplingParams(
                n=1 if greedy else asked["n"],
                temperature=0.0 if greedy else 1.0,  # the logits are divided already
                top_p=1.0 if greedy else asked["top_p"],
                top_k=0 if greedy else asked["top_k"],
                seed=one["seed"],
                max_tokens=asked["max_tokens"],
                stop_token_ids=asked["stop"],
                ignore_eos=True,  # `stop` has every token that ends an answer
                detokenize=False,
                logprobs=0,
                flat_logprobs=True,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            stream = self.engine.generate(
                {"prompt_token_ids": one["ids"]},
                sampling,
                str(self.asked),
                lora_request=self.adapter,
            )
            async for output in stream:
                final = output
            answers = [read(answer) for answer in sorted(final.outputs, key=lambda o: o.index)]
            answers *= asked["n"] if greedy else 1
            line = {"index": one["index"], "version": self.version, "answers": answers}
        except Exception as error:
            if getattr(self.engine, "errored", False):
                end_all(f"the engine has died: {error!r}")
            cause = error.__cause__ or error
            line = {"index": one["index"], "error": f"{type(cause).__name__}: {cause}"}
        await done.put(line)

    # --- weights ----------------------------------------------------------------------------------

    async def load(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Load a folder in place when no answer is under way, and call it a version."""
        async with self.turn:
            await self.idle.wait()
            if asked["adapter"]:
                await self.load_adapter(asked["folder"])
            else:
                self.shapes = self.shapes or shapes(asked["folder"])
                if why := unlike(asked["folder"], self.shapes):
                    raise Refused(400, why)
                await self.reload("reload_weights", weights_path=asked["folder"])
            await self.forget(asked["version"])
        return await self.health()

    async def join(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Let every worker become a member of a trainer's process group."""
        await self.engine.collective_rpc("join", kwargs=asked)
        return {}

    async def offer(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Refuse tensors that are not those of the model."""
        new = {name: shape for name, _, shape in asked["tensors"]}
        self.shapes = self.shapes or new
        if why := differ(new, self.shapes, tied=TIED not in new):
            raise Refused(400, why)
        return {}

    async def receive(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Load what the trainer broadcasts when no answer is under way, and call it a version."""
        async with self.turn:
            await self.idle.wait()
            await self.reload("receive", tensors=asked["tensors"])
            await self.forget(asked["version"])
        return await self.health()

    async def reload(self, how: str, **given: Any) -> None:
        self.broken = True  # until all of it is there
        await self.engine.collective_rpc(how, kwargs=given)
        await self.drop_adapter()
        self.broken = False

    async def forget(self, version: int) -> None:
        """What was computed with other weights is no prefix of anything now."""
        if not await self.engine.reset_prefix_cache():
            self.broken = True
            raise RuntimeError("vLLM would not forget the prefixes of the weights before")
        self.version = version

    async def load_adapter(self, folder: str) -> None:
        from vllm.lora.request import LoRARequest

        self.adapters += 1
        new = LoRARequest(f"adapter-{self.adapters}", self.adapters, folder)
        if not await self.engine.add_lora(new):
            raise RuntimeError(f"vLLM did not take the adapter {folder}")
        await self.drop_adapter()
        self.adapter = new

    async def drop_adapter(self) -> None:
        old, self.adapter = self.adapter, None
        if old is not None:
            await self.engine.remove_lora(old.lora_int_id)

    # --- memory -----------------------------------------------------------------------------------

    async def sleep(self, asked: dict[str, Any]) -> dict[str, Any]:
        """Level 1 keeps the weights on the host, level 2 drops them: they are sent anew."""
        if self.device == "cpu":
            raise Refused(501, "vLLM's CPU backend has no sleep mode")
        async with self.turn:
            await self.idle.wait()
            await self.engine.sleep(level=asked["level"])
            self.sleeping = True
            self.broken = self.broken or asked["level"] > 1
        return await self.health()

    async def wake(self, asked: dict[str, Any]) -> dict[str, Any]:
        async with self.turn:
            await self.engine.wake_up()
            self.sleeping = False
        return await self.health()


def read(answer: Any) -> dict[str, Any]:
    """Tokens of an answer, their log-probs, and whether one of `stop` ended it."""
    flat, ids = answer.logprobs, list(answer.token_ids)
    logps = [flat.logprobs[start] for start in flat.start_indices]  # the drawn token comes first
    if [flat.token_ids[start] for start in flat.start_indices] != ids:
        raise RuntimeError("vLLM's log-probs are not those of its tokens")
    return {"ids": ids, "logps": logps, "finished": answer.finish_reason == "stop"}


def end_all(why: str) -> None:
    """End this process and all that it started: whoever waits learns it at once."""
    print(f"posttrain server: {why}", file=sys.stderr, flush=True)  # noqa: T201
    os.killpg(0, signal.SIGKILL)


def follow_parent() -> None:
    """End with the process that started this one, however that ended: its pipe closes."""
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)  # vLLM gives its shared memory back
    time.sleep(GRACE_SECONDS)
    end_all("the process that started this server has ended")


def on_device(device: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Arguments of the engine that depend on the device, and variables for its workers."""
    share, eager = settings["device_memory"], settings["eager"]
    chosen: dict[str, Any] = {}
    if device == "cpu":
        import psutil

        room = int((share or 0.1) * psutil.virtual_memory().total)
        chosen["kv_cache_memory_bytes"] = room
        # A prompt in two chunks draws twice for its first token, and vLLM takes one draw back,
        # which generators on a CPU cannot do: the engine dies.
        chosen["enable_chunked_prefill"] = False
        eager = True if eager is None else eager
    else:
        chosen["gpu_memory_utilization"] = share or 0.9
    if eager:
        chosen["enforce_eager"] = True
        # the sampler has a function that is compiled all the same, which takes seconds
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
    return chosen


async def serve(settings: dict[str, Any], token: str) -> None:
    import uvicorn
    from vllm import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    device = str(current_platform.device_type)
    if device == "cpu" and settings["sleep"]:
        end_all("vLLM's CPU backend has no sleep mode: leave `sleep` out")
    arguments = AsyncEngineArgs(
        model=settings["model"],
        skip_tokenizer_init=True,
        worker_extension_cls="posttrain_vllm_worker.Worker",
        disable_log_stats=True,
        **{**on_device(device, settings), **settings["engine"]},
    )
    engine = AsyncLLM.from_engine_args(arguments)
    config = uvicorn.Config(
        application(Served(engine, settings, device), token),
        log_level="warning",
        timeout_keep_alive=600,
        timeout_graceful_shutdown=2,
    )
    listening = socket.socket(fileno=settings["socket"])
    try:
        await uvicorn.Server(config).serve(sockets=[listening])
    finally:  # the web server raises the signal that ended it once more
        engine.shutdown(timeout=1)  # its workers may not end before they are killed


def main() -> None:
    settings = json.loads(sys.argv[1])
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    threading.Thread(target=follow_parent, daemon=True).start()
    asyncio.run(serve(settings, os.environ.pop("POSTTRAIN_VLLM_TOKEN")))


if __name__ == "__main__":
    main()
