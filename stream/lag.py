"""How far a worker is behind, in records and in seconds, what it owes, and what its stores take.

Records are counted to the end of the log as the last fetch told it.  Seconds are the age of the
oldest record under way.  A record that was not fetched yet (its partition is being restored, the
buffers are full) has no timestamp here: of it is known only since when something has been waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from pathlib import Path

from faust.types import TP

from profiles.topics import Topics
from stream.chunks import ChunkApp
from stream.worker import Worker

LAG_EVERY_S = 1.0
STORES_EVERY_S = 15.0


class LagClock:
    """Since when a partition has had something waiting, by its (topic, partition)."""

    def __init__(self) -> None:
        self._since_s: dict[tuple[str, int], float] = {}

    def lag_s(
        self, place: tuple[str, int], records: int, oldest_ms: int | None, now_s: float
    ) -> float:
        """Seconds that the oldest of so many waiting records has waited.

        `oldest_ms`: its Kafka timestamp, None where it was not fetched yet.

        >>> clock = LagClock()
        >>> clock.lag_s(("t", 0), 5, None, now_s=100.0), clock.lag_s(("t", 0), 5, None, now_s=107.0)
        (0.0, 7.0)
        >>> clock.lag_s(("t", 0), 5, 90_000, now_s=107.0), clock.lag_s(("t", 0), 0, None, 108.0)
        (17.0, 0.0)
        """
        if records <= 0:
            self._since_s.pop(place, None)
            return 0.0
        since_s = self._since_s.setdefault(place, now_s)
        return max(0.0, now_s - (since_s if oldest_ms is None else oldest_ms / 1000.0))

    def keep(self, places: Iterable[tuple[str, int]]) -> None:
        """Forget all others: they moved to another worker."""
        kept = set(places)
        self._since_s = {place: at for place, at in self._since_s.items() if place in kept}


async def watch_lag(app: ChunkApp, worker: Worker, topics: Topics) -> None:
    """What is between what is durable and the end, for every assigned partition."""
    metrics, clock = worker.metrics, LagClock()
    inputs = {topics.events, topics.requests, topics.users, topics.erasures}
    while True:
        await asyncio.sleep(LAG_EVERY_S)
        now_s = time.time()
        lags: dict[TP, tuple[int, float]] = {}
        for tp in app.consumer.assignment():
            end = app.consumer.highwater(tp)
            # Before the first chunk the position is the committed one, or the beginning.
            position = worker.delivery.positions.get((tp.topic, tp.partition))
            if position is None:
                position = app.committed(tp)
            if tp.topic in inputs and end is not None:
                records = max(0, end - position)
                oldest_ms = app.oldest_ms(tp, position)
                lags[tp] = records, clock.lag_s(tp, records, oldest_ms, now_s)
        clock.keep(lags)
        metrics.lag_records.clear()
        metrics.lag_seconds.clear()
        for tp, (records, seconds) in lags.items():
            metrics.lag_records.labels(tp.topic, str(tp.partition)).set(records)
            metrics.lag_seconds.labels(tp.topic, str(tp.partition)).set(seconds)
        metrics.recommendations_owed.set(
            sum(len(source.owed.users) for source in worker.partitions.sources())
        )


async def watch_stores(worker: Worker) -> None:
    """What the open partitions' stores take on disk."""
    gauge = worker.metrics.store_bytes
    while True:
        directories = {s.number: s.store.directory for s in worker.partitions.sources()}
        taken = await asyncio.to_thread(
            lambda found: {number: bytes_of(path) for number, path in found.items()}, directories
        )
        gauge.clear()
        for number, size in taken.items():
            gauge.labels(str(number)).set(size)
        await asyncio.sleep(STORES_EVERY_S)


def bytes_of(directory: Path) -> int:
    """Bytes of a directory's files; one that RocksDB removes meanwhile does not count."""
    total = 0
    for file in directory.iterdir() if directory.is_dir() else ():
        with contextlib.suppress(FileNotFoundError):
            total += file.stat().st_size
    return total
