"""What waits is taken together: one visit to the state thread for all partitions of a worker.

A visit costs most of a millisecond however few events it brings, and a fetch often brings one or
two of each partition.  Taken one by one, a few hundred events a second kept the state thread busy;
so while it is busy everything that arrives is collected, and the busier it is the more a visit
brings (decision 0038).  At rest a round is one chunk: nothing ever waits for company.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from stream.chunks import Chunk

WAITING_CHUNKS = 32
"""Chunks that may wait for the next round; beyond that Faust's own buffer holds them back."""


@dataclass(frozen=True, slots=True)
class Taken:
    """Consecutive records of one partition, and Faust's events whose acknowledgement they await."""

    chunk: Chunk
    events: Sequence[Any]


class Rounds:
    """Faust's events between their arrival and the round that takes them.

    `most_records`: a round is full with the chunk that brings it there.  A partition that is held
    takes part in no round; what arrives of it keeps its place.
    """

    def __init__(self, most_records: int) -> None:
        self._most_records = most_records
        self._waiting: list[tuple[float, Any]] = []
        self.waited_s = 0.0
        """How long the first event of the last round had waited."""
        self._held: set[int] = set()
        self._changed = asyncio.Condition()

    async def put(self, event: Any) -> None:
        """Leave an event for a round; waits while too many do."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._waiting) < WAITING_CHUNKS)
            self._waiting.append((time.monotonic(), event))
            self._changed.notify_all()

    async def take(self) -> list[Any]:
        """Wait for an event, then return it and what else is there, in order of arrival."""
        async with self._changed:
            await self._changed.wait_for(lambda: any(map(self._is_free, self._waiting)))
            taken: list[tuple[float, Any]] = []
            records = 0
            for waiting in filter(self._is_free, self._waiting):
                taken.append(waiting)
                records += len(waiting[1].value.records)
                if records >= self._most_records:
                    break
            self._waiting = [waiting for waiting in self._waiting if waiting not in taken]
            self._changed.notify_all()
            self.waited_s = time.monotonic() - taken[0][0]
            return [event for _, event in taken]

    def hold(self, partition: int) -> None:
        """No round takes what follows of a partition until it is released.

        What failed must never be: applied past it, a profile would take its events for a replay
        when they are read again, and skip them.
        """
        self._held.add(partition)

    async def release(self, partition: int) -> None:
        """The partition takes part again."""
        self._held.discard(partition)
        async with self._changed:
            self._changed.notify_all()

    def _is_free(self, waiting: tuple[float, Any]) -> bool:
        return waiting[1].value.partition not in self._held


def by_partition(events: Iterable[Any]) -> list[Taken]:
    """One piece for each partition, lowest first: in that order their locks are taken."""
    found: dict[int, list[Any]] = {}
    for event in events:
        found.setdefault(event.value.partition, []).append(event)
    return [Taken(_joined([event.value for event in own]), own) for _, own in sorted(found.items())]


def _joined(chunks: Sequence[Chunk]) -> Chunk:
    if len(chunks) == 1:
        return chunks[0]
    records = [record for chunk in chunks for record in chunk.records]
    return Chunk(chunks[0].topic, chunks[0].partition, records, chunks[-1].end)
