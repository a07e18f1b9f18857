"""The `Engine` protocol over a vLLM server, its weights included.

A server that dies is started again, gets the weights that it had, and is asked for the prompts that
are still missing: what came before stays, for a draw depends on seed and weights alone.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from posttrain.errors import ModelError, PosttrainError, RecipeError, ServerError
from posttrain.generation.base import Completion, OnGroup, Sampling, ignore
from posttrain.generation.vllm.broadcast import Broadcast, Kept, Tensors, keep, weights_of
from posttrain.generation.vllm.client import Client, Lost, request_of
from posttrain.generation.vllm.launch import Server
from posttrain.generation.vllm.settings import VLLMSettings
from posttrain.generation.vllm.weights import Shelf, Version, size_of

logger = logging.getLogger(__name__)
LEAST_TEMPERATURE = 0.01  # vLLM takes what is below for a mistake
SECONDS_BETWEEN_LOOKS = 1.0
SILENT_LOOKS = 4  # then a server that runs but does not answer is started anew


class VLLMEngine:
    """Prompts in, answers out, from a server.

    Attributes:
        stop: tokens that end an answer.
        version: of the weights that every answer must come from.
        loaded: what this process has sent, an adapter after the weights that it goes on: a server
            that died gets it again.
    """

    def __init__(
        self, client: Client, stop: Sequence[int], settings: VLLMSettings, server: Server | None
    ) -> None:
        self.client, self.stop, self.settings, self.server = client, stop, settings, server
        self.version = client.health().version
        self.loaded: list[Version | Kept] = []
        self.shelf: Shelf | None = None
        self.broadcast: Broadcast | None = None
        self.closed = False
        self.one_recovers = threading.Lock()

    @classmethod
    def start(
        cls,
        model: str,
        stop: Sequence[int],
        settings: VLLMSettings,
        log: Path,
        say: Callable[[str], None] = logger.info,
    ) -> VLLMEngine:
        """An engine over a server of its own, which ends with this process.

        Raises:
            ServerError: vLLM is not there, or does not start.
        """
        server = Server(model, settings, log, say=say)
        return cls(server.start(), stop, settings, server)

    @classmethod
    def connect(
        cls, url: str, token: str, stop: Sequence[int], settings: VLLMSettings | None = None
    ) -> VLLMEngine:
        """An engine over a server that somebody else has started.

        Raises:
            ServerError: it is not there, or the token is wrong.
        """
        return cls(Client(url, token), stop, settings or VLLMSettings(), None)

    # --- answers ----------------------------------------------------------------------------------

    def __call__(
        self,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        *,
        num_generations: int = 1,
        seed: int = 0,
        numbers: Sequence[int] | None = None,
        on_group: OnGroup = ignore,
    ) -> list[list[Completion]]:
        """As `Engine`; the draw is vLLM's own and another one than that of the local engine.

        Raises:
            ServerError: the server cannot complete a prompt, or is gone and does not come back.
        """
        check(prompts, sampling)
        missing = dict(enumerate(prompts))
        results: list[list[Completion]] = [[] for _ in prompts]
        deaths = 0
        while missing:
            request = request_of(
                missing,
                sampling,
                self.stop,
                version=self.version,
                num_generations=num_generations,
                seed=seed,
                numbers=range(len(prompts)) if numbers is None else numbers,
            )
            try:
                for group in self.client.generate(request):
                    del missing[group.index]
                    results[group.index] = [
                        replace(answer, version=group.version) for answer in group.answers
                    ]
                    on_group(group.index, results[group.index])
            except Lost as error:
                deaths += 1
                if deaths > self.settings.restarts:
                    raise ServerError(
                        f"the vLLM server died {deaths} times while {len(prompts)} prompts were "
                        f"completed ({len(missing)} are missing): {error}{self.last_words()}"
                    ) from error
                logger.warning(
                    "vLLM: %s; %d of %d prompts are asked for again",
                    error,
                    len(missing),
                    len(prompts),
                )
                self.recover()
        return results

    def recover(self) -> None:
        """A server with the weights that this engine asks for, in place of one that has died."""
        with self.one_recovers:
            self.bring_back()

    def watch(self) -> None:
        """From now on, start a server of one's own again whenever it dies.

        Others that ask it may need it while this process has all its answers.
        """

        def look() -> None:
            while not self.closed:
                time.sleep(SECONDS_BETWEEN_LOOKS)
                server = self.server
                if server is None or server.process is None or server.alive:
                    continue
                try:
                    self.recover()
                except PosttrainError as error:  # said where answers are waited for
                    logger.warning("vLLM: %s", error)
                    return

        threading.Thread(target=look, name="watch vLLM", daemon=True).start()

    def bring_back(self) -> None:
        # whoever did not start the server waits for it to be started and to get its weights
        patience = self.settings.start_seconds * (1 if self.server is not None else 2)
        deadline, silent = time.monotonic() + patience, 0
        while True:
            if self.closed:  # from another thread
                raise ServerError("the vLLM server was ended while prompts were being completed")
            if self.server is not None and (not self.server.alive or silent == SILENT_LOOKS):
                self.client, silent = self.server.start(), 0
            silent += 1
            with contextlib.suppress(Lost):
                found = self.client.health().version
                if found != self.version:
                    for version in self.loaded:
                        self.load(version)
                        found = version.number
                if found == self.version:
                    return
                logger.info("vLLM: version %d, not %d yet", found, self.version)
            if time.monotonic() > deadline:
                raise ServerError(
                    f"{self.client.url} did not come back with version {self.version} of the "
                    f"weights in {patience:.0f} s (start_seconds)"
                    f"{self.last_words()}"
                )
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def load(self, version: Version | Kept, live: Tensors | None = None) -> None:
        """Let the server have a version.

        Args:
            live: the same weights where the model has them, which a GPU need not fetch again.
        """
        if isinstance(version, Version):
            self.client.load(str(version.folder), version.number, version.adapter)
            return
        try:
            if self.broadcast is None or self.broadcast.pid != self.client.health().pid:
                self.broadcast = Broadcast(self.client, version.device)
            self.broadcast.send(version.number, live or version.tensors, self.dtype)
        except ServerError:
            self.broadcast = None  # it may be half used
            raise

    def last_words(self) -> str:
        return self.server.last_words() if self.server is not None else ""

    # --- weights ----------------------------------------------------------------------------------

    def push(
        self,
        model: Any,
        *,
        state: Tensors | None = None,
        version: int | None = None,
    ) -> int:
        """Let the server complete with these weights from now on.

        Answers under way end with the old ones first. Of several processes that share a server one
        pushes; the others set `version` to what it returns.

        Args:
            model: a transformers model, or a peft model, of which the adapter alone is sent.
            state: its weights, where it has only parts of them (ZeRO-3).
            version: default: the next number.

        Returns:
            The version, which every answer carries from now on.

        Raises:
            ModelError: the server cannot load such an adapter.
            ServerError: it is gone, or refuses the weights.
        """
        if (
            hasattr(model, "peft_config")
            and self.server is not None
            and not self.settings.lora_rank
        ):
            raise ModelError("the server has no room for adapters; set lora_rank to their rank")
        number = self.version + 1 if version is None else version
        new, live = self.take(model, number, state)
        kept = [v for v in self.loaded if new.adapter and not v.adapter]
        try:
            self.load(new, live)
        except Lost as error:
            logger.warning("vLLM: %s; the weights are sent again", error)
            gone, self.loaded, self.version = self.loaded, [*kept, new], number
            self.recover()
        except ServerError:
            self.drop([new])
            raise
        else:
            gone, self.loaded, self.version = self.loaded, [*kept, new], number
        self.drop([v for v in gone if v not in kept])
        return number

    def take(
        self, model: Any, number: int, state: Tensors | None
    ) -> tuple[Version | Kept, Tensors | None]:
        """A copy of the weights as they are sent, and where they are now."""
        if self.settings.weights == "broadcast" and not hasattr(model, "peft_config"):
            live = weights_of(model, state)
            return keep(number, live, self.dtype), live
        if self.shelf is None:
            self.shelf = Shelf(size_of(model))
        return self.shelf.write(model, number, dtype=self.dtype, state=state), None

    def drop(self, versions: Sequence[Version | Kept]) -> None:
        """Remove the files of versions, but of those that are in use."""
        used = {v.folder for v in self.loaded if isinstance(v, Version)}
        for version in versions:
            if isinstance(version, Version) and version.folder not in used and self.shelf:
                self.shelf.drop(version)

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the weights that are sent; `None`: as the model has them."""
        name = self.settings.dtype
        return None if name == "auto" else getattr(torch, name)

    def sleep(self, level: int = 1) -> None:
        """Let the server leave its GPUs' memory to the trainer.

        Args:
            level: 1 keeps the weights on the host; 2 drops them, and they must be pushed again.

        Raises:
            ServerError: the server cannot (without a GPU none can).
        """
        self.client.sleep(level)

    def wake(self) -> None:
        """Take the memory back."""
        self.client.wake()

    def close(self) -> None:
        """End the server, if it is this engine's, and remove the weights that were sent."""
        self.closed = True
        if self.server is not None:
            self.server.stop()
        if self.shelf is not None:
            self.shelf.close()
            self.shelf = None

    def __enter__(self) -> VLLMEngine:
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


def check(prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
    """Refuse what vLLM would answer in another way than it was asked."""
    for index, prompt in enumerate(prompts):
        if not len(prompt):
            raise ModelError(f"prompt {index} has no tokens: there is nothing to go on from")
    if 0 < sampling.temperature < LEAST_TEMPERATURE:
        raise RecipeError(
            f"temperature: {sampling.temperature} must be 0 (greedy) or at least "
            f"{LEAST_TEMPERATURE} with vLLM"
        )
