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

from profiles.broker_access import security_options
from profiles.errors import BrokerError
from profiles.key_store import KeyMap
from profiles.sealing import KeyService
from profiles.settings.kafka import BrokerSettings
from stream.outbox import connect, topic_partitions

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
        consumer = AIOKafkaConsumer(
            bootstrap_servers=broker.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            **security_options(broker),
        )
        await connect(consumer, broker)
        feed = cls(consumer, KeyMap(service))
        try:
            numbers = (await topic_partitions(consumer._client, topic))[topic]
            places = [TopicPartition(topic, number) for number in numbers]
            consumer.assign(places)
            await consumer.seek_to_beginning(*places)
            ends = await consumer.end_offsets(places)
            while [at for at in places if await consumer.position(at) < ends[at]]:
                await feed._poll()
            following = asyncio.create_task(feed._follow())
            try:
                yield feed
            finally:
                following.cancel()
                with suppress(asyncio.CancelledError):
                    await following
        except KafkaError as error:
            raise BrokerError(f"the users' keys cannot be read: {error!r}") from error
        finally:
            await consumer.stop()

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
