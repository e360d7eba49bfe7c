"""Metrics and health over HTTP, on loopback by default: `/metrics`, `/livez`, `/readyz`.

A WSGI server of the standard library in daemon threads: a scrape must not wait for the event
loop, a stuck loop must still be able to say that it is stuck, and a client that connects and says
nothing must not keep the others waiting.  `/readyz` and `/livez` answer 503 with the reason in one
line.

Who may ask is `profiles.web_policy`'s matter.  Probes want no token, since orchestrators have none
to send; then they give a status and no reason.  The TLS handshake is made in the connection's own
thread, or a client that does not shake hands would stop the server.
"""

from __future__ import annotations

import math
import ssl
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from profiles.errors import SettingsError
from profiles.logs import get_logger
from profiles.metrics import HttpMetrics
from profiles.settings.access import HttpSettings, SecuritySettings
from profiles.web_policy import SECURITY_HEADERS, WebPolicy

log = get_logger("profiles.endpoint")

Probe = Callable[[], str | None]
"""Returns None when all is well, else the reason in one line."""

SILENT_FOR_S = 10.0
"""A connection that says nothing for so long is closed."""
CONNECTIONS = 64
"""Open at once: each has a thread, and nobody may take them all."""
PLAIN = "text/plain; charset=utf-8"
HEADERS = [*SECURITY_HEADERS.items(), ("server", "driftline")]


class Endpoint:
    """Serves until `close`.  `port` is the real one when 0 was asked for.

    Raises: SettingsError when the address cannot be taken, or others could reach it unasked.
    """

    def __init__(
        self,
        http: HttpSettings,
        security: SecuritySettings,
        registry: CollectorRegistry,
        ready: Probe,
        live: Probe,
    ) -> None:
        policy = WebPolicy.of(security, http.host, "http.host")
        refused = HttpMetrics(registry).refused
        pages = make_wsgi_app(registry)
        probes = {"/readyz": ready, "/livez": live}

        # Any: the WSGI protocol's own types.
        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
                return start_response(status, [*headers, *HEADERS])

            def say(status: str, text: str, *more: tuple[str, str]) -> list[bytes]:
                start(status, [("Content-Type", PLAIN), *more])
                return [f"{text}\n".encode()]

            wait_s = policy.limit.wait_s(environ.get("REMOTE_ADDR", ""))
            if wait_s:
                refused.labels("rate").inc()
                after = ("Retry-After", str(math.ceil(wait_s)))
                return say("429 Too Many Requests", "too many requests of this client", after)
            if policy.refuses_host(environ.get("HTTP_HOST", "")):
                refused.labels("foreign-host").inc()
                return say("403 Forbidden", "this is not the name of this machine")
            path = environ.get("PATH_INFO", "")
            probe = probes.get(path)
            is_known = policy.admits(environ.get("HTTP_AUTHORIZATION", ""))
            if probe is not None:
                reason = probe()
                told = reason if is_known or reason is None else "not well"
                return say("503 Service Unavailable" if reason else "200 OK", told or "ok")
            if path != "/metrics":
                return say("404 Not Found", "see /metrics, /livez, /readyz")
            if not is_known:
                refused.labels("no-token").inc()
                wanted = ("WWW-Authenticate", "Bearer")
                return say("401 Unauthorized", "send `Authorization: Bearer <token>`", wanted)
            body: Iterable[bytes] = pages(environ, start)
            return body

        try:
            self._server = make_server(
                http.host, http.port, _guarded(app), server_class=_Server, handler_class=_Handler
            )
        except OSError as error:
            raise SettingsError(
                f"http.host={http.host!r} http.port={http.port} cannot be opened: {error}; choose "
                "a free port, or 0 for any"
            ) from error
        self._server.tls = policy.tls
        self._server.on_bad_handshake = refused.labels("handshake").inc
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


def _guarded(app: Any) -> Any:  # Any: the WSGI protocol's own types
    """A defect is told in the log and not to the client."""

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        try:
            answer: Iterable[bytes] = app(environ, start_response)
            return answer
        except Exception as error:
            log.error("metrics endpoint failed", error=repr(error))
            start_response("500 Internal Server Error", [("Content-Type", PLAIN), *HEADERS])
            return [b"failed; the log says why\n"]

    return guarded


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection, so many at most; none of them outlives the process."""

    daemon_threads = True
    tls: ssl.SSLContext | None = None
    on_bad_handshake: Callable[[], None]

    def __init__(self, *args: Any, **more: Any) -> None:  # Any: handed on
        super().__init__(*args, **more)
        self._room = threading.BoundedSemaphore(CONNECTIONS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            request.settimeout(SILENT_FOR_S)
            if self.tls is not None:
                try:
                    request = self.tls.wrap_socket(request, server_side=True)
                except OSError:
                    self.on_bad_handshake()
                    self.shutdown_request(request)
                    return
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news; defects are told by `_guarded`."""


class _Handler(WSGIRequestHandler):
    """Quiet, and with the headers also on what the standard library answers by itself."""

    error_message_format = "%(code)d %(message)s\n"
    error_content_type = PLAIN
    default_request_version = "HTTP/1.0"  # an answer to HTTP/0.9, or to noise, has no headers

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""

    def version_string(self) -> str:
        """No versions for strangers."""
        return "driftline"

    def end_headers(self) -> None:
        """Called here for errors only: answers of the application bring theirs."""
        for name, value in SECURITY_HEADERS.items():
            self.send_header(name, value)
        super().end_headers()
