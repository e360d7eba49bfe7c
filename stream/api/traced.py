"""A span for every request of the API that was let in, below the caller's own if it names one.

The span is named by the route, never by the path, which holds user ids.  What the request sends to
Kafka carries it on (`stream.client.asynchronous`), and so do the recommendations that come of it.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profiles.tracing import HEADER, Traces

TRACED = "/v1/"


class Traced:
    """ASGI middleware; only added where traces are on."""

    def __init__(self, app: ASGIApp, traces: Traces) -> None:
        self._app, self._traces = app, traces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on inside a span; streams of the console are too long to be one."""
        path = scope.get("path", "")
        if scope["type"] != "http" or not path.startswith(TRACED) or "/console/" in path:
            await self._app(scope, receive, send)
            return
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        parent = Headers(scope=scope).get(HEADER)
        with self._traces.span("driftline.http", parent, method=scope["method"]) as span:
            await self._app(scope, receive, answer)
            # Known once the router has looked; an unknown path has none.
            route = getattr(scope.get("route"), "path", "none")
            span.note(route=route, status=status)
