"""Metrics and health over HTTP, on loopback by default: `/metrics`, `/livez`, `/readyz`.

A WSGI server of the standard library in daemon threads: a scrape must not wait for the event
loop, a stuck loop must still be able to say that it is stuck, and a client that connects and says
nothing must not keep the others waiting.  `/readyz` and `/livez` answer 503 with the reason in one
line.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from profiles.errors import SettingsError

Probe = Callable[[], str | None]
"""Returns None when all is well, else the reason in one line."""


class Endpoint:
    """Serves until `close`.  `port` is the real one when 0 was asked for.

    Raises: SettingsError when the address cannot be taken.
    """

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, ready: Probe, live: Probe
    ) -> None:
        metrics = make_wsgi_app(registry)
        probes = {"/readyz": ready, "/livez": live}

        # Any: the WSGI protocol's own types.
        def app(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
            path = environ.get("PATH_INFO", "")
            if path == "/metrics":
                body: Iterable[bytes] = metrics(environ, start_response)
                return body
            probe = probes.get(path)
            if probe is None:
                start_response("404 Not Found", [("Content-Type", "text/plain")])
                return [b"see /metrics, /livez, /readyz\n"]
            reason = probe()
            status = "200 OK" if reason is None else "503 Service Unavailable"
            start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [f"{reason or 'ok'}\n".encode()]

        try:
            self._server = make_server(host, port, app, server_class=_Server, handler_class=_Quiet)
        except OSError as error:
            raise SettingsError(
                f"http.host={host!r} http.port={port} cannot be opened: {error}; choose a free "
                "port, or 0 for any"
            ) from error
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingMixIn, WSGIServer):
    """One thread per connection; none of them outlives the process."""

    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""
