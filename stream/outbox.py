"""Messages under way to Kafka, awaited in the order they were sent, and what became of them.

For jobs that write much and read nothing (`stream.replay`); a worker's outputs go through
`stream.publisher`.  Records are keyed, and the producer's default partitioner (murmur2) agrees
with the Java clients.

What surprised us: aiokafka's idempotent producer never gives a batch up, so with the broker gone
its futures and its `stop` would wait forever.  The delivery timeout is therefore kept here.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from profiles.broker_access import security_options
from profiles.errors import BrokerError, TopicError
from profiles.settings.kafka import BrokerSettings
from profiles.topics import MESSAGE_BYTES
from profiles.wire import check_key

WINDOW = 10_000
"""Messages in flight before the older half is awaited: bounds memory, costs no speed."""

DELIVERY_TIMEOUT_S = 30.0
"""How long a batch is tried before it counts as not delivered."""

Headers = list[tuple[str, bytes]]
Sending = asyncio.Future[Any]  # Any: aiokafka's RecordMetadata is untyped


@asynccontextmanager
async def open_producer(broker: BrokerSettings) -> AsyncIterator[Any]:
    """A started idempotent producer.  Left by an error, it does not wait for what is under way.

    Raises: BrokerError if Kafka does not answer.
    """
    producer = AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap,
        acks="all",
        enable_idempotence=True,  # keeps each user's order when a batch is sent again
        linger_ms=5,
        max_batch_size=256 * 1024,
        max_request_size=MESSAGE_BYTES,
        request_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
        **security_options(broker),
    )
    await connect(producer, broker)
    try:
        yield producer
    except BaseException as error:
        # `stop` flushes: it would wait for what is not going to be delivered.  The sender ends
        # first, because it trips over batches that fail under its hands.
        await producer._sender.close()
        producer._message_accumulator.fail_all(KafkaError(f"given up: {error!r}"))
        raise
    finally:
        await producer.stop()


async def connect(client: Any, broker: BrokerSettings) -> None:  # Any: aiokafka is untyped
    """Start a producer or consumer of aiokafka's.  Raises: BrokerError if Kafka does not answer."""
    try:
        await asyncio.wait_for(client.start(), broker.connect_timeout_s)
    except (KafkaError, OSError, TimeoutError) as error:
        await client.stop()
        raise BrokerError(
            f"no Kafka at {broker.bootstrap} within {broker.connect_timeout_s:.0f} s "
            f"({_said(error)}); start one with `driftline broker`, or set "
            "DRIFTLINE_BROKER__BOOTSTRAP"
        ) from error


def _said(error: Exception) -> str:
    """What an error says, its name once.

    >>> _said(TimeoutError()), _said(OSError("no route"))
    ('TimeoutError', 'OSError: no route')
    """
    name = type(error).__name__
    return f"{name}: {error}".replace(f"{name}: {name}", name).removesuffix(": ")


async def topic_partitions(client: Any, *names: str) -> dict[str, list[int]]:
    """The partition numbers of topics.  Raises: TopicError naming those that do not exist.

    `client` is aiokafka's own, below a producer or consumer; hence Any.
    """
    # `partitions_for` would wait for a missing topic until the delivery timeout.
    cluster = await client.fetch_all_metadata()
    found = {name: sorted(cluster.partitions_for_topic(name) or ()) for name in names}
    if missing := [name for name, numbers in found.items() if not numbers]:
        raise TopicError(f"no topic {', '.join(missing)}: run `driftline topics create`")
    return found


class Outbox:
    """A producer that counts what was acknowledged.

    `acked` is by topic; `first_offsets` and `last_offsets` by topic and partition, inclusive.
    """

    def __init__(self, producer: Any) -> None:  # Any: aiokafka is untyped
        self._producer = producer
        self._waiting: deque[tuple[float, Sending]] = deque()  # with the time of the send
        self.acked: Counter[str] = Counter()
        self.first_offsets: dict[tuple[str, int], int] = {}
        self.last_offsets: dict[tuple[str, int], int] = {}

    @classmethod
    @asynccontextmanager
    async def connected(cls, broker: BrokerSettings) -> AsyncIterator[Self]:
        """An outbox on a started producer, which is stopped at the end.  Raises: BrokerError."""
        async with open_producer(broker) as producer:
            yield cls(producer)

    async def check_topics(self, *names: str) -> None:
        """Raises: TopicError naming the topics that do not exist."""
        await topic_partitions(self._producer.client, *names)

    async def send(
        self, topic: str, key: str, value: bytes, headers: Headers | None = None
    ) -> None:
        """Send one message; waits only when the producer's buffer or the window is full.

        Raises: BrokerError when this or an earlier message was not delivered.
        """
        await self._send(topic, value, key=check_key(key), headers=headers)

    async def send_raw(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers,
    ) -> None:
        """Send a record as it once stood in a partition.  Waits and raises as `send` does."""
        await self._send(topic, value, key=key, partition=partition, headers=headers)

    # Any: aiokafka's own arguments.
    async def _send(self, topic: str, value: bytes | None, **record: Any) -> None:
        try:
            sending = await self._producer.send(topic, value, **record)
        except (KafkaError, OSError) as error:
            raise self._undelivered(1 + self._give_up(), error) from error
        now_s = time.monotonic()
        self._waiting.append((now_s, sending))
        # What is done is looked at now: at a slow pace a failure must not wait for a full window.
        while self._waiting and self._waiting[0][1].done():
            await self._settle_oldest()
        if self._waiting and now_s - self._waiting[0][0] > DELIVERY_TIMEOUT_S:
            await self._settle_oldest()
        if len(self._waiting) >= WINDOW:
            while len(self._waiting) > WINDOW // 2:
                await self._settle_oldest()

    async def drain(self) -> None:
        """Wait until everything is acknowledged.  Raises: BrokerError if something never was."""
        while self._waiting:
            await self._settle_oldest()

    async def _settle_oldest(self) -> None:
        sent_s, sending = self._waiting.popleft()
        try:
            if not sending.done():
                left_s = sent_s + DELIVERY_TIMEOUT_S - time.monotonic()
                await asyncio.wait_for(asyncio.shield(sending), max(left_s, 0.0))
            self._acknowledge(sending.result())
        except (KafkaError, OSError, TimeoutError) as error:
            sending.add_done_callback(look_at)
            raise self._undelivered(1 + self._give_up(), error) from error

    def _give_up(self) -> int:
        """Count what came in by now; returns how many messages did not."""
        failed = 0
        for _, sending in self._waiting:
            sending.add_done_callback(look_at)
            if sending.done() and sending.exception() is None:
                self._acknowledge(sending.result())
            else:
                failed += 1
        self._waiting.clear()
        return failed

    def _acknowledge(self, done: Any) -> None:  # Any: aiokafka's RecordMetadata is untyped
        self.acked[done.topic] += 1
        place = (done.topic, done.partition)
        self.first_offsets.setdefault(place, done.offset)
        self.last_offsets[place] = done.offset

    def _undelivered(self, failed: int, cause: BaseException) -> BrokerError:
        counts = ", ".join(f"{count} on {topic}" for topic, count in self.acked.items())
        return BrokerError(
            f"Kafka did not acknowledge {failed} messages in time ({cause!r}); "
            f"acknowledged are {counts or 'none'}. Start again when the broker is back: event ids "
            "make repeated events harmless"
        )


def look_at(sending: Sending) -> None:
    """Take notice of a late failure, of which asyncio would complain otherwise."""
    if not sending.cancelled():
        sending.exception()
