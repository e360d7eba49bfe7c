"""A whole topic, read from its beginning to where it ends now."""

from __future__ import annotations

from collections.abc import AsyncIterator

from aiokafka import AIOKafkaConsumer
from aiokafka.structs import ConsumerRecord, TopicPartition

from benchmarks.deployment import Deployment


async def read_topic(
    made: Deployment, topic: str
) -> AsyncIterator[ConsumerRecord[bytes | None, bytes | None]]:
    """Every record of a topic keyed by user, partition after partition, each in its order."""
    consumer = AIOKafkaConsumer(bootstrap_servers=made.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        numbers = range(made.settings.topics.partitions)
        places = [TopicPartition(topic, number) for number in numbers]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        for place in places:
            while await consumer.position(place) < ends[place]:
                fetched = await consumer.getmany(place, timeout_ms=500)
                for record in fetched.get(place, []):
                    yield record
    finally:
        await consumer.stop()
