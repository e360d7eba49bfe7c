"""`driftline serve` and `driftline console`: the process around the application.

Kafka is connected first, so that a wrong address ends the command with one paragraph; then the port
is opened.  SIGINT and SIGTERM end it in order: uvicorn's own handlers would raise the signal again
before Kafka is left.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from profiles.config import Settings
from profiles.errors import SettingsError
from profiles.logs import get_logger
from profiles.settings.access import ApiSettings
from profiles.topics import Topics
from profiles.tracing import Traces, open_traces
from profiles.web_policy import SECURITY_HEADERS, WebPolicy
from stream.api.answers import answer_desk, taken_by
from stream.api.app import create_app
from stream.api.feed import Feed
from stream.api.guard import Policy
from stream.api.parts import Parts
from stream.api.read_model import ReadModel
from stream.client import AsyncDriftline

log = get_logger("stream.api")

GRACE_S = 5
BACKLOG = 128


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """The caller handles them."""
        yield


class _Protocol(H11Protocol):
    def send_400_response(self, msg: str) -> None:
        """uvicorn answers what is no HTTP before any application sees it: with our headers."""
        headers = [("content-type", "text/plain; charset=utf-8"), ("connection", "close")]
        answer = [
            h11.Response(status_code=400, headers=[*headers, *SECURITY_HEADERS.items()]),
            h11.Data(data=msg.encode()),
            h11.EndOfMessage(),
        ]
        for part in answer:
            self.transport.write(self.conn.send(part) or b"")
        self.transport.close()


async def run_server(
    app: FastAPI,
    listener: socket.socket,
    web: WebPolicy,
    on_stop: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGINT or SIGTERM.  `on_stop` ends what would keep connections open."""
    tls = web.tls
    config = uvicorn.Config(
        app,
        http=_Protocol,
        ssl_context_factory=None if tls is None else lambda config, default: tls,
        log_config=None,  # `profiles.logs` has configured it
        access_log=False,  # its lines hold paths, and so user ids
        server_header=False,
        lifespan="off",
        timeout_graceful_shutdown=GRACE_S,
        proxy_headers=False,
    )
    server = _Server(config)

    def stop() -> None:
        server.should_exit = True
        on_stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    log.info("serving", port=listener.getsockname()[1])
    await server.serve(sockets=[listener])


def serve(settings: Settings, told: Callable[[str], None] = print) -> None:
    """Run the HTTP API.  Raises: SettingsError, BrokerError, TopicError."""
    # Refused before anything is opened.
    asyncio.run(_serve(settings, Policy.of(settings).web, told))


async def _serve(settings: Settings, web: WebPolicy, told: Callable[[str], None]) -> None:
    with contextlib.closing(open_traces(settings.observability, "driftline-api")) as traces:
        await _serve_traced(settings, web, told, traces)


async def _serve_traced(
    settings: Settings, web: WebPolicy, told: Callable[[str], None], traces: Traces
) -> None:
    model = ReadModel(settings)
    desk = answer_desk(model)
    take = taken_by(model, desk, Topics.under(settings.topics.prefix))
    async with (
        AsyncDriftline(settings, answers=desk) as client,
        Feed.opened(settings.broker, model.sources, take) as feed,
    ):
        parts = Parts(settings, model, client, feed.why_not_ready, feed.why_not_live)
        app = create_app(parts, traces=traces)
        with open_port(settings.api) as listener:
            at = address(web, settings.api.host, listener)
            told(f"driftline's API listens on {at}/openapi.json")
            await run_server(app, listener, web)


def open_port(api: ApiSettings) -> socket.socket:
    """A listening socket.  Raises: SettingsError when the address cannot be taken."""
    family = socket.AF_INET6 if ":" in api.host else socket.AF_INET
    try:
        return socket.create_server((api.host, api.port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise SettingsError(
            f"api.host={api.host!r} api.port={api.port} cannot be opened: {error}; choose a free "
            "port (--port), or 0 for any"
        ) from error


def address(web: WebPolicy, host: str, listener: socket.socket) -> str:
    """The URL at which a listener is reached from this machine."""
    shown = f"[{host}]" if ":" in host else host
    return f"{web.scheme}://{shown}:{listener.getsockname()[1]}"
