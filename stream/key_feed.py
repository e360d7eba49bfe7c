"""Users' keys that stay current, for a process that reads encrypted recommendations as they come.

The `keys` topic is read whole, in no group, into a `KeyMap` of about 300 bytes for each user, and
then followed, since a recommendation to a new user may arrive before her key.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Self

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from profiles.key_store import KeyMap
from profiles.sealing import KeyService
from profiles.settings.kafka import BrokerSettings
from stream.following import in_background, open_reader
from stream.outbox import topic_partitions

POLL_MS = 200
READ_AGAIN_S = 1.0
KEY_WAIT_S = 5.0
"""How long a recommendation may wait for its user's key, which was sent before it."""


class KeyFeed:
    """Reads until it is left.  `keys` holds every key that has arrived."""

    def __init__(self, consumer: AIOKafkaConsumer, keys: KeyMap) -> None:
        self._consumer = consumer
        self._arrived = asyncio.Event()
        self.keys = keys

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, broker: BrokerSettings, topic: str, service: KeyService
    ) -> AsyncIterator[Self]:
        """Read the topic to its present end, then follow it.  Raises: BrokerError, TopicError."""
        async with open_reader(broker, "the users' keys") as consumer:
            feed = cls(consumer, KeyMap(service))
            numbers = (await topic_partitions(consumer._client, topic))[topic]
            places = [TopicPartition(topic, number) for number in numbers]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            while [at for at in places if await consumer.position(at) < ends[at]]:
                await feed._poll()
            async with in_background(feed._follow()):
                yield feed

    async def open(self, purpose: bytes, user: bytes, payload: bytes) -> bytes | None:
        """A payload, opened; None when its user's key does not come within `KEY_WAIT_S`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(KEY_WAIT_S):
                while (found := self.keys.sealer.open(purpose, user, payload)) is None:
                    await self._arrived.wait()
                return found
        return None

    async def _follow(self) -> None:
        while True:
            try:
                await self._poll()
            except KafkaError:
                await asyncio.sleep(READ_AGAIN_S)

    async def _poll(self) -> None:
        fetched = await self._consumer.getmany(timeout_ms=POLL_MS)
        for records in fetched.values():
            for record in records:
                self.keys.take(record.key, record.value)
        if fetched:
            self._arrived.set()
            self._arrived = asyncio.Event()
