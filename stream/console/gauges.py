"""Figures of the whole deployment, taken from Kafka alone, once a second.

Rates and lag are differences of offsets, so they cost the same at any load: how far the events
topic has grown, how far the workers' group has committed, how far the recommendations topic has
grown.  Latency is looked up: for the newest recommendation of each partition, the event that caused
it is fetched, and the two records' timestamps are compared.  Events are stamped by the broker and
recommendations by the worker, so on several machines their clocks' difference is in it.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from profiles.broker_access import security_options
from profiles.config import Settings
from profiles.errors import BrokerError
from profiles.topics import Topics
from stream.console.signs import Cause
from stream.outbox import connect, topic_partitions

RATE_OVER_S = 5.0
SAMPLES = 120
"""Latencies that percentiles are taken over: half a minute of four partitions."""
LOOKED_UP = 8
"""Latencies looked up in one look, at most."""
LOOK_UP_S = 0.5


class Figures(msgspec.Struct, frozen=True):
    """One moment.  Rates are events per second; latencies are None until one was looked up."""

    at: float
    produced_per_s: float
    applied_per_s: float
    recommended_per_s: float
    lag: int
    events: int
    p50_ms: float | None
    p99_ms: float | None


class Rate:
    """Growth per second over the last few seconds.

    >>> rate = Rate()
    >>> rate.at(0.0, 10), rate.at(2.0, 110)
    (0.0, 50.0)
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, now_s: float, count: int) -> float:
        """Take a count in; returns the rate, never negative."""
        self._seen.append((now_s, count))
        while now_s - self._seen[0][0] > RATE_OVER_S:
            self._seen.popleft()
        began_s, first = self._seen[0]
        return max(0.0, (count - first) / (now_s - began_s)) if now_s > began_s else 0.0


class Gauges:
    """Asks Kafka.  One look at a time."""

    def __init__(self, consumer: AIOKafkaConsumer, admin: AIOKafkaAdminClient, group: str) -> None:
        self._consumer = consumer
        self._admin = admin
        self._group = group
        self._events: list[TopicPartition] = []
        self._outputs: list[TopicPartition] = []
        self._latencies_ms: deque[float] = deque(maxlen=SAMPLES)
        self._rates = (Rate(), Rate(), Rate())

    @classmethod
    @asynccontextmanager
    async def opened(cls, settings: Settings) -> AsyncIterator[Self]:
        """Connect.  Raises: BrokerError, TopicError."""
        broker, topics = settings.broker, Topics.under(settings.topics.prefix)
        consumer = AIOKafkaConsumer(
            bootstrap_servers=broker.bootstrap,
            enable_auto_commit=False,
            # One batch is fetched for the one event that is wanted.
            max_partition_fetch_bytes=4096,
            fetch_max_wait_ms=50,
            **security_options(broker),
        )
        await connect(consumer, broker)
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap, **security_options(broker))
        try:
            await admin.start()
            gauges = cls(consumer, admin, settings.serving.group)
            names = (topics.events, topics.recommendations)
            numbers = await topic_partitions(consumer._client, *names)
            gauges._events, gauges._outputs = (
                [TopicPartition(name, number) for number in numbers[name]] for name in names
            )
            consumer.assign(gauges._events)
            consumer.pause(*gauges._events)
            yield gauges
        except KafkaError as error:
            raise BrokerError(f"the deployment cannot be watched: {error!r}") from error
        finally:
            await admin.close()
            await consumer.stop()

    async def look(self, causes: Sequence[Cause]) -> Figures | None:
        """One moment, or None while Kafka does not answer."""
        try:
            ends = await self._consumer.end_offsets([*self._events, *self._outputs])
            committed = await self._admin.list_consumer_group_offsets(
                self._group, partitions=self._events
            )
            for cause in causes[:LOOKED_UP]:
                await self._look_up(cause)
        except (KafkaError, OSError):
            return None
        produced = sum(ends[place] for place in self._events)
        applied = sum(max(0, found.offset) for found in committed.values())
        counts = (produced, applied, sum(ends[place] for place in self._outputs))
        now_s = time.monotonic()
        rates = [rate.at(now_s, count) for rate, count in zip(self._rates, counts, strict=True)]
        produced_per_s, applied_per_s, recommended_per_s = (round(rate, 1) for rate in rates)
        return Figures(
            time.time(),
            produced_per_s,
            applied_per_s,
            recommended_per_s,
            max(0, produced - applied),
            produced,
            percentile(self._latencies_ms, 0.5),
            percentile(self._latencies_ms, 0.99),
        )

    async def _look_up(self, cause: Cause) -> None:
        """Fetch the event, and note how long its recommendation took."""
        place = self._events[cause.partition]
        self._consumer.seek(place, cause.offset)
        self._consumer.resume(place)
        try:
            record: Any = await asyncio.wait_for(self._consumer.getone(place), LOOK_UP_S)
        except TimeoutError:
            return  # deleted by age, or a slow broker
        finally:
            self._consumer.pause(place)
        if record.offset == cause.offset:
            self._latencies_ms.append(max(0.0, float(cause.produced_ms - record.timestamp)))


def percentile(values: Sequence[float], share: float) -> float | None:
    """The value below which a share of the values lie, None of none.

    >>> percentile([3.0, 1.0, 2.0], 0.5), percentile([], 0.5)
    (2.0, None)
    """
    if not values:
        return None
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(share * len(ranked)))]
