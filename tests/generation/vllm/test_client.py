"""What is said to a server and how its answers are read, without one."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from posttrain.errors import ServerError
from posttrain.generation.base import Completion, Sampling
from posttrain.generation.vllm.client import Client, Lost, read_group, request_of, seed_of
from posttrain.generation.vllm.engine import VLLMEngine

SAMPLING = Sampling(4, 0.7, 0.9, 5)
PROMPTS = {0: [5, 6], 2: (7,)}
LINE = {
    "index": 2,
    "version": 3,
    "answers": [
        {"ids": [8, 1], "logps": [-0.5, -0.25], "finished": True},
        {"ids": [8, 8, 8, 8], "logps": [-1.0] * 4, "finished": False},
    ],
}


def request(**changes: Any) -> dict[str, Any]:
    given = {"version": 3, "num_generations": 2, "seed": 1, "numbers": [10, 11, 12], **changes}
    return request_of(PROMPTS, SAMPLING, [9, 1, 9], **given)


def test_a_request_says_everything_that_a_draw_depends_on() -> None:
    asked = json.loads(json.dumps(request()))
    prompts = asked.pop("prompts")
    assert asked == {
        "version": 3,
        "n": 2,
        "temperature": 0.7,
        "top_p": 0.9,
        "top_k": 5,
        "max_tokens": 4,
        "stop": [1, 9],
    }
    assert prompts == [
        {"index": 0, "ids": [5, 6], "seed": seed_of(1, 10)},
        {"index": 2, "ids": [7], "seed": seed_of(1, 12)},
    ]


def test_seeds_are_far_apart_and_leave_room_for_the_answers() -> None:
    seeds = {seed_of(seed, number) for seed in range(40) for number in range(40)}
    assert len(seeds) == 1600 and max(seeds) < 2**62  # plus the number of the answer: no overflow
    near = sorted(seeds)
    assert min(b - a for a, b in pairwise(near)) > 2**20
    assert seed_of(1, 10) == seed_of(1, 10) != seed_of(11, 0)


def test_a_line_is_read_back() -> None:
    group = read_group(json.loads(json.dumps(LINE)), request())
    assert (group.index, group.version) == (2, 3)
    assert group.answers == [Completion([8, 1], True), Completion([8, 8, 8, 8], False)]
    assert [c.logps for c in group.answers] == [[-0.5, -0.25], [-1.0] * 4]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ({**LINE, "version": 2}, "by version 2 of the weights, not 3"),
        ({**LINE, "answers": LINE["answers"][:1]}, "1 answers came, not 2"),  # type: ignore[index]
        ({"index": 2, "error": "ValueError: too long"}, "cannot complete prompt 2: ValueError"),
        (
            {**LINE, "answers": [{"ids": [8], "logps": [-1.0], "finished": False}] * 2},
            "cut an answer off after 1 tokens, not at 4.*raise max_length",
        ),
    ],
    ids=["other weights", "too few", "refused", "cut off"],
)
def test_an_answer_to_another_question_is_refused(line: dict[str, Any], why: str) -> None:
    with pytest.raises(ServerError, match=why):
        read_group(line, request())


def test_a_port_where_nobody_listens(free_port: Callable[[], int]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(ServerError, match=f"no server answers at {url}.*posttrain serve"):
        VLLMEngine.connect(url, "token", [1])
    with pytest.raises(ServerError, match="is no address of a server; give http://HOST:PORT"):
        Client("localhost:80", "token")


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
REFUSAL = b'{"error": "version 0"}'
ENDS = {
    "at once": b"",
    "after the head": b"HTTP/1.1 200 OK\r\n\r\n",
    "before a chunk": CHUNKED,
    "after a beat": CHUNKED + b"1\r\n\n\r\n",
    "in a line": CHUNKED + b"80\r\n" + json.dumps(LINE).encode()[:20],
    "other weights": b"HTTP/1.1 412 No\r\nContent-Length: 22\r\n\r\n" + REFUSAL,
}


@pytest.mark.parametrize("said", ENDS.values(), ids=ENDS.keys())
def test_a_server_that_goes_away_is_lost_wherever_it_was(said: bytes) -> None:
    listener = socket.create_server(("127.0.0.1", 0))

    def answer() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(said)
        connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    client = Client(f"http://127.0.0.1:{listener.getsockname()[1]}", "token")
    with pytest.raises(Lost):
        list(client.generate(request()))
    thread.join()
    listener.close()
