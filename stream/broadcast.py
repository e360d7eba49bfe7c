"""Topics that every worker reads whole: items and releases.

An ordinary Faust agent shares partitions across its group, so only one worker would hear of a
release.  A `Broadcast` is a group-less consumer that reads a topic from its beginning and puts
its records, in chunks, on an in-memory Faust channel, from which an agent takes them.
"""

from __future__ import annotations

import asyncio
from typing import Any

import faust
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition
from mode import Service

from profiles.broker_access import security_options
from profiles.errors import BrokerError
from profiles.settings.kafka import BrokerSettings
from stream.chunks import Chunk

MAX_RECORDS = 2_000


class Broadcast(Service):
    """Reads one topic whole, for as long as the worker lives."""

    def __init__(self, app: faust.App, broker: BrokerSettings, topic: str) -> None:
        super().__init__()
        self.topic = topic
        self.channel: Any = app.channel()  # Faust types channels by codec, of which there is none
        self._broker = broker
        self._consumer: AIOKafkaConsumer | None = None
        self._handled: dict[TopicPartition, int] = {}
        self._progress = asyncio.Event()

    async def on_start(self) -> None:
        """Connect and begin at the beginning."""
        consumer = AIOKafkaConsumer(
            bootstrap_servers=self._broker.bootstrap,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            fetch_max_wait_ms=500,
            max_partition_fetch_bytes=8 * 2**20,
            **security_options(self._broker),
        )
        try:
            await consumer.start()
            partitions = sorted(consumer.partitions_for_topic(self.topic) or ())
            if not partitions:
                await consumer._client.force_metadata_update()
                partitions = sorted(await consumer._client._wait_on_metadata(self.topic) or ())
            tps = [TopicPartition(self.topic, partition) for partition in partitions]
            consumer.assign(tps)
            await consumer.seek_to_beginning(*tps)
            self._handled = dict.fromkeys(tps, 0)
        except KafkaError as error:
            raise BrokerError(f"topic {self.topic} cannot be read: {error!r}") from error
        self._consumer = consumer

    async def on_stop(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await self._consumer.stop()

    @Service.task
    async def _read(self) -> None:
        consumer = self._reader
        while not self.should_stop:
            fetched = await consumer.getmany(timeout_ms=500, max_records=MAX_RECORDS)
            for tp, records in fetched.items():
                end = consumer.highwater(tp) or 0
                await self.channel.put(Chunk(tp.topic, tp.partition, records, end))

    def handled(self, chunk: Chunk) -> None:
        """The agent says that it is done with a chunk."""
        tp = TopicPartition(chunk.topic, chunk.partition)
        self._handled[tp] = chunk.records[-1].offset + 1
        self._progress.set()

    async def caught_up(self) -> None:
        """Return when everything that stands in the topic now has been handled."""
        ends = await self._reader.end_offsets(list(self._handled))
        begins = await self._reader.beginning_offsets(list(self._handled))
        # An empty log may begin above zero: compaction and retention move its start.
        goals = {tp: end for tp, end in ends.items() if end > begins[tp]}
        while True:
            self._progress.clear()
            positions = {tp: await self._position(tp, goal) for tp, goal in goals.items()}
            if all(positions[tp] >= goal for tp, goal in goals.items()):
                return
            await asyncio.wait([asyncio.create_task(self._progress.wait())], timeout=0.2)

    async def _position(self, tp: TopicPartition, goal: int) -> int:
        """Handled offset; markers and compacted tails count once nothing real is left to read."""
        handled = self._handled[tp]
        if handled < goal and self.channel.queue.empty():
            read = await self._reader.position(tp)
            if read >= goal and handled == 0:
                return int(read)
        return handled

    @property
    def _reader(self) -> AIOKafkaConsumer:
        assert self._consumer is not None, "the service has been started"
        return self._consumer
