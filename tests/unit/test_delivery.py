"""Chunks are acknowledged in order, after everything they caused, and never past a failure."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka.errors import KafkaError
from prometheus_client import CollectorRegistry

from profiles.errors import BrokerError
from profiles.metrics import WorkerMetrics
from profiles.store import PartitionStore
from profiles.topics import Topics
from stream.chunks import Chunk
from stream.delivery import IN_FLIGHT, Delivery
from stream.publisher import Message, Publisher, Sent
from stream.source import Outcome, Source
from tests.unit.builders import make_record

pytestmark = pytest.mark.unit

TOPICS = Topics.under("test")


@dataclass
class Acknowledged:
    """Stands in for Faust's event."""

    name: int
    log: list[int]

    def ack(self) -> None:
        self.log.append(self.name)


class FakePublisher:
    """Queues messages as one batch each, which the test acknowledges."""

    def __init__(self) -> None:
        self.futures: list[asyncio.Future[SimpleNamespace]] = []
        self.topics: list[str] = []

    async def send(self, sent: Sent, topic: str, partition: int, messages: list[Message]) -> None:
        if not messages:
            return
        future: asyncio.Future[SimpleNamespace] = asyncio.get_running_loop().create_future()
        self.futures.append(future)
        self.topics.append(topic)
        sent.futures.append((topic, partition, len(messages), future))


@dataclass
class Desk:
    """A delivery over fakes, and what became of it."""

    source: Source
    metrics: WorkerMetrics
    publisher: FakePublisher = field(default_factory=FakePublisher)
    acked: list[int] = field(default_factory=list)
    failures: list[BaseException] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.delivery = Delivery(
            cast(Publisher, self.publisher), TOPICS, {}, self.metrics, self.failures.append
        )

    async def follow(self, name: int, partition: int = 0) -> asyncio.Future[SimpleNamespace]:
        """Follow a chunk that ends at offset `name`; its changelog waits for the future."""
        sent = Sent()
        await self.publisher.send(sent, TOPICS.profiles, partition, [Message(b"u", b"p")])
        records = [make_record(name, b"{}", "u", TOPICS.events, partition)]
        chunk = Chunk(TOPICS.events, partition, records, name + 1)
        await self.delivery.follow(self.source, chunk, sent, [Acknowledged(name, self.acked)], 0)
        return self.publisher.futures[-1]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    store = cast(PartitionStore, None)  # nothing here reads a profile
    source = Source(0, store, TOPICS.events, "id", changelog_end=7)
    return Desk(source, WorkerMetrics(CollectorRegistry()))


async def settle() -> None:
    """Let every task run as far as it can."""
    for _ in range(20):
        await asyncio.sleep(0)


def accepted(offset: int) -> SimpleNamespace:
    return SimpleNamespace(offset=offset)


async def test_acknowledgements_that_arrive_out_of_order_are_passed_on_in_order(
    desk: Desk,
) -> None:
    first, second, third = [await desk.follow(name) for name in (1, 2, 3)]
    third.set_result(accepted(9))
    second.set_result(accepted(8))
    await settle()
    assert desk.acked == []
    first.set_result(accepted(7))
    await desk.delivery.drained()
    assert desk.acked == [1, 2, 3]
    assert desk.delivery.in_flight == 0
    assert desk.source.changelog_end == 10
    assert not desk.failures


async def test_partitions_do_not_wait_for_each_other(desk: Desk) -> None:
    here, there = await desk.follow(1, partition=0), await desk.follow(2, partition=1)
    there.set_result(accepted(0))
    await settle()
    assert desk.acked == [2]
    here.set_result(accepted(0))
    await desk.delivery.drained()


