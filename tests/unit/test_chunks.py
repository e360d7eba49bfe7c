"""A chunk holds its records as they were parsed, and is committed whole, after those before it."""

from __future__ import annotations

from collections import defaultdict
from types import SimpleNamespace

import pytest
from aiokafka.consumer.fetcher import READ_UNCOMMITTED, PartitionRecords
from aiokafka.producer.message_accumulator import BatchBuilder
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.structs import ConsumerRecord
from faust.types import TP

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
