"""The routes of the HTTP API.

Reads come from the read model; writes go through the Python client to Kafka and return when it has
acknowledged; recommendations that the model does not have, or that are asked for with filters, are
asked of a worker.  Bodies are read and written by msgspec, so that the API refuses what the topics
refuse, in the same words.
"""

from __future__ import annotations

import importlib.metadata
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Protocol, cast

import msgspec
from fastapi import APIRouter, FastAPI, Path, Query, Request
from fastapi.exceptions import RequestValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse, Response

from profiles.config import Settings
from profiles.errors import BadMessage, DriftlineError, NoAnswerError, ReleaseError
from profiles.events import (
    MAX_ID_LENGTH,
    MAX_K,
    MAX_TAGS,
    Event,
    Filters,
    Recommendation,
    Scalar,
    User,
    check_key,
)
from stream.api.document import DESCRIPTION, answers, components, takes
from stream.api.guard import PROTECTED, Guard, Policy, problem
from stream.api.read_model import ReadModel
from stream.api.views import (
    Accepted,
    Declared,
    ErasureAccepted,
    ErasureIn,
    EventIn,
    EventsIn,
    Fault,
    Items,
    Problem,
    Profile,
    Releases,
)
from stream.client.payloads import Contract

Why = Callable[[], str | None]
"""None when all is well, else the reason in one line."""


class Client(Protocol):
    """What the API needs of `stream.client.AsyncDriftline`."""

    async def send(self, events: Iterable[Event]) -> int: ...

    async def declare(
        self, user_id: str, interests: str, attributes: dict[str, Scalar] | None = None
    ) -> None: ...

    async def recommend(
        self,
        user_id: str,
        k: int = 10,
        *,
        filters: Filters | None = None,
        exclude: Sequence[str] = (),
        timeout_s: float = 10.0,
    ) -> Recommendation: ...

    async def erase(self, user_id: str, reason: str = "") -> str: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes stand on."""

    settings: Settings
    model: ReadModel
    client: Client
    why_not_ready: Why


UserId = Annotated[str, Path(min_length=1, max_length=MAX_ID_LENGTH, description="the user's id")]
Tags = Annotated[list[str], Query(max_length=MAX_TAGS)]
Excluded = Annotated[list[str], Query(max_length=1_000, description="item ids to leave out")]


def create_app(parts: Parts, *more: APIRouter) -> FastAPI:
    """The application, with further routes if any, behind its guard.

    Raises: SettingsError when others could reach it and there is no token.
    """
    policy = Policy.of(parts.settings)
    register_url_convertor("anything", _Anything())
    app = FastAPI(
        title="driftline",
        version=importlib.metadata.version("driftline"),
        description=DESCRIPTION,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.include_router(_reads(parts))
    app.include_router(_writes(parts))
    app.include_router(_health(parts))
    for router in more:
        app.include_router(router)
    app.add_exception_handler(DriftlineError, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_middleware(Guard, policy=policy)
    plain = app.openapi

    def openapi() -> dict[str, Any]:  # Any: an OpenAPI document
        document = plain()
        document.setdefault("components", {}).update(components(policy.token is not None))
        if policy.token is not None:
            for path, operations in document["paths"].items():
                for operation in operations.values() if path.startswith(PROTECTED) else ():
                    operation["security"] = [{"token": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # FastAPI's own way to extend it
    return app


def openapi_document() -> dict[str, Any]:  # Any: an OpenAPI document
    """The document under default settings, for docs/reference."""
    settings = Settings.model_construct()  # no environment
    # Nothing is asked of the client: routes are described, not run.
    parts = Parts(settings, ReadModel(settings), cast(Client, None), lambda: None)
    return create_app(parts).openapi()


def _reads(parts: Parts) -> APIRouter:
    router = APIRouter()
    model, api, serving = parts.model, parts.settings.api, parts.settings.serving

    @router.get(
        "/v1/recommendations/{user_id:anything}",
        summary="What to recommend to a user now",
        response_class=Response,
        responses=answers(Recommendation, 422, 503, 504),
    )
    async def recommendations(
        user_id: UserId,
        k: Annotated[int | None, Query(ge=1, le=MAX_K)] = None,
        any_tag: Tags = [],  # noqa: B006  # FastAPI copies it
        no_tag: Tags = [],  # noqa: B006
        exclude: Excluded = [],  # noqa: B006
        exclude_seen: bool | None = None,
        fresh: Annotated[bool, Query(description="ask a worker even if one is at hand")] = False,
    ) -> Response:
        """The newest recommendation that a worker made for the user.

        A worker is asked, and the answer awaited, if none is at hand, for `fresh`, and for any
        `k`, tags or exclusions.
        """
        check_key(user_id)
        chosen = k is not None or any_tag or no_tag or exclude or exclude_seen is not None
        if not (chosen or fresh) and (newest := model.recommendation(user_id)) is not None:
            return json_response(newest)
        seen = serving.exclude_seen if exclude_seen is None else exclude_seen
        answer = await parts.client.recommend(
            user_id,
            serving.k if k is None else k,
            filters=Filters(any_tag, no_tag, seen),
            exclude=exclude,
            timeout_s=api.answer_timeout_s,
        )
        return json_response(answer)

    @router.get(
        "/v1/profiles/{user_id:anything}",
        summary="A user's profile",
        response_class=Response,
        responses=answers(Profile, 404, 422, 503),
    )
    async def profiles(user_id: UserId) -> Response:
        """History, tags and declared interests, from the newest record of the changelog."""
        check_key(user_id)
        profile = model.profile(user_id)
        if profile is None:
            return problem(
                404,
                "no-profile",
                f"this user is not among the {api.users} whose profiles changed last (api.users)",
            )
        return json_response(profile)

    @router.get(
        "/v1/items",
        summary="Search the catalogue",
        response_class=Response,
        responses=answers(Items, 422),
    )
    async def items(
        q: Annotated[str, Query(max_length=200, description="in title, id or tags")] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 20,
    ) -> Response:
        """Items that hold a text, whatever its case; all of them without one."""
        return json_response(model.items(q, limit))

    @router.get(
        "/v1/releases",
        summary="Every release and its status",
        response_class=Response,
        responses=answers(Releases),
    )
    async def releases() -> Response:
        """The newest notice of each, newest first, with parent, metrics and the reason given."""
        return json_response(model.releases())

    return router


def _writes(parts: Parts) -> APIRouter:
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


def _health(parts: Parts) -> APIRouter:
    router = APIRouter()

    @router.get("/livez", summary="Does the process run", response_class=PlainTextResponse)
    async def livez() -> str:
        """Always ok: a process that answers is alive."""
        return "ok\n"

    @router.get(
        "/readyz",
        summary="Has everything been read",
        response_class=PlainTextResponse,
        responses={503: {"description": "Not yet; the body says what is missing"}},
    )
    async def readyz() -> Response:
        """503 with the reason in one line until the topics have been read to their ends."""
        reason = parts.why_not_ready()
        return PlainTextResponse(f"{reason or 'ok'}\n", 503 if reason else 200)

    return router


class _Anything(Convertor[str]):
    """The rest of a path, line ends included: Starlette's own `path` stops at one."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


