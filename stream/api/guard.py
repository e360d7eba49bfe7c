"""What stands before every request: who may ask, how much may be sent, what browsers are told.

Without a token only this machine can ask, and a web page of another origin must not use the
visitor's browser for it: the Host header must name loopback (against DNS rebinding), and a request
that changes something must not come from another origin.  Log lines name the route, never the path:
paths hold user ids.
"""

from __future__ import annotations

import hmac
import ipaddress
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

import msgspec
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from profiles.config import Settings
from profiles.errors import SettingsError
from profiles.logs import get_logger
from stream.api.views import Problem

log = get_logger("stream.api")

SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
PROTECTED = "/v1/"
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Policy:
    """`token`: what protected routes want; None: only loopback names are answered."""

    token: str | None
    max_body_bytes: int

    @classmethod
    def of(cls, settings: Settings) -> Policy:
        """The policy of these settings.

        Raises: SettingsError when others could reach the API and there is no token.
        """
        host, secret = settings.api.host, settings.security.api_token
        if secret is None and not is_loopback(host):
            raise SettingsError(
                f"api.host is {host!r}, which other machines can reach, and there is no token: set "
                "DRIFTLINE_SECURITY__API_TOKEN to a secret of at least 16 characters (`openssl "
                "rand -hex 24` makes one), or keep api.host at 127.0.0.1"
            )
        token = None if secret is None else secret.get_secret_value()
        return cls(token, settings.api.max_body_bytes)


def is_loopback(host: str) -> bool:
    """Whether a host name or address is of this machine alone.

    >>> is_loopback("127.0.0.1"), is_loopback("localhost"), is_loopback("0.0.0.0")
    (True, True, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, policy: Policy) -> None:
        self._app = app
        self._policy = policy

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse, or pass on with the body bounded and the headers added."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began_s = time.perf_counter()
        status = 500

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
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
        finally:
            route = getattr(scope.get("route"), "path", "")
            took_ms = round((time.perf_counter() - began_s) * 1000, 1)
            say = log.warning if status >= 500 else log.debug
            say("request", method=scope["method"], route=route, status=status, ms=took_ms)

    def _refusal(self, scope: Scope) -> Response | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if self._policy.token is None and _name(host) not in LOOPBACK_NAMES:
            return problem(403, "foreign-host", f"host {host!r} is not this machine's own name")
        origin = headers.get("origin")
        if scope["method"] not in SAFE_METHODS and origin not in (
            None, f"http://{host}", f"https://{host}",
        ):  # fmt: skip
            return problem(403, "foreign-origin", f"origin {origin!r} is not this server")
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._policy.max_body_bytes:
            return problem(413, "too-large", self._limit())
        if self._policy.token is not None and scope["path"].startswith(PROTECTED):
            kind, _, given = headers.get("authorization", "").partition(" ")
            ours = self._policy.token.encode()
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), ours):
                told = problem(401, "no-token", "send `Authorization: Bearer <token>`")
                told.headers["www-authenticate"] = "Bearer"
                return told
        return None

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


def _name(host: str) -> str:
    """The name in a Host header, without port and brackets.

    >>> _name("[::1]:8080"), _name("localhost:80"), _name("127.0.0.1")
    ('::1', 'localhost', '127.0.0.1')
    """
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
