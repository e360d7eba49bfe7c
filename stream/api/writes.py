"""Routes that write: checked, sent to Kafka, answered when it has acknowledged."""

from __future__ import annotations

import time
import uuid

from fastapi import APIRouter, Request
from starlette.responses import Response

from profiles.errors import BadMessage
from profiles.events import Event
from profiles.items import User
from stream.api.bodies import json_body, json_response
from stream.api.document import answers, takes
from stream.api.parts import Parts
from stream.api.views import (
    Accepted,
    Declared,
    ErasureAccepted,
    ErasureIn,
    EventIn,
    EventsIn,
    Fault,
    Problem,
)
from stream.client.payloads import Contract


def write_routes(parts: Parts) -> APIRouter:
    """The ways into the topics."""
    router = APIRouter()
    contract = Contract.of(parts.settings)

    @router.post(
        "/v1/events",
        summary="Say what users did",
        status_code=202,
        response_class=Response,
        responses=answers(Accepted, 413, 415, 422, 503, status=202),
        openapi_extra=takes(EventIn, many=True),
    )
    async def events(request: Request) -> Response:
        """One event or a list of up to 1,000; all are sent, or none.

        202 says that Kafka has them. An event of an item that the catalogue does not have becomes
        a dead letter later.
        """
        posted = await json_body(request, EventsIn)
        now_s = time.time()
        batch = [_event(one, now_s) for one in (posted if isinstance(posted, list) else [posted])]
        faults: list[Fault] = []
        for index, event in enumerate(batch):
            try:
                contract.event(event, now_s)
            except BadMessage as error:
                faults.append(Fault(index, error.reason, str(error)))
        if faults:
            said = f"{len(faults)} of {len(batch)} events are bad, none was sent"
            return json_response(Problem("bad-events", said, faults), 422)
        await parts.client.send(batch)
        return json_response(Accepted([event.event_id for event in batch]), 202)

    @router.post(
        "/v1/users",
        summary="Say in words what a user likes",
        status_code=202,
        response_class=Response,
        responses=answers(Declared, 413, 415, 422, 503, status=202),
        openapi_extra=takes(User),
    )
    async def declare(request: Request) -> Response:
        """Declared interests count from a new user's first recommendation on."""
        user = await json_body(request, User)
        await parts.client.declare(user.user_id, user.interests, user.attributes)
        return json_response(Declared(user.user_id), 202)

    @router.post(
        "/v1/erasures",
        summary="Forget a user",
        status_code=202,
        response_class=Response,
        responses=answers(ErasureAccepted, 413, 415, 422, 503, status=202),
        openapi_extra=takes(ErasureIn),
    )
    async def erase(request: Request) -> Response:
        """Workers and learner each write a receipt to the topic `receipts` when they have."""
        erasure = await json_body(request, ErasureIn)
        erasure_id = await parts.client.erase(erasure.user_id, erasure.reason)
        return json_response(ErasureAccepted(erasure_id), 202)

    return router


def _event(posted: EventIn, now_s: float) -> Event:
    return Event(
        posted.event_id or uuid.uuid4().hex,
        posted.user_id,
        posted.item_id or "",
        posted.action,
        now_s if posted.ts is None else posted.ts,
        posted.value,
        posted.session_id,
        posted.context,
        posted.text,
    )
