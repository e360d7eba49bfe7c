"""What a worker observes of itself: readiness, lag, and how late its event loop runs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from faust.types import TP

from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.topics import Topics
from stream.agents import Worker
from stream.chunks import ChunkApp

log = get_logger("stream.watching")

LOOK_EVERY_S = 0.02
LAG_EVERY_S = 1.0


async def watch_lag(app: ChunkApp, worker: Worker, topics: Topics) -> None:
    """Records between what is durable and the end, for every assigned partition."""
    gauge = worker.metrics.lag_records
    inputs = {topics.events, topics.requests, topics.users, topics.erasures}
    while True:
        await asyncio.sleep(LAG_EVERY_S)
        lags: dict[TP, int] = {}
        for tp in app.consumer.assignment():
            end = app.consumer.highwater(tp)
            # Before the first chunk the position is the committed one, or the beginning.
            position = worker.delivery.positions.get((tp.topic, tp.partition))
            if position is None:
                position = app.committed(tp)
            if tp.topic in inputs and end is not None:
                lags[tp] = max(0, end - position)
        gauge.clear()
        for tp, lag in lags.items():
            gauge.labels(tp.topic, str(tp.partition)).set(lag)


async def watch_ready(why_not: Callable[[], str | None], metrics: WorkerMetrics, port: int) -> None:
    """Keep the metric true, and log every change of readiness once."""
    told: str | None = ""
    while True:
        reason = why_not()
        metrics.ready.set(reason is None)
        if reason != told:
            told = reason
            log.info("ready" if reason is None else "not ready", reason=reason, http=port)
        asleep = time.perf_counter()
        await asyncio.sleep(LOOK_EVERY_S)
        metrics.loop_lag.observe(max(0.0, time.perf_counter() - asleep - LOOK_EVERY_S))
