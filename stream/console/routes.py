"""The console's own routes: its pages, its live streams, and what the pages read.

Streams are server-sent events, read by the pages with `fetch`, which can send the token that
`EventSource` cannot.  What changes something is in `stream.console.acts`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from importlib import resources
from typing import Annotated

import msgspec
from fastapi import APIRouter, Path
from starlette.responses import Response, StreamingResponse

from profiles.board import ReleaseBoard
from profiles.config import Settings
from profiles.manifest import Manifest
from profiles.wire import MAX_ID_LENGTH, check_key
from stream.api.bodies import json_response
from stream.api.document import answers
from stream.api.guard import problem
from stream.api.read_model import ReadModel
from stream.api.reads import UserId
from stream.console.acts import Acts, act_routes
from stream.console.insight import Insight
from stream.console.live import Live
from stream.console.signs import DeadLetters, Signs
from stream.console.views import About, Forgetting, Users, UserView

BEAT_S = 15.0
"""A comment is sent so often where there is no news: a closed page is noticed by it."""
KINDS = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


LATEST_USERS = 12
MATRIX = 16
"""Rows and columns of R[i][j] that are shown: a deployment of a year has thousands."""
ReleaseId = Annotated[str, Path(min_length=1, max_length=MAX_ID_LENGTH)]


@dataclass(frozen=True, slots=True)
class ConsoleParts:
    """What the console stands on."""

    settings: Settings
    model: ReadModel
    signs: Signs
    live: Live
    insight: Insight
    acts: Acts


def console_router(parts: ConsoleParts, in_document: bool = False) -> APIRouter:
    """The routes.  The OpenAPI document is for applications and has none of them: `in_document`
    puts those in that answer JSON, for whoever tests them."""
    router = APIRouter()
    router.include_router(_reads(parts, in_document))
    router.include_router(act_routes(parts.acts, in_document))
    router.include_router(_streams(parts))
    router.include_router(_pages())
    return router


def _reads(parts: ConsoleParts, in_document: bool) -> APIRouter:
    router = APIRouter(include_in_schema=in_document)
    settings = parts.settings

    @router.get("/v1/console/about", response_class=Response, responses=answers(About))
    async def about() -> Response:
        serving = settings.serving
        return json_response(
            About(settings.topics.prefix, serving.group, serving.k, settings.actions)
        )

    @router.get("/v1/console/users", response_class=Response, responses=answers(Users))
    async def users() -> Response:
        return json_response(Users(parts.model.users(LATEST_USERS)))

    @router.get("/v1/console/dead-letters", response_class=Response, responses=answers(DeadLetters))
    async def dead_letters() -> Response:
        return json_response(parts.signs.dead_letters())

    @router.get(
        "/v1/console/insight/{user_id:path}",
        response_class=Response,
        responses=answers(UserView, 404, 409, 422, 503),
    )
    async def insight(user_id: UserId) -> Response:
        check_key(user_id)
        view = await parts.insight.look(user_id)
        if view is None:
            return problem(404, "no-profile", "this user is not among those whose profile is kept")
        return json_response(view)

    @router.get(
        "/v1/console/forgetting/{release_id}",
        response_class=Response,
        responses=answers(Forgetting, 409, 422, 503),
    )
    async def forgetting(release_id: ReleaseId) -> Response:
        manifest = await asyncio.to_thread(parts.acts.desk.manifest, release_id)
        return json_response(forgetting_of(manifest, parts.model.board))

    return router


def forgetting_of(manifest: Manifest, board: ReleaseBoard) -> Forgetting:
    """The end of a release's matrix: row by row, its ancestors and itself."""
    rows = manifest.forgetting[-MATRIX:]
    first = max(0, len(manifest.forgetting) - MATRIX)
    names, parent = [manifest.release_id], manifest.parent_id
    while len(names) < len(rows):
        names.append(parent or "")
        known = board.get(parent) if parent else None
        parent = known.parent_id if known is not None else None
    matrix = [[None if figure < 0 else round(figure, 4) for figure in row[first:]] for row in rows]
    return Forgetting(manifest.release_id, names[: len(rows)][::-1], first + 1, matrix)


def _streams(parts: ConsoleParts) -> APIRouter:
    router = APIRouter(include_in_schema=False)

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

    return router


def _pages() -> APIRouter:
    router = APIRouter(include_in_schema=False)

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
