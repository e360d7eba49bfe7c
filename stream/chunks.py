"""Faust, moved in chunks: an agent receives whole slices of a partition instead of single events.

Faust spends about 54 µs per event in asyncio machinery before any work is done (two tasks and
eleven callbacks each).  Its group membership, rebalancing, flow control and commits are what we
want; only the delivery is replaced.  `ChunkConsumer` hands the conductor one message per
(partition, slice), whose value is a `Chunk` and whose offset is the slice's last.  It notes where
each slice begins, so that Faust may commit behind it once that one offset is acknowledged, and
every chunk before.  So a chunk is acknowledged as a whole, after everything in it is durable, and
nothing of it is committed before.

What surprised us: Faust has a way to skip offsets (gaps), but closes one by listing every offset
in it, sorting them and counting through them in Python at each commit.  And a fetch can outlast a
rebalance: what it brings between Faust's seek to the committed offset and the flow's beginning is
for nobody, and aiokafka reads on behind it.  So what was dropped is noted, and read again first.

Partitions are assigned by range, so that one worker owns the same partition numbers of events,
users, requests and erasures: they are keyed by user and cut alike.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, cast

import aiokafka
import faust
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError
from aiokafka.structs import ConsumerRecord
from faust.transport.drivers import aiokafka as driver
from faust.types import TP, ConsumerMessage

from profiles.logs import get_logger

log = get_logger("stream.fetching")  # Faust logs as `stream.chunks`, and is quiet

# Any: Faust's and aiokafka's own signatures below are untyped or typed as Any.


Record: TypeAlias = ConsumerRecord[bytes | None, bytes | None]
"""aiokafka's own record, as those get it who read a topic outside the group."""


class Parsed(Protocol):
    """A record as it was parsed; what its topic and partition are, its chunk knows."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def timestamp_type(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


FETCH_WAIT_MS = 20
"""How long the broker may hold a fetch that finds nothing.  aiokafka has one fetch per broker under
way: a partition that fills up meanwhile waits for it.  Faust's 1500 ms made that the worst latency.
"""

LOOK_AGAIN_S = 0.05
"""How long a fetch may find nothing before it is made anew.  It names the partitions it is for: one
that was full when it began, and has room again, waits for the next.
"""

CLOSED_POLL_S = 0.05
"""How often a consumer whose partitions are all closed looks again."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Consecutive records of one partition, as they were fetched.  `end` is the log's end then."""

    topic: str
    partition: int
    records: Sequence[Parsed]
    end: int


class ChunkSchema(faust.Schema[Any, Any]):
    """Passes a chunk through: each agent decodes its own records, so that it can dead-letter."""

    def loads_key(self, app: Any, message: Any, **options: Any) -> Any:
        return message.key

    def loads_value(self, app: Any, message: Any, **options: Any) -> Any:
        return message.value


class _AsParsed(OrderedDict[TP, Any]):
    """What aiokafka has fetched, by partition; its records are handed on as they were parsed.

    aiokafka would make another object of each, with topic and partition in it, which takes twice
    as long as parsing.
    """

    def __setitem__(self, place: TP, fetched: Any) -> None:
        records = getattr(fetched, "_partition_records", None)
        if records is not None:  # an error has none
            records._consumer_record = _as_parsed
        super().__setitem__(place, fetched)


def _as_parsed(place: TP, record: Parsed) -> Parsed:
    return record


class ChunkThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread, with range assignment."""

    def _create_worker_consumer(self, transport: Any) -> aiokafka.AIOKafkaConsumer:
        consumer = super()._create_worker_consumer(transport)
        self._assignor = RangePartitionAssignor
        consumer._partition_assignment_strategy = (RangePartitionAssignor,)
        consumer._fetch_max_wait_ms = FETCH_WAIT_MS
        return consumer

    async def _fetch_records(
        self, consumer: aiokafka.AIOKafkaConsumer, *args: Any, **how: Any
    ) -> Any:
        fetcher = consumer._fetcher
        if not isinstance(fetcher._records, _AsParsed):
            fetcher._records = _AsParsed(fetcher._records)
        return await super()._fetch_records(consumer, *args, **how)

    async def read_from(self, tp: TP, offset: int) -> None:
        """Read a partition on from there, if it is still ours."""
        await self.call_thread(self._read_from, tp, offset)

    async def _read_from(self, tp: TP, offset: int) -> None:
        # A rebalance may have taken the partition away: then whoever has it reads it.
        with contextlib.suppress(IllegalStateError):
            self._ensure_consumer().seek(tp, offset)


class ChunkConsumer(driver.Consumer):
    """Faust's consumer, delivering chunks."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._firsts: defaultdict[TP, dict[int, tuple[int, int]]] = defaultdict(dict)
        """First offset of each chunk under way and that record's Kafka timestamp, by its last."""
        self._dropped: dict[TP, int] = {}
        """Lowest offset that was fetched for nobody, of each partition."""

    def oldest_ms(self, tp: TP, position: int) -> int | None:
        """When the oldest record was produced that was fetched and lies at `position` or beyond;
        None where there is none."""
        under_way = self._firsts.get(tp, {}).items()
        return min((ms for last, (_, ms) in under_way if last >= position), default=None)

    def _new_consumer_thread(self) -> Any:
        return ChunkThread(self, loop=self.loop, beacon=self.beacon)

    @property
    def member_id(self) -> str:
        """Under which id the group knows this consumer; empty before it has joined."""
        return str(self._thread._ensure_consumer()._coordinator.member_id)

    def _new_offset(self, tp: TP) -> int | None:
        """The offset to commit: the end of the acknowledged chunks that follow on one another."""
        acked, firsts = self._acked[tp], self._firsts[tp]
        end: int | None = self._committed_offset[tp]
        acked.sort()
        done = 0
        for last in acked:
            first, _ = firsts.get(last, (last, 0))
            # Faust lets the first one begin one offset late: what it committed may be a marker.
            if end and first > end + (done == 0):
                break
            end, done = last + 1, done + 1
        if not done:
            return None
        assert end is not None, "it was advanced"
        self._acked_index[tp].difference_update(acked[:done])
        del acked[:done]
        self._firsts[tp] = {last: chunk for last, chunk in firsts.items() if last >= end}
        return end

    async def _getmany(self, active_partitions: set[TP] | None, timeout: float) -> Any:  # noqa: ASYNC109 - Faust's
        await self._read_dropped()
        # A closed partition (its profiles are being restored) keeps its place and is not read.
        is_open = cast("ChunkApp", self.app).is_open
        open_partitions = {tp for tp in active_partitions or () if is_open(tp)}
        if not open_partitions:
            await asyncio.sleep(CLOSED_POLL_S)
            return {}
        return await super()._getmany(open_partitions, timeout)

    async def _drain_messages(self, fetcher: Any) -> None:
        try:
            while not (self._stopped.is_set() or fetcher._stopped.is_set()):
                await asyncio.sleep(0)
                fetched, _ = await self._wait_next_records(timeout=LOOK_AGAIN_S)
                generation = self.app.consumer_generation_id
                for tp, records in (fetched or {}).items():
                    # In a rebalance nobody takes it.  Faust seeks every partition to its committed
                    # offset before it resumes the flow, but this may have been read after that.
                    if self.flow_active and generation == self.app.consumer_generation_id:
                        await self._deliver(tp, records)
                    elif records:
                        first = records[0].offset
                        self._dropped[tp] = min(first, self._dropped.get(tp, first))
                if fetched:
                    await cast("ChunkApp", self.app).fetch_again()
        except self.consumer_stopped_errors:
            if not self.transport.app.should_stop:
                raise
        except asyncio.CancelledError:
            if not self.transport.app.should_stop:
                raise

    async def _read_dropped(self) -> None:
        """Before the first fetch after a rebalance: whatever was fetched for nobody meanwhile."""
        while self._dropped:
            tp, first = self._dropped.popitem()
            following = self._read_offset.get(tp)  # None where nothing was ever committed
            offset = first if following is None else following
            await cast(ChunkThread, self._thread).read_from(tp, offset)
            log.info("read again", topic=tp.topic, partition=tp.partition, offset=offset)

    async def _deliver(self, tp: TP, records: Sequence[Parsed]) -> None:
        # Faust's read offset, in our hands, is always the next one to read.
        following = self._read_offset.get(tp)
        if following is not None:
            records = [record for record in records if record.offset >= following]
        if not records:
            return
        last = records[-1].offset
        # Offsets skipped by the log itself (compaction, markers) belong to this chunk too.
        first = records[0].offset if following is None else following
        self._firsts[tp][last] = (first, records[0].timestamp)
        message, generation = self._to_chunk(tp, records), self.app.consumer_generation_id
        await self.wait_first(self.callback(message), self.suspend_flow.wait())
        if generation == self.app.consumer_generation_id:  # else Faust has set it anew
            self._read_offset[tp] = last + 1

    def _to_chunk(self, tp: TP, records: Sequence[Parsed]) -> ConsumerMessage:
        last = records[-1]
        end = self.highwater(tp) or last.offset + 1
        self.app.monitor.track_tp_end_offset(tp, end)
        return ConsumerMessage(
            tp.topic,
            tp.partition,
            last.offset,
            last.timestamp / 1000.0,
            last.timestamp_type,
            None,
            None,
            cast(Any, Chunk(tp.topic, tp.partition, records, end)),
            None,
            None,
            None,
            tp,
            generation_id=self.app.consumer_generation_id,
        )


class ChunkTransport(driver.Transport):
    """Faust's Kafka transport with our consumer."""

    Consumer: ClassVar[Any] = ChunkConsumer


async def _at_once() -> None:
    pass


class ChunkApp(faust.App):
    """A Faust app whose streams carry chunks.

    `is_open` says whether a partition may be fetched: not while its profiles are being restored.
    `fetch_again` is awaited between a fetch that brought something and the next.
    """

    is_open: Callable[[TP], bool] = staticmethod(lambda tp: True)
    fetch_again: Callable[[], Awaitable[None]] = staticmethod(_at_once)

    def _new_transport(self) -> Any:
        return ChunkTransport(self.conf.broker_consumer, self)

    def committed(self, tp: TP) -> int:
        """The offset committed for a partition, 0 when there is none."""
        return self._chunks._committed_offset.get(tp) or 0

    def oldest_ms(self, tp: TP, position: int) -> int | None:
        """Of what was fetched and is not done, when the oldest record was produced."""
        return self._chunks.oldest_ms(tp, position)

    @property
    def member_id(self) -> str:
        """Under which id the group knows this app's consumer; empty before it has joined."""
        return self._chunks.member_id

    @property
    def _chunks(self) -> ChunkConsumer:
        return cast(ChunkConsumer, self.consumer)