async def test_after_a_failure_nothing_of_the_partition_is_acknowledged(desk: Desk) -> None:
    first, second, third, other = [
        await desk.follow(name, partition) for name, partition in ((1, 0), (2, 0), (3, 0), (4, 1))
    ]
    first.set_result(accepted(0))
    third.set_result(accepted(2))
    second.set_exception(KafkaError("gone"))
    await settle()
    assert desk.acked == [1]
    assert isinstance(desk.failures[0], BrokerError)
    late = await desk.follow(5)
    late.set_result(accepted(5))
    other.set_result(accepted(0))
    await desk.delivery.drained()
    assert desk.acked == [1, 4]
    assert all(isinstance(failure, BrokerError) for failure in desk.failures)


async def test_a_chunk_waits_for_room_when_too_many_are_in_flight(desk: Desk) -> None:
    futures = [await desk.follow(name) for name in range(IN_FLIGHT)]
    waiting = asyncio.create_task(desk.follow(99))
    await settle()
    assert not waiting.done()
    assert desk.delivery.in_flight == IN_FLIGHT
    for future in futures:
        future.set_result(accepted(0))
    (await waiting).set_result(accepted(0))
    await desk.delivery.drained()
    assert desk.acked == [*range(IN_FLIGHT), 99]


async def made(outcome: Outcome) -> Outcome:
    """A change that has nothing to wait for."""
    return outcome


async def test_changes_of_one_partition_reach_kafka_in_the_order_they_were_made(
    desk: Desk,
) -> None:
    may_end = asyncio.Event()

    async def slow() -> Outcome:
        await may_end.wait()
        return Outcome([Message(b"u", b"older")], [])

    older = asyncio.create_task(desk.delivery.change(desk.source, slow()))
    await settle()
    newer = made(Outcome([Message(b"u", b"newer")], [Message(b"u", b"shown")]))
    later = asyncio.create_task(desk.delivery.change(desk.source, newer))
    await settle()
    assert desk.publisher.topics == []
    may_end.set()
    await settle()
    assert desk.publisher.topics == [TOPICS.profiles, TOPICS.profiles, TOPICS.recommendations]
    for future in desk.publisher.futures:
        future.set_result(accepted(0))
    await asyncio.gather(older, later)


async def test_a_change_sends_the_changelog_before_the_recommendation_and_awaits_both(
    desk: Desk,
) -> None:
    outcome = Outcome([Message(b"u", b"profile")], [Message(b"u", b"recommendation")])
    flushing = asyncio.create_task(desk.delivery.change(desk.source, made(outcome)))
    await settle()
    assert desk.publisher.topics == [TOPICS.profiles, TOPICS.recommendations]
    desk.publisher.futures[0].set_result(accepted(7))
    await settle()
    assert not flushing.done()
    desk.publisher.futures[1].set_result(accepted(0))
    await flushing
    assert desk.source.changelog_end == 8
    await desk.delivery.change(desk.source, made(Outcome([], [])))
    assert len(desk.publisher.futures) == 2


@pytest.mark.parametrize(
    ("acknowledged", "end"),
    [
        ([(7, 9), (9, 10)], 10),
        ([(9, 10), (7, 9)], 10),  # out of order
        ([(7, 9), (3, 5)], 9),
        ([(8, 10), (10, 12)], 7),  # somebody else wrote record 7
        ([(7, 8), (9, 12)], 8),
    ],
)
async def test_the_end_of_the_changelog_moves_over_our_own_records_only(
    desk: Desk, acknowledged: list[tuple[int, int]], end: int
) -> None:
    for begin, after in acknowledged:
        messages = [Message(b"u", None)] * (after - begin)
        delivering = asyncio.create_task(
            desk.delivery.change(desk.source, made(Outcome(messages, [])))
        )
        await settle()
        desk.publisher.futures[-1].set_result(accepted(begin))
        await delivering
    assert desk.source.changelog_end == end


def test_what_was_restored_counts_as_known_whoever_wrote_it(desk: Desk) -> None:
    desk.source.note_changelog(8, 10)
    desk.source.note_restored(10)
    desk.source.note_changelog(10, 11)
    assert desk.source.changelog_end == 11
