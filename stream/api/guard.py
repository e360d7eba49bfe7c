"""What stands before every request: who may ask, how often, how much, what browsers are told.

Who may ask is `profiles.web_policy`'s matter.  A request that changes something must not come from
another origin.  Log lines name the route, never the path or the query: they hold user ids.  The
headers are on every answer, also on the 500 of a defect, which is written here: Starlette writes
its own outside of all middleware.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profiles.config import Settings
from profiles.logs import get_logger
from profiles.web_policy import SECURITY_HEADERS, WebPolicy
from stream.api.views import Problem

log = get_logger("stream.api")

SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PROTECTED = ("/v1/", "/metrics")


@dataclass(frozen=True, slots=True)
class Policy:
    """Who may ask, and how large a body may be."""

    web: WebPolicy
    max_body_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy of these settings.  Raises: SettingsError, as `WebPolicy.of`."""
        web = WebPolicy.of(settings.security, settings.api.host, "api.host")
        return cls(web, settings.api.max_body_bytes)


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(
        self, app: ASGIApp, policy: Policy, on_refusal: Callable[[str], None] = lambda reason: None
    ) -> None:
        self._app = app
        self._policy = policy
        self._on_refusal = on_refusal

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the body bounded and the headers added."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        status, has_begun = 500, False

        async def answer(message: Message) -> None:
            nonlocal status, has_begun
            if message["type"] == "http.response.start":
                status, has_begun = message["status"], True
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refusal = self._refusal(scope)
        try:
            if refusal is not None:
                await refusal(scope, receive, answer)
            else:
                await self._app(scope, self._bounded(receive), answer)
        except Exception:
            if not has_begun:
                await problem(500, "defect", "driftline failed; its log says why")(
                    scope, receive, answer
                )
            raise
        finally:
            route = getattr(scope.get("route"), "path", "")
            took_ms = round((time.perf_counter() - began_s) * 1000, 1)
            say = log.warning if status >= 500 else log.debug
            say("request", method=scope["method"], route=route, status=status, ms=took_ms)

    def _refusal(self, scope: Scope) -> Response | None:
        headers, web = Headers(scope=scope), self._policy.web
        wait_s = web.limit.wait_s((scope.get("client") or ("",))[0])
        if wait_s:
            told = self._refused(429, "rate", "too many requests of this client; come back later")
            told.headers["retry-after"] = str(math.ceil(wait_s))
            return told
        host = headers.get("host", "")
        if web.refuses_host(host):
            said = f"host {host!r} is not this machine's own name"
            return self._refused(403, "foreign-host", said)
        origin = headers.get("origin")
        if scope["method"] not in SAFE_METHODS and origin not in (
            None, f"http://{host}", f"https://{host}",
        ):  # fmt: skip
            return self._refused(403, "foreign-origin", f"origin {origin!r} is not this server")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._policy.max_body_bytes:
            return self._refused(413, "too-large", self._limit())
        is_protected = scope["path"].startswith(PROTECTED)
        if is_protected and not web.admits(headers.get("authorization", "")):
            told = self._refused(401, "no-token", "send `Authorization: Bearer <token>`")
            told.headers["www-authenticate"] = "Bearer"
            return told
        return None

    def _refused(self, status: int, error: str, message: str) -> Response:
        self._on_refusal(error)
        return problem(status, error, message)

    def _bounded(self, receive: Receive) -> Receive:
        """A body without a Content-Length is counted as it comes."""
        received = 0

        async def bounded() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._policy.max_body_bytes:
                raise HTTPException(413, self._limit())
            return message

        return bounded

    def _limit(self) -> str:
        return f"a body may have {self._policy.max_body_bytes} bytes (api.max_body_bytes)"


def problem(status: int, error: str, message: str) -> Response:
    """A response that says why not."""
    body = msgspec.json.encode(Problem(error, message))
    return Response(body, status, media_type="application/json")
