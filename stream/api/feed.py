"""Follows topics for the read model: one consumer in no group, so any number may run beside others.

Of a topic with much in it only the newest records are read at the start, as many as the read model
can keep; compacted topics are read whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Self

from aiokafka import AIOKafkaConsumer, TopicPartition

from profiles.logs import get_logger
from profiles.settings.kafka import BrokerSettings
from stream.api.read_model import Source
from stream.following import in_background, open_reader
from stream.outbox import topic_partitions

if TYPE_CHECKING:
    from stream.chunks import Record  # which would import Faust

log = get_logger("stream.api.feed")

POLL_MS = 200
MAX_RECORDS = 2_000
"""A slice of the loop: requests wait while it is taken in, some milliseconds."""

Take = Callable[[str, "Sequence[Record]"], None]


class Feed:
    """Reads until it is left.  `failure` is what ended it, if anything did."""

    def __init__(self, consumer: AIOKafkaConsumer, take: Take) -> None:
        self._consumer = consumer
        self._take = take
        self._goals: dict[TopicPartition, int] = {}
        self.failure: BaseException | None = None

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, broker: BrokerSettings, sources: Sequence[Source], take: Take
    ) -> AsyncIterator[Self]:
        """Connect and read in the background.  Raises: BrokerError, TopicError."""
        async with open_reader(
            broker, "the topics", max_partition_fetch_bytes=4 * 2**20
        ) as consumer:
            feed = cls(consumer, take)
            await feed._begin(sources)
            async with in_background(feed._read()):
                yield feed

    def why_not_live(self) -> str | None:
        """None while it reads."""
        return None if self.failure is None else f"reading has ended: {self.failure!r}"

    def why_not_ready(self) -> str | None:
        """None when everything that stood in the topics at the start has been taken in."""
        if self.failure is not None:
            return self.why_not_live()
        left = sorted({place.topic for place in self._goals})
        return f"reading {', '.join(left)}" if left else None

    async def _begin(self, sources: Sequence[Source]) -> None:
        names = [source.topic for source in sources]
        numbers = await topic_partitions(self._consumer._client, *names)
        places = [TopicPartition(name, number) for name in names for number in numbers[name]]
        self._consumer.assign(places)
        ends = await self._consumer.end_offsets(places)
        begins = await self._consumer.beginning_offsets(places)
        newest = {source.topic: source.newest for source in sources}
        for place in places:
            most = newest[place.topic]
            start = begins[place] if most is None else max(begins[place], ends[place] - most)
            self._consumer.seek(place, start)
        self._goals = {place: end for place, end in ends.items() if end > begins[place]}

    async def _read(self) -> None:
        try:
            while True:
                fetched = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
                for place, records in fetched.items():
                    self._take(place.topic, records)
                # The position, not the last record: compaction may have taken the tail.
                for place, goal in list(self._goals.items()):
                    if await self._consumer.position(place) >= goal:
                        del self._goals[place]
                await asyncio.sleep(0)
        except Exception as error:
            log.error("reading has ended", error=repr(error))
            self.failure = error
