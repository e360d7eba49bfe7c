"""What only an operator may do, from the pages: promote, roll back, freeze, replay dead letters.

The same functions as `driftline releases` and `driftline dlq`, each with its line in the audit log;
those of the learner's side are handed in by the command line.  Guarded like every route
(`stream.api.guard`): token or certificate beyond loopback, rate, own origin, and a JSON body, which
a form of another site cannot send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol

from fastapi import APIRouter, Request
from starlette.responses import Response

from profiles.config import Settings
from profiles.manifest import Manifest
from profiles.notices import PolicyOrder, ReleaseNotice
from profiles.release import Release
from stream.api.bodies import json_body, json_response
from stream.api.document import answers, takes
from stream.console.views import Freeze, Nothing, Promotion, Replay
from stream.dead_letters import Replayed, Which, replay_letters
from stream.policy_desk import give_order

Order = Callable[[bool, str], Awaitable[PolicyOrder]]
SendBack = Callable[[Which], Awaitable[Replayed]]


class Desk(Protocol):
    """Releases: what an operator may do to them and read of them; all of it blocks."""

    def promote(self, release_id: str, force: bool) -> ReleaseNotice: ...

    def rollback(self) -> ReleaseNotice: ...

    def open(self, release_id: str) -> Release: ...

    def manifest(self, release_id: str) -> Manifest: ...


@dataclass(frozen=True, slots=True)
class Acts:
    """`freeze` and `send_back` go to Kafka; `desk` also to the release store."""

    desk: Desk
    freeze: Order
    send_back: SendBack

    @classmethod
    def of(cls, settings: Settings, desk: Desk) -> Acts:
        """On the deployment of these settings."""

        async def freeze(active: bool, reason: str) -> PolicyOrder:
            return await give_order(settings, "freeze", "releases", active=active, reason=reason)

        async def send_back(which: Which) -> Replayed:
            return await replay_letters(settings, which)

        return cls(desk, freeze, send_back)


def act_routes(acts: Acts, in_document: bool) -> APIRouter:
    """The routes that change something."""
    router = APIRouter(include_in_schema=in_document)

    @router.post(
        "/v1/console/promote",
        response_class=Response,
        responses=answers(ReleaseNotice, 409, 413, 415, 422, 503),
        openapi_extra=takes(Promotion),
    )
    async def promote(request: Request) -> Response:
        asked = await json_body(request, Promotion)
        done = await asyncio.to_thread(acts.desk.promote, asked.release_id, asked.force)
        return json_response(done)

    @router.post(
        "/v1/console/rollback",
        response_class=Response,
        responses=answers(ReleaseNotice, 409, 413, 415, 422, 503),
        openapi_extra=takes(Nothing),
    )
    async def rollback(request: Request) -> Response:
        await json_body(request, Nothing)
        return json_response(await asyncio.to_thread(acts.desk.rollback))

    @router.post(
        "/v1/console/freeze",
        response_class=Response,
        responses=answers(PolicyOrder, 409, 413, 415, 422, 503),
        openapi_extra=takes(Freeze),
    )
    async def freeze(request: Request) -> Response:
        asked = await json_body(request, Freeze)
        return json_response(await acts.freeze(asked.active, asked.reason))

    @router.post(
        "/v1/console/dead-letters/replay",
        response_class=Response,
        responses=answers(Replayed, 413, 415, 422, 503),
        openapi_extra=takes(Replay),
    )
    async def replay(request: Request) -> Response:
        asked = await json_body(request, Replay)
        return json_response(await acts.send_back(Which(letters=frozenset(asked.letters))))

    return router
