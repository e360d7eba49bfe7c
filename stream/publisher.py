"""Everything a worker writes to Kafka, in batches, with acknowledgements that can be awaited.

The partition of an output is that of its cause: topics keyed by user are cut alike, so the key
need not be hashed again.  The producer is idempotent and keeps the order of each partition;
`send` waits for nothing: the next chunk is applied while the batches of this one are on their way.
`Sent.acknowledged` returns when the broker has them.  What is on its way is bounded by `Delivery`.

What surprised us: aiokafka queues one batch per partition, so a chunk of nine waited for eight
round trips before the next could begin.  And of several coroutines that wait to queue a batch,
it lets a newcomer pass: a sweep's or a flush's record of a profile could so end up behind a newer
one in the changelog, which a restore would believe.  Hence a task per batch, and turns in order.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from profiles.broker_access import security_options
from profiles.errors import BrokerError
from profiles.settings.kafka import BrokerSettings
from profiles.topics import Topics
from profiles.tracing import Span
from stream.codecs import DeadLetter
from stream.letters import Headers, to_record

BATCH_BYTES = 900_000
"""A batch is closed at this size: the topics' max.message.bytes of 1 MiB bounds whole batches."""

MAX_RECORD_BYTES = 2_000_000
"""A dead letter carries an original of up to 1 MiB and its headers; its topic allows 2 MiB."""


class Message(msgspec.Struct, frozen=True, gc=False):
    """One record to produce.  A struct, as is whatever every event makes one of."""

    key: bytes | None
    value: bytes | None
    headers: Headers = ()


@dataclass(slots=True)
class Sent:
    """Batches on their way.  `ends` maps (topic, partition) to the offset after the last record;
    `spans` end when the broker has everything."""

    futures: list[tuple[str, int, int, asyncio.Future[Any]]] = field(default_factory=list)
    ends: dict[tuple[str, int], int] = field(default_factory=dict)
    spans: tuple[Span, ...] = ()

    async def acknowledged(self) -> None:
        """Wait until the broker has everything.  Raises: BrokerError."""
        try:
            await self._acknowledged()
        except BaseException as error:
            for span in self.spans:
                span.end(error)
            raise
        for span in self.spans:
            span.end()

    async def _acknowledged(self) -> None:
        for topic, partition, count, future in self.futures:
            try:
                metadata = await future
            except KafkaError as error:
                raise BrokerError(
                    f"{count} records for {topic}/{partition} were not accepted by Kafka: "
                    f"{error!r}; nothing was committed, they will be produced again"
                ) from error
            self.ends[topic, partition] = metadata.offset + count


class Publisher:
    """An idempotent producer with explicit partitions."""

    def __init__(self, broker: BrokerSettings, topics: Topics, client_id: str) -> None:
        self._topics = topics
        self._turns: defaultdict[tuple[str, int], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._under_way: set[asyncio.Task[Any]] = set()
        self._producer = AIOKafkaProducer(
            bootstrap_servers=broker.bootstrap,
            client_id=client_id,
            enable_idempotence=True,
            acks="all",
            max_batch_size=MAX_RECORD_BYTES,
            request_timeout_ms=60_000,
            linger_ms=0,
            **security_options(broker),
        )

    async def start(self) -> None:
        """Connect.  Raises: BrokerError."""
        try:
            await self._producer.start()
        except KafkaError as error:
            raise BrokerError(f"the producer cannot reach Kafka: {error}") from error

    async def reach(self) -> None:
        """Return when the broker has answered.  Raises: KafkaError, OSError."""
        await self._producer.client.fetch_all_metadata()

    async def stop(self) -> None:
        """Deliver what is queued, then disconnect."""
        if self._under_way:
            await asyncio.wait(self._under_way)
        await self._producer.stop()

    async def send(
        self, sent: Sent, topic: str, partition: int, messages: Iterable[Message]
    ) -> None:
        """Queue messages in order and note their batches in `sent`."""
        new_batch = self._producer.create_batch
        batch = new_batch()
        for message in messages:
            while (
                batch.append(
                    timestamp=None,
                    key=message.key,
                    value=message.value,
                    headers=list(message.headers),
                )
                is None
            ):
                if batch.record_count() == 0:
                    raise BrokerError(
                        f"a record of {len(message.value or b'')} bytes for {topic} is larger "
                        f"than a batch may be ({MAX_RECORD_BYTES})"
                    )
                self._queue(sent, batch, topic, partition)
                batch = new_batch()
            if batch.size() >= BATCH_BYTES:
                self._queue(sent, batch, topic, partition)
                batch = new_batch()
        if batch.record_count():
            self._queue(sent, batch, topic, partition)

    async def send_dead(
        self, sent: Sent, topic: str, partition: int, dead: list[DeadLetter]
    ) -> None:
        """Send records to their dead-letter topic (`stream.letters`)."""
        messages = [Message(*to_record(letter, topic, partition)) for letter in dead]
        await self.send(sent, self._topics.dlq(topic), partition, messages)

    def _queue(self, sent: Sent, batch: Any, topic: str, partition: int) -> None:
        batch.close()
        passed_on = asyncio.create_task(self._pass_on(batch, topic, partition))
        self._under_way.add(passed_on)
        passed_on.add_done_callback(self._under_way.discard)
        # Tasks start in the order in which they were made, and asyncio's locks are fair.
        sent.futures.append((topic, partition, batch.record_count(), passed_on))

    async def _pass_on(self, batch: Any, topic: str, partition: int) -> Any:
        """Returns: the broker's acknowledgement."""
        async with self._turns[topic, partition]:
            acknowledged = await self._producer.send_batch(batch, topic, partition=partition)
        return await acknowledged
