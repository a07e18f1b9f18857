"""The server's routes: JSON in, JSON or lines of it out, for whoever knows the token."""

from __future__ import annotations

import asyncio
import hmac
import traceback
from collections.abc import Callable
from typing import Any


class Refused(Exception):
    """A request that cannot be served: its status, and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Answers:
    """All answers of a request, which ends with it: also where nobody listens any more."""

    def __init__(self, served: Any, asked: dict[str, Any]) -> None:
        from starlette.responses import StreamingResponse

        done: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        prompts = asked["prompts"]
        self.served = served
        self.tasks = [asyncio.create_task(served.answer(p, asked, done)) for p in prompts]
        lines = served.lines(done, len(prompts))
        self.response = StreamingResponse(lines, media_type="application/x-ndjson")

    async def __call__(self, *connection: Any) -> None:
        try:
            await self.response(*connection)
        finally:
            for task in self.tasks:
                task.cancel()
            await asyncio.gather(*self.tasks, return_exceptions=True)
            self.served.end()


def application(served: Any, token: str) -> Any:
    """The routes; whoever does not know the token is turned away."""
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import JSONResponse
    from starlette.routing import Route

    async def generate(asked: dict[str, Any]) -> Answers:
        await served.begin(asked)
        return Answers(served, asked)

    def route(path: str, method: str, work: Callable[[dict[str, Any]], Any]) -> Route:
        async def respond(request: Request) -> Any:
            given = request.headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
                return JSONResponse({"error": "the token is missing or wrong"}, 401)
            try:
                done = await work(await request.json() if method == "POST" else {})
            except Refused as error:
                return JSONResponse({"error": str(error)}, error.status)
            except Exception as error:
                traceback.print_exc()
                return JSONResponse({"error": f"{type(error).__name__}: {error}"}, 500)
            return done if isinstance(done, Answers) else JSONResponse(done)

        return Route(path, respond, methods=[method])

    async def health(asked: dict[str, Any]) -> dict[str, Any]:
        return await served.health()

    posts = {
        "/generate": generate,
        "/weights": served.load,
        "/join": served.join,
        "/offer": served.offer,
        "/receive": served.receive,
        "/sleep": served.sleep,
        "/wake": served.wake,
    }
    return Starlette(
        routes=[
            route("/health", "GET", health),
            *(route(path, "POST", work) for path, work in posts.items()),
        ]
    )
