"""What is on its way: chunks whose outputs Kafka has not acknowledged yet.

Chunks of one partition are acknowledged to Faust strictly in order.  That order is not cosmetic:
where nothing is committed yet, a later chunk acknowledged first would be committed past an earlier
one (see `stream.chunks`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from profiles.metrics import WorkerMetrics
from profiles.topics import Topics
from stream.chunks import Chunk
from stream.publisher import Publisher, Sent
from stream.source import Outcome, Source

IN_FLIGHT = 16
"""Chunks that may wait for acknowledgement at once: bounds memory, hides the round trip."""


class Delivery:
    """Follows chunks to their acknowledgement.  `on_failure` ends the worker."""

    def __init__(
        self,
        publisher: Publisher,
        topics: Topics,
        topic_ids: Mapping[str, str],
        metrics: WorkerMetrics,
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self.topic_ids = topic_ids
        self.progress_at = time.monotonic()
        self.positions: dict[tuple[str, int], int] = {}
        self._publisher = publisher
        self._topics = topics
        self._metrics = metrics
        self._on_failure = on_failure
        self._room = asyncio.Semaphore(IN_FLIGHT)
        self._last: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def in_flight(self) -> int:
        """Chunks not yet acknowledged."""
        return len(self._tasks)

    def fail(self, error: BaseException) -> None:
        """Something that must not be passed over: the worker ends."""
        self._on_failure(error)

    async def follow(
        self,
        source: Source,
        chunk: Chunk,
        sent: Sent,
        events: Sequence[Any],  # Faust's, whose acknowledgement releases the offsets
        oldest_ms: int | None,
    ) -> None:
        """Acknowledge `events` once everything in `sent` is in Kafka.  Waits only for room."""
        if not self._tasks:
            self.progress_at = time.monotonic()
        await self._room.acquire()
        place = (chunk.topic, chunk.partition)
        task = asyncio.create_task(
            self._finish(self._last.get(place), source, chunk, sent, events, oldest_ms)
        )
        self._last[place] = task
        self._tasks.add(task)
        task.add_done_callback(self._settled)

    async def change(self, source: Source, work: Coroutine[Any, Any, Outcome]) -> Outcome:
        """Make a change that no input waits for, send what it leaves, and await that."""
        sent = Sent()
        async with source.order:
            outcome = await work
            topics = self._topics
            if keys := [*outcome.keys, *source.take_keys()]:
                await self._publisher.send(sent, topics.keys, source.number, keys)
            await self._publisher.send(sent, topics.profiles, source.number, outcome.changelog)
            await self._publisher.send(sent, topics.recommendations, source.number, outcome.outputs)
        await sent.acknowledged()
        self._note_changelog(source, sent)
        return outcome

    async def drained(self) -> None:
        """Return when nothing is in flight."""
        while self._tasks:
            await asyncio.wait(set(self._tasks))

    async def settled(self) -> None:
        """Return when everything that is in flight now has arrived."""
        if self._tasks:
            await asyncio.wait(set(self._tasks))

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # told to `on_failure` already; asyncio need not complain as well

    async def _finish(
        self,
        before: asyncio.Task[None] | None,
        source: Source,
        chunk: Chunk,
        sent: Sent,
        events: Sequence[Any],
        oldest_ms: int | None,
    ) -> None:
        try:
            await sent.acknowledged()
            if before is not None:
                await asyncio.shield(before)
            self._note_changelog(source, sent)
            for event in events:
                event.ack()
            self.positions[chunk.topic, chunk.partition] = chunk.records[-1].offset + 1
            self.progress_at = time.monotonic()
            if oldest_ms is not None:
                self._metrics.latency.observe(max(0.0, time.time() - oldest_ms / 1000.0))
        except Exception as error:
            self.fail(error)
            raise
        finally:
            self._room.release()

    def _note_changelog(self, source: Source, sent: Sent) -> None:
        for topic, partition, count, acknowledged in sent.futures:
            if (topic, partition) == (self._topics.profiles, source.number):
                begin = acknowledged.result().offset
                source.note_changelog(begin, begin + count)
