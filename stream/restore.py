"""A partition's profiles, brought up to date from the changelog before its events are read.

The changelog is read by a group-less consumer from where the local store left off to its end.
A local profile that is ahead of its changelog record (written, then the process died before the
record was acknowledged) is kept; one that is behind, because another worker owned the partition
meanwhile, is replaced.  The input offset inside each profile decides, not the order of arrival.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from profiles.broker_access import security_options
from profiles.errors import BrokerError
from profiles.metrics import WorkerMetrics
from profiles.settings.kafka import BrokerSettings
from profiles.state import RecordLayout, Records, decode_records
from profiles.store import PartitionStore
from stream.state_thread import StateThread

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
) -> int:
    """Read the changelog to its end.

    Returns: the changelog offset reached.  Raises: BrokerError, StoreError, StoreCorruptError.
    """
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
        tp = TopicPartition(changelog, partition)
        consumer.assign([tp])
        beginning = (await consumer.beginning_offsets([tp]))[tp]
        end = (await consumer.end_offsets([tp]))[tp]
        position = max(store.watermark.changelog, beginning)
        consumer.seek(tp, position)
        while position < end:
            gauge.set(end - position)
            fetched = await consumer.getmany(tp, timeout_ms=1000, max_records=POLL_RECORDS)
            records = fetched.get(tp, [])
            reached = await consumer.position(tp)
            if records or reached > position:
                position = reached
                await state.run(
                    absorb, store, layout, [(r.key, r.value) for r in records if r.key], position
                )
        gauge.set(0)
        return int(position)
    except KafkaError as error:
        raise BrokerError(
            f"changelog {changelog}/{partition} cannot be read: {error!r}; the partition stays "
            "closed until it can"
        ) from error
    finally:
        await consumer.stop()


def absorb(
    store: PartitionStore,
    layout: RecordLayout,
    records: Sequence[tuple[bytes, bytes | None]],
    position: int,
) -> None:
    """Take changelog records, in log order, into the store; `position` is the offset after them.

    Of one user the furthest record counts, not the last: a worker that was suspended past its
    session can still write an old profile behind a newer one.
    """
    latest = _furthest(layout, records)
    erased = {user for user, payload in records if payload is None}
    users = list(latest)
    existing = store.get_many(users)
    kept_users: list[bytes] = []
    kept: list[bytes | None] = []
    count = store.watermark.count
    newer = _is_newer(layout, existing, [latest[user] for user in users])
    for user, old, is_newer in zip(users, existing, newer, strict=True):
        # After a tombstone no local profile is worth more than what was written since.
        if not is_newer and user not in erased:
            continue
        new = latest[user]
        count += (new is not None) - (old is not None)
        kept_users.append(user)
        kept.append(new)
    store.write(
        kept_users, kept, msgspec.structs.replace(store.watermark, changelog=position, count=count)
    )


def _furthest(
    layout: RecordLayout, records: Sequence[tuple[bytes, bytes | None]]
) -> dict[bytes, bytes | None]:
    """One payload per user; a tombstone ends what came before it."""
    decoded, _ = decode_records(layout, [payload for _, payload in records if payload is not None])
    places = iter(
        zip(
            decoded["topic"].tolist(),
            decoded["offset"].tolist(),
            decoded["revision"].tolist(),
            strict=True,
        )
    )
    latest: dict[bytes, bytes | None] = {}
    reached: dict[bytes, tuple[int, int, int]] = {}
    for user, payload in records:
        if payload is None:
            reached.pop(user, None)
        else:
            place = next(places)
            before = reached.get(user)
            if before is not None and before[0] == place[0] and before[1:] > place[1:]:
                continue
            reached[user] = place
        latest[user] = payload
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
