"""A partition's profiles, brought up to date from the changelog before its events are read.

The changelog is read by a group-less consumer from where the local store left off to its end.
A local profile that is ahead of its changelog record (written, then the process died before the
record was acknowledged) is kept; one that is behind, because another worker owned the partition
meanwhile, is replaced.  The input offset inside each profile decides, not the order of arrival.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from profiles.broker_access import security_options
from profiles.errors import BrokerError
from profiles.fences import Fences, is_fence
from profiles.key_store import KeyStore
from profiles.metrics import WorkerMetrics
from profiles.sealing import PROFILE
from profiles.settings.kafka import BrokerSettings
from profiles.state import RecordLayout, Records, decode_records
from profiles.store import PartitionStore
from stream.state_thread import StateThread

Pairs = Sequence[tuple[bytes, bytes | None]]
"""Key and value of records."""

POLL_RECORDS = 5_000
TOMBSTONES_KEPT_S = 12 * 3600.0
"""A store older than this may have missed tombstones that compaction has dropped since (Kafka
keeps them a day): it is rebuilt from nothing, so that an erased profile cannot come back."""


async def restore(
    store: PartitionStore,
    layout: RecordLayout,
    broker: BrokerSettings,
    changelog: str,
    partition: int,
    state: StateThread,
    metrics: WorkerMetrics,
    keys: KeyStore | None = None,
    fences: Fences | None = None,
) -> int:
    """Read the changelog to its end.

    Returns: the changelog offset reached.  Raises: BrokerError, StoreError, StoreCorruptError,
    SealError.
    """

    def take(records: Pairs, position: int) -> None:
        refused = absorb(store, layout, records, position, keys, fences)
        metrics.sealed_refused.inc(refused)

    return await _read_to_end(
        broker, changelog, partition, store.watermark.changelog, state, metrics, take
    )


async def restore_keys(
    keys: KeyStore,
    broker: BrokerSettings,
    topic: str,
    partition: int,
    state: StateThread,
    metrics: WorkerMetrics,
) -> None:
    """Read the users' keys to the end of their topic: before the changelog, which they open.

    Raises: BrokerError, StoreError, StoreCorruptError, SealError.
    """
    await _read_to_end(
        broker, topic, partition, keys.store.watermark.changelog, state, metrics, keys.absorb
    )


async def _read_to_end(
    broker: BrokerSettings,
    topic: str,
    partition: int,
    start: int,
    state: StateThread,
    metrics: WorkerMetrics,
    take: Callable[[Pairs, int], None],
) -> int:
    """Give a compacted partition's records to `take` on the state thread, with the offset after
    them.  Returns: the offset reached."""
    gauge = metrics.restore_remaining.labels(str(partition))
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_partition_fetch_bytes=8 * 2**20,
        fetch_max_wait_ms=100,
        **security_options(broker),
    )
    try:
        await consumer.start()
        tp = TopicPartition(topic, partition)
        consumer.assign([tp])
        beginning = (await consumer.beginning_offsets([tp]))[tp]
        end = (await consumer.end_offsets([tp]))[tp]
        position = max(start, beginning)
        consumer.seek(tp, position)
        while position < end:
            gauge.set(end - position)
            fetched = await consumer.getmany(tp, timeout_ms=1000, max_records=POLL_RECORDS)
            records = fetched.get(tp, [])
            reached = await consumer.position(tp)
            if records or reached > position:
                position = reached
                await state.run(take, [(r.key, r.value) for r in records if r.key], position)
        gauge.set(0)
        return int(position)
    except KafkaError as error:
        raise BrokerError(
            f"{topic}/{partition} cannot be read: {error!r}; the partition stays closed until it "
            "can"
        ) from error
    finally:
        await consumer.stop()


async def end_of(broker: BrokerSettings, topic: str, partition: int) -> int:
    """The offset after the last record of a partition now.  Raises: BrokerError."""
    consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, **security_options(broker))
    place = TopicPartition(topic, partition)
    try:
        await consumer.start()
        return int((await consumer.end_offsets([place]))[place])
    except KafkaError as error:
        raise BrokerError(f"the end of {topic}/{partition} is not known: {error!r}") from error
    finally:
        await consumer.stop()


def absorb(
    store: PartitionStore,
    layout: RecordLayout,
    records: Pairs,
    position: int,
    keys: KeyStore | None = None,
    fences: Fences | None = None,
) -> int:
    """Take changelog records, in log order, into the store; `position` is the offset after them.

    Of one user the furthest record counts, not the last: a worker that was suspended past its
    session can still write an old profile behind a newer one.
    Returns: how many records were passed over because they do not open: their user's key is gone
    (she was erased), or they are damaged.
    """
    fenced = [(key, value) for key, value in records if is_fence(key) and value is not None]
    if fences is not None:
        fences.take(fenced)
    records = [pair for pair in records if not is_fence(pair[0])]
    readable, opened = _opened(records, keys)
    latest = _furthest(layout, readable, opened, fences)
    erased = {user for user, payload in readable if payload is None}
    users = list(latest)
    existing = store.get_many(users)
    before = existing if keys is None else keys.open_profiles(users, existing, store)
    kept_users: list[bytes] = []
    kept: list[bytes | None] = []
    count = store.watermark.count
    newer = _is_newer(layout, before, [latest[user][1] for user in users])
    for user, old, is_newer in zip(users, existing, newer, strict=True):
        # After a tombstone no local profile is worth more than what was written since.
        if not is_newer and user not in erased:
            continue
        new = latest[user][0]
        count += (new is not None) - (old is not None)
        kept_users.append(user)
        kept.append(new)
    store.write(
        kept_users,
        kept,
        msgspec.structs.replace(store.watermark, changelog=position, count=count),
        fenced,
    )
    return len(records) - len(readable)


def _opened(records: Pairs, keys: KeyStore | None) -> tuple[Pairs, list[bytes | None]]:
    """The records that can be read, tombstones among them, and the payload of each as it was
    before it was sealed."""
    if keys is None:
        return records, [payload for _, payload in records]
    plain = keys.sealer.open_many(PROFILE, *zip(*records, strict=True)) if records else []
    kept = [
        (pair, payload)
        for pair, payload in zip(records, plain, strict=True)
        if payload is not None or pair[1] is None
    ]
    return [pair for pair, _ in kept], [payload for _, payload in kept]


def _furthest(
    layout: RecordLayout,
    records: Pairs,
    opened: Sequence[bytes | None],
    fences: Fences | None,
) -> dict[bytes, tuple[bytes | None, bytes | None]]:
    """One payload per user, as it stands there and opened; a tombstone ends what came before.

    A profile that had come no further than its user's erasure is passed over.
    """
    decoded, _ = decode_records(layout, [payload for payload in opened if payload is not None])
    places = iter(
        zip(
            decoded["topic"].tolist(),
            decoded["offset"].tolist(),
            decoded["revision"].tolist(),
            strict=True,
        )
    )
    latest: dict[bytes, tuple[bytes | None, bytes | None]] = {}
    reached: dict[bytes, tuple[int, int, int]] = {}
    for (user, payload), plain in zip(records, opened, strict=True):
        if payload is None:
            reached.pop(user, None)
        else:
            place = next(places)
            if fences is not None and fences.holds_back(user, *place[:2]):
                continue
            before = reached.get(user)
            if before is not None and before[0] == place[0] and before[1:] > place[1:]:
                continue
            reached[user] = place
        latest[user] = (payload, plain)
    return latest


def _is_newer(
    layout: RecordLayout, old: Sequence[bytes | None], new: Sequence[bytes | None]
) -> list[bool]:
    """Whether each changelog record should replace the local profile.  A tombstone always does."""
    both = [at for at in range(len(old)) if old[at] is not None and new[at] is not None]
    newer = [True] * len(old)
    before, _ = decode_records(layout, [payload for at in both if (payload := old[at]) is not None])
    after, _ = decode_records(layout, [payload for at in both if (payload := new[at]) is not None])
    for at, ahead in zip(both, _ahead(before, after).tolist(), strict=True):
        newer[at] = not ahead
    return newer


def _ahead(local: Records, remote: Records) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Whether a local profile has seen more than its changelog record."""
    same_topic = local["topic"] == remote["topic"]
    further = local["offset"] > remote["offset"]
    edited = (local["offset"] == remote["offset"]) & (local["revision"] > remote["revision"])
    ahead: np.ndarray[tuple[int], np.dtype[np.bool_]] = same_topic & (further | edited)
    return ahead