async def json_body(request: Request, kind: Any) -> Any:  # Any: a msgspec type, unions included
    """The JSON body as a value of ours.  Raises: HTTPException 415; BadMessage."""
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json":
        # Also keeps out forms of other sites, which a browser would send without asking.
        raise HTTPException(415, f"content-type is {media!r}; send application/json")
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except msgspec.ValidationError as error:
        raise BadMessage("invalid", str(error)) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage("malformed", f"the body is not JSON: {error}") from error


def _event(posted: EventIn, now_s: float) -> Event:
    return Event(
        posted.event_id or uuid.uuid4().hex,
        posted.user_id,
        posted.item_id,
        posted.action,
        now_s if posted.ts is None else posted.ts,
        posted.value,
        posted.session_id,
        posted.context,
    )


def json_response(value: msgspec.Struct, status: int = 200) -> Response:
    """A value of ours as the body of a response."""
    return Response(msgspec.json.encode(value), status, media_type="application/json")


async def _refused(request: Request, error: Exception) -> Response:
    if isinstance(error, BadMessage):
        return problem(422, error.reason, str(error))
    if isinstance(error, ReleaseError):
        return problem(409, "release", str(error))
    if isinstance(error, NoAnswerError):
        return problem(504, "no-answer", str(error))
    return problem(503, "unavailable", str(error))


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException), "registered for it"
    told = problem(error.status_code, "http", str(error.detail))
    for name, value in (error.headers or {}).items():
        told.headers[name] = value
    return told


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError), "registered for it"
    said = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
    return problem(422, "invalid", said)
