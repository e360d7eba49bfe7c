"""The process `driftline encoder`: one language model that the workers of several domains ask.

Each domain has a socket of its own, which only its user may open, and may read with adapters under
its own directories alone: a request can name no release of another domain.  Domains take turns of
at most `TURN_TEXTS` texts, so one that reads a whole catalogue does not keep the others waiting;
texts of one adapter go together, whoever asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections import deque
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np

from profiles.config import Settings
from profiles.errors import ModelError, SettingsError
from profiles.layers import Floats
from profiles.logs import get_logger
from profiles.metrics import EncoderMetrics
from profiles.settings.learning import ModelSettings
from stream.adapter_shelf import AdapterShelf
from stream.shared_encoder.wire import ASKS, MAX_SOCKET_PATH, Answer, Ask, framed, read_frame

log = get_logger("stream.encoder")

TURN_TEXTS = 64
"""About an eighth of a second on a core."""
MAX_WAITING = 64
"""Asks of a domain that may wait; beyond, its connections are read no further."""


@dataclass(slots=True)
class Waiting:
    """An ask, and what of it has been read."""

    ask: Ask
    adapter: Path
    answer: asyncio.Future[Floats]
    read: list[Floats] = field(default_factory=list)
    done: int = 0

    def take(self, vectors: Floats) -> None:
        """Vectors of the next texts."""
        self.read.append(vectors)
        self.done += len(vectors)
        if self.done == len(self.ask.texts) and not self.answer.done():
            self.answer.set_result(np.concatenate(self.read))


@dataclass(slots=True)
class Tenant:
    """A domain: its socket, its model, and the directories below which its adapters are: its
    workers' state, where releases are kept that come from afar, and a release store on this
    machine."""

    name: str
    model: ModelSettings
    socket: Path
    roots: tuple[Path, ...]
    waiting: deque[Waiting] = field(default_factory=deque)
    room: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MAX_WAITING))

    @classmethod
    def of(cls, name: str, settings: Settings) -> Tenant:
        """Raises: SettingsError where the domain names no socket, or one that cannot be."""
        path = settings.serving.encoder_socket
        if path is None:
            raise SettingsError(
                f"domain {name!r} has no serving.encoder_socket: its workers would not ask; set it "
                "for both (DRIFTLINE_SERVING__ENCODER_SOCKET)"
            )
        if len(os.fsencode(path)) > MAX_SOCKET_PATH:
            raise SettingsError(
                f"serving.encoder_socket {str(path)!r} is longer than {MAX_SOCKET_PATH} bytes, "
                "which no Unix socket may be; give a shorter path"
            )
        roots = [settings.store.directory.resolve()]
        releases = str(settings.store.releases)
        if "://" not in releases:
            roots.append(Path(releases).resolve())
        return cls(name, settings.model, path, tuple(roots))

    def checked(self, adapter: str) -> Path:
        """The adapter's directory.  Raises: ModelError where it is not this domain's."""
        found = Path(adapter).resolve()
        if not any(found.is_relative_to(root) for root in self.roots):
            raise ModelError(
                f"adapter {adapter!r} is not where domain {self.name!r} keeps its releases: below "
                + " or ".join(repr(str(root)) for root in self.roots)
            )
        return found


class EncoderServer:
    """Serves the tenants until it is cancelled."""

    def __init__(self, tenants: list[Tenant], budget: int, metrics: EncoderMetrics) -> None:
        self._tenants = deque(tenants)
        self._shelf = AdapterShelf(budget)
        self._metrics = metrics
        self._wanted = asyncio.Event()
        self._evicted = 0
        self.is_ready = False

    async def run(self) -> None:
        """Open the sockets and answer.  Raises: SettingsError where one is taken; ModelError."""
        async with contextlib.AsyncExitStack() as stack:
            for tenant in self._tenants:
                await asyncio.to_thread(self._shelf.check, tenant.model)
                await stack.enter_async_context(self._listening(tenant))
            self.is_ready = True
            self._metrics.ready.set(1)
            while True:
                if not await self._turn():
                    await self._wanted.wait()
                    self._wanted.clear()

    @contextlib.asynccontextmanager
    async def _listening(self, tenant: Tenant) -> AsyncIterator[None]:
        connections: set[asyncio.Task[None]] = set()

        def connected(stream: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(tenant, stream, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)

        server = await asyncio.start_unix_server(connected, sock=open_socket(tenant.socket))
        log.info("domain served", domain=tenant.name, socket=str(tenant.socket))
        try:
            yield
        finally:
            server.close()
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            tenant.socket.unlink(missing_ok=True)

    async def _serve(
        self, tenant: Tenant, stream: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """One connection: asks are answered as they are done, several under way at a time."""
        answering: set[asyncio.Task[None]] = set()
        try:
            while (payload := await read_frame(stream)) is not None:
                try:
                    ask = ASKS.decode(payload)
                except (msgspec.DecodeError, msgspec.ValidationError) as error:
                    self._metrics.refused.labels("malformed").inc()
                    log.warning("no ask", domain=tenant.name, error=str(error))
                    return
                await tenant.room.acquire()
                task = asyncio.create_task(self._answer(tenant, ask, writer))
                answering.add(task)
                task.add_done_callback(answering.discard)
                task.add_done_callback(lambda _: tenant.room.release())
        finally:
            for task in answering:
                task.cancel()
            writer.close()

    async def _answer(self, tenant: Tenant, ask: Ask, writer: asyncio.StreamWriter) -> None:
        try:
            vectors = await self._read(tenant, ask)
            answer = Answer(ask.number, len(vectors), vectors.astype(np.float32).tobytes())
        except ModelError as error:
            answer = Answer(ask.number, error=str(error))
        with contextlib.suppress(OSError):  # who asked has gone
            writer.write(framed(answer))
            await writer.drain()

    async def _read(self, tenant: Tenant, ask: Ask) -> Floats:
        if not ask.texts:
            return np.zeros((0, 0), np.float32)  # the base is there, or nothing would listen
        try:
            adapter = tenant.checked(ask.adapter)
        except ModelError:
            self._metrics.refused.labels("foreign-adapter").inc()
            raise
        waiting = Waiting(ask, adapter, asyncio.get_running_loop().create_future())
        tenant.waiting.append(waiting)
        self._wanted.set()
        try:
            return await waiting.answer
        finally:
            with contextlib.suppress(ValueError):
                tenant.waiting.remove(waiting)  # the connection is gone, or it was done

    async def _turn(self) -> bool:
        """Read some texts of the next domain that waits.  Returns: whether one did."""
        for _ in range(len(self._tenants)):
            tenant = self._tenants[0]
            self._tenants.rotate(-1)
            # One whose connection is gone leaves the queue a moment after its answer was cancelled.
            if waiting := [each for each in tenant.waiting if not each.answer.done()]:
                await self._read_some(tenant, waiting)
                return True
        return False

    async def _read_some(self, tenant: Tenant, waiting: Sequence[Waiting]) -> None:
        """The next texts of whoever waits for the same adapter as the first."""
        adapter = waiting[0].adapter
        parts: list[tuple[Waiting, int]] = []
        texts: list[str] = []
        for each in waiting:
            if each.adapter == adapter and len(texts) < TURN_TEXTS:
                some = each.ask.texts[each.done : each.done + TURN_TEXTS - len(texts)]
                parts.append((each, len(some)))
                texts += some
        try:
            vectors = await asyncio.to_thread(self._shelf.read, tenant.model, adapter, texts)
        except ModelError as error:
            self._metrics.refused.labels("adapter-load").inc()
            for each, _ in parts:
                if not each.answer.done():
                    each.answer.set_exception(error)
            await asyncio.sleep(0)  # they leave the queue
            return
        at = 0
        for each, count in parts:
            each.take(vectors[at : at + count])
            at += count
        metrics, shelf = self._metrics, self._shelf
        metrics.texts.labels(tenant.name).inc(len(texts))
        metrics.adapters.set(shelf.resident)
        metrics.adapter_bytes.set(shelf.resident_bytes)
        metrics.evicted.inc(shelf.evicted - self._evicted)
        self._evicted = shelf.evicted
        await asyncio.sleep(0)


def open_socket(path: Path) -> socket.socket:
    """Listen on a path that only this user may open.

    What a killed encoder left there is removed.  Raises: SettingsError where somebody listens.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.setblocking(False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as other:
                other.settimeout(1.0)
                try:
                    other.connect(str(path))
                except OSError:
                    path.unlink()
                else:
                    raise SettingsError(f"another encoder serves {str(path)!r} already; stop it")
        # Before anybody can connect, not after: the socket is made with these rights.
        before = os.umask(0o177)
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
    except OSError as error:
        made.close()
        raise SettingsError(
            f"serving.encoder_socket {str(path)!r} cannot be made: {error}; give a path in a "
            "directory that this user may write"
        ) from error
    except SettingsError:
        made.close()
        raise
    return made
