"""Weights on their way to a server without a file: from GPU to GPU, or over the network."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from posttrain.errors import ServerError
from posttrain.generation.vllm.client import Client, Lost
from posttrain.generation.vllm.server.posttrain_vllm_files import TIED
from posttrain.generation.vllm.server.posttrain_vllm_group import (
    ROOT,
    broadcast,
    group_of,
    store_of,
)

Tensors = Mapping[str, torch.Tensor]


@dataclass(frozen=True, eq=False)
class Kept:
    """Weights that were broadcast, on the host: a server that has died gets them again.

    The model's own will not do. It has moved on by then, or is in parts again (ZeRO-3).

    Attributes:
        device: that they are sent from.
    """

    number: int
    tensors: Tensors
    device: torch.device
    adapter: bool = False


def weights_of(model: Any, state: Tensors | None = None) -> Tensors:
    """The weights of a model by name, where and as they are.

    Args:
        state: the weights, where the model itself has only parts of them.
    """
    tied = getattr(model.config, "tie_word_embeddings", False)
    found = model.state_dict() if state is None else state
    return {name: t.detach() for name, t in found.items() if not (tied and name == TIED)}


def keep(number: int, tensors: Tensors, dtype: torch.dtype | None) -> Kept:
    """A copy of weights on the host, in a server's precision."""
    copies = {name: t.to("cpu", cast(t, dtype), copy=True) for name, t in tensors.items()}
    return Kept(number, copies, next(iter(tensors.values())).device)


def cast(tensor: torch.Tensor, dtype: torch.dtype | None) -> torch.dtype:
    """The type that a tensor is sent in; `None`: as it is."""
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


class Broadcast:
    """A process group of this process, which sends, and the workers of a server.

    Attributes:
        pid: of the server's first process: one that was started again has no such group.

    Raises:
        Lost: the server is gone.
        ServerError: the group cannot be made, as on one GPU that both share.
    """

    def __init__(self, client: Client, device: torch.device) -> None:
        health = client.health()
        self.client, self.pid = client, health.pid
        both = health.device == device.type == "cuda"
        self.device = device if both else torch.device("cpu")
        backend, size = "nccl" if both else "gloo", 1 + health.workers
        host = address_towards(client.host, client.port)
        store = store_of(host, 0, lead=True)
        self.group: Any = together(
            lambda: client.join(backend, host, store.port, size),
            lambda: group_of(backend, store, ROOT, size),
        )

    def send(self, number: int, tensors: Tensors, dtype: torch.dtype | None) -> None:
        """Let the server load these weights, and call them a version, when its answers are done.

        Args:
            dtype: that they are sent in, one by one; `None`: as they are.

        Raises:
            Lost: the server is gone.
            ServerError: it refuses the weights; it has those of before.
        """
        told = [
            (name, str(cast(t, dtype)).removeprefix("torch."), list(t.shape))
            for name, t in tensors.items()
        ]
        self.client.offer(told)  # before anything is sent: nobody can stop in the middle

        def send_all() -> None:
            for tensor in tensors.values():
                broadcast(self.group, tensor.to(self.device, cast(tensor, dtype)).contiguous())

        together(lambda: self.client.receive(told, number), send_all, self.abort)

    def abort(self) -> None:
        """End what is being sent: nobody receives it."""
        if hasattr(self.group, "abort"):
            self.group.abort()


def together(
    ask: Callable[[], Any], work: Callable[[], Any], abandon: Callable[[], None] = lambda: None
) -> Any:
    """What `work` returns, which ends only if the server, who is asked meanwhile, does its part.

    Raises:
        Lost: the server is gone.
        ServerError: it refuses, or the work failed.
    """
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(work)
        try:
            ask()
        except ServerError:
            abandon()
            raise
        try:
            return done.result()
        except (RuntimeError, OSError) as error:
            raise Lost(f"weights could not be sent: {error}") from error


def address_towards(host: str, port: int) -> str:
    """This machine's address as another one sees it; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect((host, port))
        return str(asking.getsockname()[0])
