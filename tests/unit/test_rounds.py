"""What waits is taken together, partition by partition, and nothing waits for company."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from stream.chunks import Chunk
from stream.rounds import WAITING_CHUNKS, Rounds, by_partition
from tests.unit.builders import make_record

pytestmark = pytest.mark.unit


def arrived(partition: int, first: int, count: int = 1) -> SimpleNamespace:
    """A Faust event that carries `count` records from offset `first` on."""
    records = [make_record(first + n, b"{}", "u", "events", partition) for n in range(count)]
    return SimpleNamespace(value=Chunk("events", partition, records, first + count))


async def test_a_lone_chunk_is_a_round_of_its_own() -> None:
    rounds, only = Rounds(100), arrived(0, 5)
    await rounds.put(only)
    assert await rounds.take() == [only]


async def test_what_arrived_meanwhile_is_one_round_in_order_of_arrival() -> None:
    rounds = Rounds(100)
    events = [arrived(at % 3, at) for at in range(7)]
    for event in events:
        await rounds.put(event)
    assert await rounds.take() == events


async def test_a_round_is_full_with_the_chunk_that_brings_it_there() -> None:
    rounds = Rounds(most_records=10)
    events = [arrived(0, 0, 6), arrived(1, 0, 6), arrived(2, 0, 6)]
    for event in events:
        await rounds.put(event)
    assert await rounds.take() == events[:2]
    assert await rounds.take() == events[2:]


async def test_a_round_says_how_long_its_first_event_had_waited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now_s = 10.0
    monkeypatch.setattr("stream.rounds.time", SimpleNamespace(monotonic=lambda: now_s))
    rounds = Rounds(most_records=1)
    await rounds.put(arrived(0, 0))
    now_s = 12.0
    await rounds.put(arrived(1, 0))
    now_s = 15.0
    await rounds.take()
    assert rounds.waited_s == 5.0
    await rounds.take()
    assert rounds.waited_s == 3.0


async def test_too_many_waiting_chunks_hold_the_stream_back() -> None:
    rounds = Rounds(100)
    for at in range(WAITING_CHUNKS):
        await rounds.put(arrived(0, at))
    late = asyncio.create_task(rounds.put(arrived(0, WAITING_CHUNKS)))
    await asyncio.sleep(0)
    assert not late.done()
    await rounds.take()
    await late


def test_chunks_of_one_partition_become_one_and_keep_all_their_acknowledgements() -> None:
    events = [arrived(1, 0, 2), arrived(0, 7), arrived(1, 2, 3)]
    first, second = by_partition(events)
    assert (first.chunk.partition, first.events) == (0, [events[1]])
    assert second.events == [events[0], events[2]]
    assert [record.offset for record in second.chunk.records] == [0, 1, 2, 3, 4]
    assert second.chunk.end == 5


async def test_a_held_partition_sits_out_and_keeps_its_order() -> None:
    rounds = Rounds(100)
    slow, other = [arrived(0, 0), arrived(0, 1)], arrived(1, 0)
    rounds.hold(0)
    for event in (slow[0], other, slow[1]):
        await rounds.put(event)
    assert await rounds.take() == [other]
    taking = asyncio.create_task(rounds.take())
    await asyncio.sleep(0)
    assert not taking.done()
    await rounds.release(0)
    assert await taking == slow
