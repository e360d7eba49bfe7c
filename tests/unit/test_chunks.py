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

from stream.chunks import ChunkConsumer, Parsed, _AsParsed

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
    """One partition of a broker, and aiokafka's place in it.  `offsets`: those that there are."""

    def __init__(self, offsets: Sequence[int]) -> None:
        self.offsets = list(offsets)
        self.position = 0
        self.sought: list[int] = []

    def fetch(self, size: int) -> list[Any]:
        found = [offset for offset in self.offsets if offset >= self.position][:size]
        if found:
            self.position = found[-1] + 1
        return [SimpleNamespace(offset=offset, timestamp=0) for offset in found]

    async def read_from(self, place: TP, offset: int) -> None:
        self.sought.append(offset)
        self.position = offset


class Drained(ChunkConsumer):
    """A consumer on such a log, which takes each fetch's fate from a list."""

    def __init__(self, log: Log, fates: Sequence[tuple[int, str]], committed: int | None) -> None:
        self.log_read, self.fates = log, list(fates)
        self.delivered: list[int] = []
        self._read_offset = {PLACE: committed}
        self._firsts = defaultdict(dict)
        self._dropped, self._read_again = {}, {}
        self._thread = log
        self.app = SimpleNamespace(consumer_generation_id=1)
        self._stopped = asyncio.Event()
        self.can_resume_flow = asyncio.Event()
        self.committed = committed
        self.flow = True

    @property
    def flow_active(self) -> bool:
        return self.flow

    @property
    def consumer_stopped_errors(self) -> tuple[type[BaseException], ...]:
        return ()

    async def _wait_next_records(self, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's
        if not self.fates:
            self._stopped.set()
            return {}, None
        size, fate = self.fates.pop(0)
        if fate == "rebalance":  # Faust seeks, and only then the old fetch comes back
            self.app.consumer_generation_id += 1
            self.log_read.position = self._next()
        self.flow = fate == "taken"
        return {PLACE: self.log_read.fetch(size)}, None

    def _next(self) -> int:
        return self.delivered[-1] + 1 if self.delivered else self.committed or 0

    async def callback(self, message: Any) -> None:
        self.delivered += message

    def _to_chunk(self, tp: TP, records: Sequence[Any]) -> Any:
        return [record.offset for record in records]

    async def wait_first(self, *coroutines: Any, timeout: Any = None) -> Any:  # noqa: ASYNC109
        await coroutines[0]
        coroutines[1].close()

    @property
    def suspend_flow(self) -> Any:
        return SimpleNamespace(wait=lambda: asyncio.sleep(0))

    @suspend_flow.setter
    def suspend_flow(self, value: Any) -> None:
        """Faust's own is not needed."""


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
    log = Log(sorted(there))
    log.position = committed or 0
    # In the end there is time for everything, holes looked at twice included.
    drained = Drained(log, [*fates, *[(50, "taken")] * 4], committed)
    fetcher: Any = SimpleNamespace(_stopped=asyncio.Event())

    asyncio.run(drained._drain_messages(fetcher))

    assert drained.delivered == [o for o in sorted(there) if o >= (committed or 0)]


async def test_a_hole_in_the_log_itself_is_looked_at_once() -> None:
    log = Log([0, 1, 2, 7, 8])
    drained = Drained(log, [(3, "taken"), (5, "taken"), (5, "taken"), (5, "taken")], 0)
    await drained._drain_messages(SimpleNamespace(_stopped=asyncio.Event()))
    assert drained.delivered == [0, 1, 2, 7, 8]
    assert log.sought == [3]
