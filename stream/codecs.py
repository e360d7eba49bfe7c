"""From a chunk of raw records to columns, with every bad record set aside by name.

Nothing here raises for a bad record: it becomes a `DeadLetter` with a reason, and its neighbours
go on.  An event of an item that the catalogue does not (yet) have is neither good nor bad: the
agent waits a moment for the catalogue and decides then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from profiles.applying import Batch
from profiles.catalog import Catalog
from profiles.errors import BadMessage
from profiles.events import Event, check_key, decode_event, key64
from stream.chunks import Record

MAX_VALUE = 60_000.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, with its original bytes (`record`) and why."""

    record: Record
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """Well-formed events of a chunk, each with the record it came from and its user's key."""

    events: list[Event]
    records: list[Record]
    users: list[bytes]
    dead: list[DeadLetter]


@dataclass(frozen=True, slots=True)
class Rules:
    """What an event must satisfy besides its schema."""

    actions: Mapping[str, int]
    max_bytes: int
    max_ahead_s: float


def decode_chunk(records: list[Record], rules: Rules, now_s: float) -> Decoded:
    """Decode and check every record of a chunk."""
    events: list[Event] = []
    good: list[Record] = []
    users: list[bytes] = []
    dead: list[DeadLetter] = []
    for record in records:
        try:
            event, user = _decode(record, rules, now_s)
        except BadMessage as error:
            dead.append(DeadLetter(record, error.reason, str(error)))
            continue
        events.append(event)
        good.append(record)
        users.append(user)
    return Decoded(events, good, users, dead)


def _decode(record: Record, rules: Rules, now_s: float) -> tuple[Event, bytes]:
    check_size(record, rules.max_bytes)
    event = decode_event(record.value, now_s=now_s, max_ahead_s=rules.max_ahead_s)
    user = check_user_key(record, event.user_id)
    if event.action not in rules.actions:
        raise BadMessage(
            "unknown-action",
            f"action {event.action!r} has no weight; add it to the setting `actions` "
            f"(known: {', '.join(rules.actions)})",
        )
    return event, user


def check_size(record: Record, max_bytes: int) -> None:
    """Raises: BadMessage (oversized)."""
    if record.value is not None and len(record.value) > max_bytes:
        raise BadMessage(
            "oversized",
            f"the message has {len(record.value)} bytes, more than the {max_bytes} allowed by "
            "serving.max_message_bytes",
        )


def check_user_key(record: Record, user_id: str) -> bytes:
    """The record's key, which must be the user's id: it decides the partition, so the order.

    Raises: BadMessage (wrong-key, bad-text).
    """
    user = check_key(user_id)
    if record.key != user:
        raise BadMessage(
            "wrong-key",
            f"the record's key is {record.key!r}, but its user_id is {user_id!r}; produce with "
            "the user id as key, so that a user's messages stay in order",
        )
    return user


def unknown_items(decoded: Decoded, catalog: Catalog) -> set[str]:
    """Items that the catalogue does not have."""
    return {event.item_id for event in decoded.events} - catalog.rows.keys()


def drop_unknown(decoded: Decoded, catalog: Catalog) -> Decoded:
    """Events of items that stayed unknown become dead letters."""
    known = [event.item_id in catalog.rows for event in decoded.events]
    if all(known):
        return decoded
    dead = [
        DeadLetter(
            record,
            "unknown-item",
            f"item {event.item_id!r} is not in the catalogue; produce it to the items topic "
            "first, then replay this event from the dead-letter topic",
        )
        for event, record, is_known in zip(decoded.events, decoded.records, known, strict=True)
        if not is_known
    ]
    keep = [at for at, is_known in enumerate(known) if is_known]
    return Decoded(
        [decoded.events[at] for at in keep],
        [decoded.records[at] for at in keep],
        [decoded.users[at] for at in keep],
        decoded.dead + dead,
    )


def to_batch(
    decoded: Decoded, catalog: Catalog, actions: Mapping[str, int]
) -> tuple[Batch, list[bytes]]:
    """Columns for `profiles.applying`, and the distinct users that its rows point to."""
    rows: dict[bytes, int] = {}
    events = decoded.events
    user_rows = [rows.setdefault(user, len(rows)) for user in decoded.users]
    item_rows = np.array([catalog.rows[event.item_id] for event in events], dtype=np.intp)
    batch = Batch(
        users=np.array(user_rows, dtype=np.intp),
        offsets=np.array([record.offset for record in decoded.records], dtype=np.int64),
        event_keys=np.array([key64(event.event_id) for event in events], dtype=np.uint64),
        item_rows=item_rows,
        item_keys=catalog.keys[item_rows] if len(events) else np.zeros(0, dtype=np.uint64),
        actions=np.array([actions[event.action] for event in events], dtype=np.int64),
        values=np.array(
            [0.0 if event.value is None else _bounded(event.value) for event in events],
            dtype=np.float16,
        ).astype(np.float32),
        ts=np.array([event.ts for event in events], dtype=np.float64),
    )
    return batch, list(rows)


def _bounded(value: float) -> float:
    """A value that float16, which the history keeps, can hold.  The model clips far below this.

    Rounding happens here, before the value is used, so that a rebuild from the history sees
    exactly what the first pass saw.
    """
    return max(-MAX_VALUE, min(MAX_VALUE, value))
