"""The console's own routes: its pages, its live streams, and what only an operator may do.

Streams are server-sent events, read by the pages with `fetch`, which can send the token that
`EventSource` cannot.  Promote and rollback are those of `driftline releases`: functions handed in
by the command line.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import resources
from typing import Annotated, Protocol

import msgspec
from fastapi import APIRouter, Query, Request
from starlette.responses import Response, StreamingResponse

from profiles.config import Settings
from profiles.events import Id, ReleaseNotice
from stream.api.bodies import json_body, json_response
from stream.api.guard import problem
from stream.api.read_model import ReadModel
from stream.api.reads import UserId
from stream.console.live import Live
from stream.console.signs import Signs

BEAT_S = 15.0
"""A comment is sent so often where there is no news: a closed page is noticed by it."""
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


class Desk(Protocol):
    """What an operator may do to releases; both block."""

    def promote(self, release_id: str, force: bool) -> ReleaseNotice: ...

    def rollback(self) -> ReleaseNotice: ...


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which release is to serve; `force`: even if it was refused or rolled back."""

    release_id: Id
    force: bool = False


class About(msgspec.Struct, frozen=True):
    """What the pages need to know of the deployment."""

    prefix: str
    group: str
    k: int
    actions: dict[str, float]


class Users(msgspec.Struct, frozen=True):
    """Whose profile changed last, newest first."""

    users: list[str]


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What the console stands on."""

    settings: Settings
    model: ReadModel
    signs: Signs
    live: Live
    desk: Desk


def console_router(parts: ConsoleParts) -> APIRouter:
    """The routes; none of them is in the OpenAPI document, which is for applications."""
    router = APIRouter(include_in_schema=False)
    settings = parts.settings

    @router.get("/v1/console/about")
    async def about() -> Response:
        serving = settings.serving
        return json_response(
            About(settings.topics.prefix, serving.group, serving.k, settings.actions)
        )

    @router.get("/v1/console/users")
    async def users(limit: Annotated[int, Query(ge=1, le=100)] = 12) -> Response:
        return json_response(Users(parts.model.users(limit)))

    @router.get("/v1/console/dead-letters")
    async def dead_letters() -> Response:
        return json_response(parts.signs.dead_letters())

    @router.get("/v1/console/live")
    async def live() -> Response:
        async def moments() -> AsyncIterator[bytes]:
            async for batch in parts.live.follow():
                yield _sse("moments", msgspec.json.encode(batch))

        return _stream(moments())

    @router.get("/v1/console/watch/{user_id:path}")
    async def watch(user_id: UserId) -> Response:
        async def news() -> AsyncIterator[bytes]:
            with parts.signs.watching(parts.model.name_of(user_id)) as queue:
                yield _sse("watching", b"{}")
                while not parts.live.ended:
                    try:
                        what = await asyncio.wait_for(queue.get(), BEAT_S)
                    except TimeoutError:
                        yield b": still here\n\n"
                    else:
                        yield _sse(what, b"{}")

        return _stream(news())

    @router.post("/v1/console/promote")
    async def promote(request: Request) -> Response:
        asked = await json_body(request, Promotion)
        return json_response(
            await asyncio.to_thread(parts.desk.promote, asked.release_id, asked.force)
        )

    @router.post("/v1/console/rollback")
    async def rollback(request: Request) -> Response:
        await json_body(request, dict[str, None])
        return json_response(await asyncio.to_thread(parts.desk.rollback))

    @router.get("/")
    async def page() -> Response:
        return _file("index.html")

    @router.get("/static/{name}")
    async def static(name: str) -> Response:
        return _file(name)

    return router


def _file(name: str) -> Response:
    """A file of the package: names come from its listing, never from the request."""
    pages = resources.files("stream.console") / "pages"
    found = next((file for file in pages.iterdir() if file.name == name), None)
    kind = KINDS.get(name.rpartition(".")[2])
    if found is None or kind is None:
        return problem(404, "no-file", "the console has no such file")
    return Response(found.read_bytes(), media_type=kind)


def _sse(event: str, data: bytes) -> bytes:
    """One server-sent event; JSON of msgspec's holds no line end.

    >>> _sse("news", b"{}")
    b'event: news\\ndata: {}\\n\\n'
    """
    return b"event: " + event.encode() + b"\ndata: " + data + b"\n\n"


def _stream(events: AsyncIterator[bytes]) -> Response:
    return StreamingResponse(events, media_type="text/event-stream")
