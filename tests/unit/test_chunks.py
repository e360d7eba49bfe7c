"""A chunk is committed as a whole, and only after all chunks before it."""

from __future__ import annotations

from collections import defaultdict

import pytest
from faust.types import TP

from stream.chunks import ChunkConsumer

pytestmark = pytest.mark.unit

PLACE = TP("events", 0)


def make_consumer(committed: int | None, chunks: list[tuple[int, int]]) -> ChunkConsumer:
    """A consumer that delivered chunks (first offset, last offset) and knows of no Kafka."""
    consumer = ChunkConsumer.__new__(ChunkConsumer)
    consumer._firsts = defaultdict(dict, {PLACE: {last: first for first, last in chunks}})
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
    assert consumer._firsts[PLACE] == {29: 20}
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
