"""After a swap, everyone is rebuilt: a paced sweep over the profiles that no event has touched.

Partitions wait in a queue: all of them after a swap, one of them when it opens (it may have come
from a worker that had not finished).  A slice at a time goes through the state thread, between
batches of events, and its changelog records are acknowledged before the next; then it waits until
events hardly do (`stream.pace`).  So it takes what time they leave, and its memory is bounded.
Declared interests are encoded anew by the new release's language model.
"""

from __future__ import annotations

import asyncio
import time

from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.space import Space
from stream.delivery import Delivery
from stream.event_path import EventPath
from stream.language_model import LanguageModel
from stream.pace import Pace
from stream.publisher import Message
from stream.source import Outcome, Source
from stream.state_thread import StateThread
from stream.text_reader import Read, TextReader
from stream.words import Unread

log = get_logger("stream.sweep")


class Sweep:
    """Rebuilds stale profiles, partition by partition."""

    def __init__(
        self,
        path: EventPath,
        delivery: Delivery,
        language_model: LanguageModel,
        reader: TextReader,
        state: StateThread,
        metrics: WorkerMetrics,
        slice_users: int,
        pace: Pace,
    ) -> None:
        self._path = path
        self._delivery = delivery
        self._language_model = language_model
        self._reader = reader
        self._state = state
        self._metrics = metrics
        self._slice_users = slice_users
        self._pace = pace
        self._queue: asyncio.Queue[Source] = asyncio.Queue()

    def add(self, source: Source) -> None:
        """Look through a partition, as soon as its turn comes."""
        if self._path.space is None:
            return  # the first release will queue it
        self._queue.put_nowait(source)
        self._metrics.profiles_stale.inc(source.store.watermark.count)

    async def run(self) -> None:
        """Sweep what is queued, for as long as the worker lives."""
        while True:
            source = await self._queue.get()
            started = time.perf_counter()
            users = await self._partition(source)
            if self._queue.empty():
                self._metrics.profiles_stale.set(0)
            if users:
                log.info(
                    "profiles rebuilt",
                    partition=source.number,
                    users=users,
                    release=self._path.serving.release_id,
                    seconds=round(time.perf_counter() - started, 3),
                )

    async def _partition(self, source: Source) -> int:
        """Rebuild one partition; another swap meanwhile ends it, since that queues it again."""
        arrangement = self._path.arrangement
        after: bytes | None = None
        wanting: list[tuple[bytes, str, Space]] = []
        unread: Unread | None = None
        read: Read = []
        users = 0

        async def rebuilt() -> Outcome:
            nonlocal after, wanting, unread
            found = await self._state.run(self._slice, source, after, read)
            unread = found if isinstance(found, Unread) else None
            if isinstance(found, Unread):
                return Outcome([], [])
            messages, after, wanting = found
            return Outcome(messages, [])

        while arrangement == self._path.arrangement:
            outcome = await self._delivery.change(source, rebuilt())
            if unread is not None:  # outside of `change`: events go on meanwhile
                read = await self._reader.read(unread)
                continue
            read = []
            users += len(outcome.changelog)
            self._metrics.profiles_stale.dec(len(outcome.changelog))
            for space in self._path.resident:
                mine = [(user, text) for user, text, serving in wanting if serving is space]
                if mine:
                    await self._declare(source, mine, space)
            if after is None:
                break
            await self._pace.leisure()
        return users

    def _slice(
        self, source: Source, after: bytes | None, read: Read
    ) -> tuple[list[Message], bytes | None, list[tuple[bytes, str, Space]]] | Unread:
        self._path.note_read(read)
        return self._path.upkeep.sweep(source, after, self._slice_users, time.time())

    async def _declare(
        self, source: Source, wanting: list[tuple[bytes, str]], space: Space
    ) -> None:
        texts = await self._language_model.encode(
            space.release.adapter_directory, [text for _, text in wanting]
        )

        async def declared() -> Outcome:
            # Gone meanwhile: the next sweep encodes these texts for whoever serves then.
            if space not in self._path.resident:
                return Outcome([], [])
            messages = await self._state.run(
                self._path.upkeep.declare, source, wanting, texts, space, time.time()
            )
            return Outcome(messages, [])

        await self._delivery.change(source, declared())
