"""A chunk holds its records as they were parsed, and is committed whole, after those before it."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord
from faust.types import TP
from hypothesis import given, settings
from hypothesis import strategies as st

from stream.chunks import ChunkApp, ChunkConsumer, Parsed, _AsParsed

pytestmark = pytest.mark.unit

PLACE = TP("events", 0)


def make_consumer(committed: int | None, chunks: list[tuple[int, int]]) -> ChunkConsumer:
    """A consumer that delivered chunks (first offset, last offset) and knows of no Kafka."""
    consumer = ChunkConsumer.__new__(ChunkConsumer)
    delivered = {last: (first, 1000 * first) for first, last in chunks}
    consumer._firsts = defaultdict(dict, {PLACE: delivered})
    consumer._acked, consumer._acked_index = defaultdict(list), defaultdict(set)
    consumer._committed_offset = {PLACE: committed}
    return consumer


def acknowledge(consumer: ChunkConsumer, *lasts: int) -> None:
    consumer._acked[PLACE] += lasts
    consumer._acked_index[PLACE] |= set(lasts)


def test_the_end_of_the_last_acknowledged_chunk_is_committed() -> None:
    consumer = make_consumer(10, [(10, 13), (14, 19), (20, 29)])
    acknowledge(consumer, 13, 19)
    assert consumer._new_offset(PLACE) == 20
    # And nothing is left of what was committed.
    assert consumer._new_offset(PLACE) is None
    assert consumer._firsts[PLACE] == {29: (20, 20_000)}
    assert not consumer._acked_index[PLACE]


@pytest.mark.parametrize("committed", [None, 0])
def test_a_group_that_has_committed_nothing_begins_where_its_first_chunk_does(
    committed: int | None,
) -> None:
    consumer = make_consumer(committed, [(7, 9), (10, 12)])
    acknowledge(consumer, 9)
    assert consumer._new_offset(PLACE) == 10


def test_a_chunk_acknowledged_before_an_earlier_one_waits_for_it() -> None:
    consumer = make_consumer(10, [(10, 13), (14, 19), (20, 29)])
    acknowledge(consumer, 29, 19)
    assert consumer._new_offset(PLACE) is None
    acknowledge(consumer, 13)
    assert consumer._new_offset(PLACE) == 30


def test_a_hole_between_chunks_is_not_committed_over() -> None:
    consumer = make_consumer(10, [(10, 13), (15, 19)])
    acknowledge(consumer, 13, 19)
    assert consumer._new_offset(PLACE) == 14


def test_chunks_cut_anew_after_a_rebalance_may_overlap() -> None:
    consumer = make_consumer(10, [(10, 19), (10, 15), (16, 25)])
    acknowledge(consumer, 15, 19, 25)
    assert consumer._new_offset(PLACE) == 26


def test_the_oldest_record_under_way_is_that_of_the_first_chunk_that_is_not_done() -> None:
    consumer = make_consumer(10, [(10, 13), (14, 19), (20, 29)])
    assert consumer.oldest_ms(PLACE, 10) == 10_000
    assert consumer.oldest_ms(PLACE, 14) == 14_000  # done, and not yet committed
    assert consumer.oldest_ms(PLACE, 30) is None
    assert consumer.oldest_ms(TP("events", 1), 0) is None


def test_fetched_records_are_not_made_anew() -> None:
    batch = BatchBuilder(10_000, 0)
    batch.append(timestamp=1000, key=b"ann", value=b"{}", headers=[("ce_id", b"e1")])
    batch.append(timestamp=2000, key=b"ben", value=None)
    content = MemoryRecords(bytes(batch._build()))
    parsed = PartitionRecords(PLACE, content, [], 0, None, None, True, READ_UNCOMMITTED)
    # An error stands in the same place and has no records.
    fetched = _AsParsed(
        {PLACE: SimpleNamespace(_partition_records=parsed), TP("events", 1): object()}
    )

    records: list[Parsed] = list(fetched[PLACE]._partition_records)
    assert not any(isinstance(record, ConsumerRecord) for record in records)
    assert [(one.offset, one.timestamp, one.key, one.value) for one in records] == [
        (0, 1000, b"ann", b"{}"),
        (1, 2000, b"ben", None),
    ]
    assert [list(one.headers) for one in records] == [[("ce_id", b"e1")], []]


# --- what was fetched for nobody ----------------------------------------------------------------


class Log:
    """One partition of a broker, and aiokafka's place in it; `fates` is what becomes of fetches.

    taken: delivered; dropped: the flow has stopped; rebalance: Faust seeks to what was committed,
    and only then the fetch comes back, for nobody.
    """

    def __init__(self, offsets: Sequence[int], fates: Sequence[tuple[int, str]]) -> None:
        self.offsets, self.fates = sorted(offsets), list(fates)
        self.position = 0
        self.sought: list[int] = []
        self.consumer: Any = None

    async def getmany(self, places: set[TP], timeout: float) -> Any:  # noqa: ASYNC109 - Faust's
        size, fate = self.fates.pop(0)
        consumer = self.consumer
        if fate == "rebalance":
            consumer.app.consumer_generation_id += 1
            committed = consumer.delivered[-1] + 1 if consumer.delivered else consumer.committed
            consumer._read_offset[PLACE] = committed
            self.position = committed or 0
        consumer.flow = fate == "taken"
        found = [offset for offset in self.offsets if offset >= self.position][:size]
        if found:
            self.position = found[-1] + 1
        return {PLACE: [SimpleNamespace(offset=offset, timestamp=0) for offset in found]}

    async def read_from(self, place: TP, offset: int) -> None:
        self.sought.append(offset)
        self.position = offset


def drain(log: Log, committed: int | None) -> list[int]:
    """Offsets that a consumer delivers until the log's fates are used up."""
    consumer: Any = ChunkConsumer.__new__(Drained)
    log.consumer, log.position = consumer, committed or 0
    consumer.committed, consumer.delivered, consumer.flow = committed, [], True
    consumer._read_offset, consumer._dropped = {PLACE: committed}, {}
    consumer._firsts, consumer._thread = defaultdict(dict), log
    consumer.app = SimpleNamespace(
        consumer_generation_id=1, is_open=lambda place: True, fetch_again=ChunkApp.fetch_again
    )
    consumer._stopped = SimpleNamespace(is_set=lambda: not log.fates)
    consumer.transport = SimpleNamespace(app=SimpleNamespace(should_stop=False))
    fetcher = SimpleNamespace(_stopped=SimpleNamespace(is_set=lambda: False))
    asyncio.run(consumer._drain_messages(fetcher))
    delivered: list[int] = consumer.delivered
    return delivered


