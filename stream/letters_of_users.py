"""The dead letters of erased users, found in Kafka, and what deletes them.

A worker that carries out an erasure reads the dead-letter topics whole, all partitions: a record
under a wrong key lies where that key's user lives.  They are read once for all erasures of a chunk,
on the event loop, a few thousand records at a time.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass, field

from aiokafka.structs import TopicPartition

from profiles.settings.kafka import BrokerSettings
from profiles.topics import DEAD_LETTERED, Topics
from stream.following import open_reader
from stream.letters import Record, is_keyed_by_place, is_tombstone, users_in
from stream.outbox import topic_partitions
from stream.publisher import Message

READ_RECORDS = 2_000


@dataclass(slots=True)
class Found:
    """Letters about users: how many of each, and the tombstones that delete them, by topic and
    partition."""

    counts: Counter[bytes] = field(default_factory=Counter)
    tombstones: dict[tuple[str, int], list[Message]] = field(default_factory=dict)

    def take(self, topic: str, partition: int, record: Record, users: Collection[bytes]) -> None:
        """Look at one record of a dead-letter topic."""
        named = frozenset() if is_tombstone(record) else users_in(record, frozenset(users))
        if record.key is None or not named:
            return
        # A letter of before shares its key with others: only its own user's may go by it.
        if not is_keyed_by_place(record) and record.key not in named:
            return
        self.counts.update(named)
        stones = self.tombstones.setdefault((topic, partition), [])
        if Message(record.key, None) not in stones[-1:]:
            stones.append(Message(record.key, None))


async def find_letters(broker: BrokerSettings, topics: Topics, users: Collection[bytes]) -> Found:
    """Read all dead letters for these users.  Raises: BrokerError, TopicError."""
    found = Found()
    names = [topics.dlq(getattr(topics, entity)) for entity in DEAD_LETTERED]
    async with open_reader(
        broker, "a dead-letter topic", max_partition_fetch_bytes=4 * 2**20, fetch_max_wait_ms=50
    ) as consumer:
        found_in = await topic_partitions(consumer._client, *names)
        places = [TopicPartition(name, at) for name, numbers in found_in.items() for at in numbers]
        consumer.assign(places)
        begins = await consumer.beginning_offsets(places)
        ends = await consumer.end_offsets(places)
        left = {place for place in places if begins[place] < ends[place]}
        for place in left:
            consumer.seek(place, begins[place])
        while left:
            fetched = await consumer.getmany(*left, timeout_ms=200, max_records=READ_RECORDS)
            for place, records in fetched.items():
                for record in records:
                    if record.offset < ends[place]:
                        found.take(place.topic, place.partition, record, users)
            left = {place for place in left if await consumer.position(place) < ends[place]}
            await asyncio.sleep(0)
    return found
