"""`posttrain serve`: a server in the foreground, for trainers and evaluations to connect to."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from pathlib import Path

from posttrain.errors import ServerError
from posttrain.generation.vllm.launch import Server
from posttrain.generation.vllm.settings import VLLMSettings

SECONDS_BETWEEN_LOOKS = 0.5


def serve(
    model: str,
    settings: VLLMSettings,
    log: Path,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    say: Callable[[str], None],
    ready: Callable[[str, str], None],
) -> None:
    """Serve a model until this process is interrupted or asked to end.

    Args:
        token: that clients must know; default: a random one.
        ready: called with the address and the token when the server answers.

    Raises:
        ServerError: vLLM is not there, does not start, or ends by itself.
    """
    server = Server(model, settings, log, host=host, port=port, token=token, say=say)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with contextlib.suppress(KeyboardInterrupt):
        try:
            ready(server.start().url, server.token)
            while server.alive:
                time.sleep(SECONDS_BETWEEN_LOOKS)
            raise ServerError(f"the vLLM server has ended:{server.last_words()}")
        finally:
            server.stop()
