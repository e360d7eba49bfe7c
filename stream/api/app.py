"""The application: the routes behind their guard, and the document that describes them.

Reads (`stream.api.reads`) come from the read model; writes (`stream.api.writes`) go through the
Python client to Kafka; recommendations that the model does not have, or that are asked for with
filters, are asked of a worker.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from fastapi import APIRouter, FastAPI
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from starlette.convertors import Convertor, register_url_convertor
from starlette.responses import PlainTextResponse, Response

from profiles.config import Settings
from profiles.metrics import HttpMetrics
from profiles.tracing import NO_TRACES, Traces
from stream.api.bodies import add_error_handlers
from stream.api.document import DESCRIPTION, components
from stream.api.guard import PROTECTED, Guard, Policy
from stream.api.parts import Client, Parts
from stream.api.read_model import ReadModel
from stream.api.reads import read_routes
from stream.api.traced import Traced
from stream.api.writes import write_routes


def create_app(
    parts: Parts,
    *more: APIRouter,
    traces: Traces = NO_TRACES,
    views: Sequence[type[msgspec.Struct]] = (),
) -> FastAPI:
    """The application, with further routes if any, behind its guard.

    `views`: bodies of those further routes, if the document is to have them.

    Raises: SettingsError when others could reach it and need neither token nor certificate.
    """
    policy = Policy.of(parts.settings)
    metrics = HttpMetrics(CollectorRegistry())
    register_url_convertor("anything", _Anything())
    app = FastAPI(
        title="driftline",
        version=importlib.metadata.version("driftline"),
        description=DESCRIPTION,
        docs_url=None,  # its page loads scripts from elsewhere
        redoc_url=None,
        openapi_url="/openapi.json",
    )
    app.include_router(read_routes(parts))
    app.include_router(write_routes(parts))
    app.include_router(_health(parts))
    app.include_router(_metrics(metrics))
    for router in more:
        app.include_router(router)
    add_error_handlers(app)

    def on_refusal(reason: str) -> None:
        metrics.refused.labels(reason).inc()

    # Inside the guard: whom it turns away makes no spans.
    if traces.is_on:
        app.add_middleware(Traced, traces=traces)
    app.add_middleware(Guard, policy=policy, on_refusal=on_refusal)
    plain = app.openapi

    def openapi() -> dict[str, Any]:  # Any: an OpenAPI document
        document = plain()
        document.setdefault("components", {}).update(
            components(policy.web.token is not None, views)
        )
        if policy.web.token is not None:
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


def _health(parts: Parts) -> APIRouter:
    router = APIRouter()

    @router.get(
        "/livez",
        summary="Does the process do its work",
        response_class=PlainTextResponse,
        responses={503: {"description": "No; only a restart can mend it"}},
    )
    async def livez() -> Response:
        """503 with the reason in one line when the topics are not followed any more."""
        return _probed(parts.why_not_live())

    @router.get(
        "/readyz",
        summary="Has everything been read",
        response_class=PlainTextResponse,
        responses={503: {"description": "Not yet; the body says what is missing"}},
    )
    async def readyz() -> Response:
        """503 with the reason in one line until the topics have been read to their ends."""
        return _probed(parts.why_not_ready())

    return router


def _metrics(metrics: HttpMetrics) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    @router.get("/metrics")
    async def told() -> Response:
        return Response(generate_latest(metrics.registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router


def _probed(reason: str | None) -> Response:
    return PlainTextResponse(f"{reason or 'ok'}\n", 503 if reason else 200)


class _Anything(Convertor[str]):
    """The rest of a path, line ends included: Starlette's own `path` stops at one."""

    regex = r"[\s\S]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value
