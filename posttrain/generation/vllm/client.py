"""One server over HTTP: what is asked, what comes back, and what may go wrong.

The standard library's client: it takes no proxy from the environment for a server on this machine,
and the hub's own changed its name between the versions that are supported here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any
from urllib.parse import urlsplit

from posttrain.errors import ServerError
from posttrain.generation.base import Completion, Sampling

QUICK_SECONDS = 10.0  # questions that are answered at once
QUIET_SECONDS = 120.0  # between two lines of a server that lives, which sends one every 5
OTHER_WEIGHTS = 412  # status of a server that is asked for a version that it does not have
LOAD_SECONDS = 1800.0  # weights that are read, after the answers under way

Tensor = tuple[str, str, list[int]]  # name, type and shape


class Lost(ServerError):
    """The server is not there, went away before it had said everything, or has other weights."""


@dataclass(frozen=True)
class Health:
    """What a server says of itself; version -1 are weights that could not be loaded.

    Attributes:
        workers: processes that share the model.
    """

    model: str
    version: int
    vllm: str
    device: str
    workers: int
    sleeping: bool
    pid: int


@dataclass(frozen=True)
class Group:
    """The answers to one prompt, and the version of the weights that all of them come from."""

    index: int
    version: int
    answers: list[Completion]


def seed_of(seed: int, number: int) -> int:
    """The seed that vLLM draws the answers to a prompt by: the g-th one by this plus g."""
    text = f"{seed} {number}".encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "big") >> 2


def request_of(
    prompts: Mapping[int, Sequence[int]],
    sampling: Sampling,
    stop: Sequence[int],
    *,
    version: int,
    num_generations: int,
    seed: int,
    numbers: Sequence[int],
) -> dict[str, Any]:
    """What `/generate` is asked for the prompts, by their indices.

    Args:
        numbers: what every prompt is called in the draw, by index.
    """
    return {
        "version": version,
        "n": num_generations,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_new_tokens,
        "stop": sorted(set(map(int, stop))),
        "prompts": [
            {"index": i, "ids": list(map(int, ids)), "seed": seed_of(seed, numbers[i])}
            for i, ids in prompts.items()
        ],
    }


def read_group(line: Mapping[str, Any], request: Mapping[str, Any]) -> Group:
    """A line of the answer.

    Raises:
        ServerError: the server could not complete the prompt, or not as it was asked.
    """
    index = line["index"]
    if "error" in line:
        raise ServerError(f"vLLM cannot complete prompt {index}: {line['error']}")
    answers = [Completion(a["ids"], a["finished"], a["logps"]) for a in line["answers"]]
    if len(answers) != request["n"]:
        raise ServerError(f"prompt {index}: {len(answers)} answers came, not {request['n']}")
    if line["version"] != request["version"]:
        raise ServerError(
            f"prompt {index} was completed by version {line['version']} of the weights, "
            f"not {request['version']}"
        )
    for answer in answers:
        if not answer.finished and len(answer.ids) < request["max_tokens"]:
            raise ServerError(
                f"prompt {index}: the server cut an answer off after {len(answer.ids)} tokens, "
                f"not at {request['max_tokens']}: prompt and answer do not fit its longest "
                "sequence; raise max_length of the server, or ask for fewer tokens"
            )
    return Group(index, line["version"], answers)


class Client:
    """Speaks to one server.

    Attributes:
        url: as http://127.0.0.1:8000.
        token: that the server was started with.
    """

    def __init__(self, url: str, token: str) -> None:
        self.url, self.token = url.rstrip("/"), token
        parts = urlsplit(self.url)
        if parts.scheme != "http" or not parts.hostname or not parts.port:
            raise ServerError(
                f"{url!r} is no address of a server; give http://HOST:PORT, as posttrain serve "
                "prints it"
            )
        self.host, self.port = parts.hostname, parts.port

    def health(self, seconds: float = QUICK_SECONDS) -> Health:
        """What the server says of itself.

        Raises:
            Lost: nobody answers.
            ServerError: somebody else answers, or the engine is broken.
        """
        found = self.ask("GET", "/health", None, seconds)
        try:
            return Health(**found)
        except TypeError:
            raise ServerError(f"{self.url} is no server of posttrain: it said {found}") from None

    def load(self, folder: str, version: int, adapter: bool) -> None:
        """Let the server read new weights, and call them a version, when its answers are done."""
        body = {"folder": folder, "version": version, "adapter": adapter}
        self.ask("POST", "/weights", body, LOAD_SECONDS)

    def join(self, backend: str, host: str, port: int, size: int) -> None:
        """Let the server's workers become members of a process group that this one leads."""
        body = {"backend": backend, "host": host, "port": port, "size": size}
        self.ask("POST", "/join", body, LOAD_SECONDS)

    def offer(self, tensors: Sequence[Tensor]) -> None:
        """Ask whether tensors are those of the model; those that are not are refused."""
        self.ask("POST", "/offer", {"tensors": tensors}, QUICK_SECONDS)

    def receive(self, tensors: Sequence[Tensor], version: int) -> None:
        """Let the server take tensors from the group, and call them a version."""
        self.ask("POST", "/receive", {"tensors": tensors, "version": version}, LOAD_SECONDS)

    def sleep(self, level: int) -> None:
        """Let the server leave the memory of its GPUs when its answers are done."""
        self.ask("POST", "/sleep", {"level": level}, LOAD_SECONDS)

    def wake(self) -> None:
        """Let the server take its memory back."""
        self.ask("POST", "/wake", {}, LOAD_SECONDS)

    def generate(self, request: Mapping[str, Any]) -> Iterator[Group]:
        """The groups of a request, each as soon as it is whole.

        Raises:
            Lost: the server went away before the last one, or has other weights.
            ServerError: it refuses the request, or completes a prompt in another way.
        """
        left = len(request["prompts"])
        connection = HTTPConnection(self.host, self.port, timeout=QUIET_SECONDS)
        try:
            response = self.open(connection, "POST", "/generate", request)
            while left:
                line = self.line(response)
                if line is not None:
                    left -= 1
                    yield read_group(line, request)
        finally:
            connection.close()

    def line(self, response: HTTPResponse) -> dict[str, Any] | None:
        """The next line; `None` for one that only says that the server lives."""
        try:
            text = response.readline()
        except (OSError, HTTPException, ValueError) as error:
            raise Lost(f"{self.url} went away: {error!r}") from error
        if not text.endswith(b"\n"):
            raise Lost(f"{self.url} went away in the middle of its answer")
        return json.loads(text) if text.strip() else None

    def ask(self, method: str, path: str, body: Any, seconds: float) -> dict[str, Any]:
        """One question, one answer."""
        connection = HTTPConnection(self.host, self.port, timeout=seconds)
        try:
            return json.loads(self.open(connection, method, path, body).read())
        except (OSError, HTTPException) as error:
            raise Lost(f"{self.url}{path}: {error!r}") from error
        except ValueError:
            raise ServerError(f"{self.url} is no server of posttrain: it sent no JSON") from None
        finally:
            connection.close()

    def open(self, connection: HTTPConnection, method: str, path: str, body: Any) -> HTTPResponse:
        """Ask, and wait for the head of the answer."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            if response.status == 200:
                return response
            said = response.read()
        except (OSError, HTTPException) as error:
            raise Lost(
                f"no server answers at {self.url} ({error!r}); start one with `posttrain serve`"
            ) from error
        try:
            why = json.loads(said)["error"]
        except (ValueError, KeyError, TypeError):
            why = said[:200].decode(errors="replace")
        kind = Lost if response.status == OTHER_WEIGHTS else ServerError
        raise kind(f"{self.url}{path} refuses ({response.status}): {why}")