class Drained(ChunkConsumer):
    """A consumer without Faust around it: it notes what it would deliver."""

    flow_active = property(lambda self: self.flow)  # Faust has a field

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's
        return await self._getmany({PLACE}, timeout), {PLACE}

    async def _deliver(self, tp: TP, records: Sequence[Parsed]) -> None:
        following = self._read_offset[tp]
        kept = [record.offset for record in records if record.offset >= (following or 0)]
        self.delivered: list[int] = [*self.delivered, *kept]
        self._read_offset[tp] = self.delivered[-1] + 1 if self.delivered else following


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(1, 5), st.sampled_from(["taken", "dropped", "rebalance"])),
        max_size=20,
    ),
    st.sets(st.integers(0, 39), min_size=20),
    st.sampled_from([None, 0, 7]),
)
def test_whatever_was_fetched_for_nobody_is_delivered_all_the_same(
    fates: list[tuple[int, str]], there: set[int], committed: int | None
) -> None:
    log = Log(list(there), [*fates, (50, "taken")])
    assert drain(log, committed) == [o for o in sorted(there) if o >= (committed or 0)]


def test_without_a_rebalance_nothing_is_read_again() -> None:
    log = Log([0, 1, 2, 7, 8], [(3, "taken"), (1, "taken"), (5, "taken")])
    assert drain(log, 0) == [0, 1, 2, 7, 8]
    assert log.sought == []
