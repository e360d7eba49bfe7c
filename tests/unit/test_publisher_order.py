"""Records of one partition stand in the log in the order in which they were handed over."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from profiles.settings.kafka import BrokerSettings
from profiles.topics import Topics
from stream.publisher import Message, Publisher, Sent

pytestmark = pytest.mark.unit


class Batch:
    """A batch of one record."""

    def __init__(self) -> None:
        self.values: list[bytes] = []

    def append(self, *, value: bytes, **_: object) -> object | None:
        self.values.append(value)
        return object()

    def record_count(self) -> int:
        return len(self.values)

    def size(self) -> int:
        return 1

    def close(self) -> None:
        return None


class Producer:
    """aiokafka's accumulator: a batch waits for the one before it; a newcomer may slip in."""

    def __init__(self) -> None:
        self.log: list[bytes] = []
        self._drained: asyncio.Future[None] | None = None

    def create_batch(self) -> Batch:
        return Batch()

    async def send_batch(
        self, batch: Batch, topic: str, partition: int
    ) -> asyncio.Future[SimpleNamespace]:
        while self._drained is not None and not self._drained.done():
            await asyncio.shield(self._drained)
            await asyncio.sleep(0)  # between being woken and having another look
        self.log += batch.values
        self._drained = asyncio.get_running_loop().create_future()
        acknowledged: asyncio.Future[SimpleNamespace] = asyncio.get_running_loop().create_future()
        acknowledged.set_result(SimpleNamespace(offset=len(self.log) - 1))
        return acknowledged

    def drain(self) -> None:
        assert self._drained is not None
        self._drained.set_result(None)


async def test_a_record_never_passes_one_that_was_sent_before_it() -> None:
    publisher = Publisher(BrokerSettings(bootstrap="127.0.0.1:1"), Topics.under("x"), "test")
    await publisher.stop()
    producer = Producer()
    publisher._producer = cast(Any, producer)

    async def send(number: int) -> None:
        sent = Sent()
        await publisher.send(sent, "profiles", 0, [Message(b"user", b"%d" % number)])
        await sent.acknowledged()

    waiting = [asyncio.create_task(send(number)) for number in range(3)]
    for number in range(3, 12):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        producer.drain()
        # Comes while those that wait are being woken.
        await asyncio.sleep(0)
        waiting.append(asyncio.create_task(send(number)))
    while not all(task.done() for task in waiting):
        await asyncio.sleep(0.001)
        if producer._drained is not None and not producer._drained.done():
            producer.drain()
    assert producer.log == [b"%d" % number for number in range(12)]


async def test_messages_with_and_without_headers_fit_the_clients_own_batches() -> None:
    """The stand-in above takes any headers; aiokafka's compiled builder takes lists alone."""
    publisher = Publisher(BrokerSettings(bootstrap="127.0.0.1:1"), Topics.under("x"), "test")
    real = publisher._producer
    batches: list[Any] = []

    async def send_batch(batch: Any, topic: str, partition: int) -> asyncio.Future[SimpleNamespace]:
        batches.append(batch)
        return asyncio.ensure_future(asyncio.sleep(0, SimpleNamespace(offset=0)))

    publisher._producer = cast(
        Any, SimpleNamespace(create_batch=real.create_batch, send_batch=send_batch)
    )
    sent = Sent()
    messages = [Message(b"u", b"v"), Message(b"u", None), Message(b"u", b"v", (("name", b"why"),))]
    await publisher.send(sent, "profiles", 0, messages)
    await sent.acknowledged()
    assert [batch.record_count() for batch in batches] == [3]
    assert sent.ends == {("profiles", 0): 3}
    await real.stop()
