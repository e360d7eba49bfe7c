"""What a worker observes: readiness, its event loop, whether broker and topics still are."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from aiokafka.errors import KafkaError

from profiles.errors import BrokerError, TopicError
from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics

log = get_logger("stream.watching")

LOOK_EVERY_S = 0.02
BROKER_EVERY_S = 1.0
BROKER_ANSWER_S = 3.0
TOPICS_EVERY_S = 10.0
TIMES_WRONG = 2
"""A broker that has just started may not know its topics yet: once wrong is not wrong."""


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


async def watch_broker(
    ask: Callable[[], Awaitable[None]],
    tell: Callable[[str | None], None],
    pause_s: float = BROKER_EVERY_S,
    answer_s: float = BROKER_ANSWER_S,
) -> None:
    """Tell again and again why the broker cannot be reached, None while it can.

    Kafka's clients try for ever and say nothing: without this a worker whose broker is away would
    call itself ready.
    """
    while True:
        try:
            await asyncio.wait_for(ask(), answer_s)
            tell(None)
        except (KafkaError, OSError, TimeoutError) as error:
            tell(f"the broker does not answer: {error!r}")
        await asyncio.sleep(pause_s)


async def watch_topics(check: Callable[[], None], pause_s: float = TOPICS_EVERY_S) -> None:
    """Look again and again whether the topics are what they were when the worker started.

    A consumer waits in silence for a topic that was deleted, and does not hear for minutes of
    partitions that were added, whose events nobody would read.
    Raises: TopicError when `check` raised it several times in a row.
    """
    wrong = 0
    while True:
        await asyncio.sleep(pause_s / 5.0 if wrong else pause_s)
        try:
            await asyncio.to_thread(check)
            wrong = 0
        except BrokerError as error:
            log.warning("topics not checked", error=str(error))
        except TopicError:
            wrong += 1
            if wrong >= TIMES_WRONG:
                raise
