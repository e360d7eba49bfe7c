"""From a chunk of raw records to columns, with every bad record set aside by name.

Nothing here raises for a bad record: it becomes a `DeadLetter` with a reason, and its neighbours
go on.  An event of an item that the catalogue does not (yet) have is neither good nor bad: the
agent waits a moment for the catalogue and decides then.

Checking costs more than parsing when it is done event by event.  So events are looked at in columns
(`_looks_good`), a whole chunk at first; where that finds something it is halved, until what is left
is one event, and of that `_judge` alone decides.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from profiles.catalog import Catalog, Rows
from profiles.errors import BadMessage
from profiles.event_keys import event_keys
from profiles.events import Event, check_action, check_event, check_said, parse_event
from profiles.judging import Batch
from profiles.said import TextMemory, text_key
from profiles.wire import MAX_VALUE, check_key, check_size
from stream.chunks import Parsed

MAX_KEPT_VALUE = 60_000.0
"""What float16, which the history keeps, can hold.  The model clips far below this."""
_WORDS = np.uint64(0xA5A5A5A5A5A5A5A5)
"""Sets the id of words apart from that of what was done in the same event."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be used, with its original bytes (`record`) and why."""

    record: Parsed
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class Decoded:
    """Well-formed events of a chunk, each with the record it came from and its user's key.

    `rows`: catalogue rows of their items as they were when they were looked up (`located`).
    """

    events: list[Event]
    records: Sequence[Parsed]
    users: list[bytes]
    dead: list[DeadLetter]
    rows: Rows | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What an event must satisfy besides its schema."""

    actions: Mapping[str, int]
    max_bytes: int
    max_ahead_s: float
    after_erasure: Literal["accept", "forget", "refuse"] = "accept"


def decode_chunk(records: Sequence[Parsed], rules: Rules, now_s: float) -> Decoded:
    """Decode and check every record of a chunk."""
    events: list[Event] = []
    parsed: list[Parsed] = []
    dead: list[DeadLetter] = []
    max_bytes = rules.max_bytes
    for record in records:
        try:
            payload = record.value
            if payload is not None and len(payload) > max_bytes:
                check_size(payload, max_bytes)
            events.append(parse_event(payload))
        except BadMessage as error:
            dead.append(DeadLetter(record, error.reason, str(error)))
        else:
            parsed.append(record)
    users = [event.user_id.encode() for event in events]
    good: list[int] = []
    suspects = [range(len(events))]
    while suspects:
        part = suspects.pop()
        at = slice(part.start, part.stop)
        if _looks_good(events[at], parsed[at], users[at], rules, now_s):
            good += part
        elif len(part) > 1:
            # Halved until the bad ones stand alone; the first half is looked at next.
            half = len(part) // 2
            suspects += [part[half:], part[:half]]
        else:
            try:
                _judge(events[part.start], parsed[part.start], rules, now_s)
            except BadMessage as error:
                dead.append(DeadLetter(parsed[part.start], error.reason, str(error)))
            else:
                good += part
    decoded = Decoded(events, parsed, users, dead)
    return decoded if len(good) == len(events) else kept_only(decoded, good)


def _looks_good(
    events: list[Event], records: Sequence[Parsed], users: list[bytes], rules: Rules, now_s: float
) -> bool:
    """Whether `_judge` would pass every event; False also where it only might not."""
    if not events:
        return True
    ts = [event.ts for event in events]
    values = [event.value for event in events if event.value is not None]
    texts = [event.text for event in events if event.text is not None]
    names = [name for event in events for name in (event.event_id, event.item_id)]
    return (
        users == [record.key for record in records]
        and rules.actions.keys() >= {event.action for event in events}
        and min(ts) >= 0
        and max(ts) <= now_s + rules.max_ahead_s
        and (not values or max(map(abs, values)) <= MAX_VALUE)
        and b"\x00" not in b"".join(users)
        and "\x00" not in "".join(names)
        and (not texts or _are_words(texts))
    )


def _are_words(texts: list[str]) -> bool:
    try:
        check_said("".join(texts))
    except BadMessage:
        return False
    return all(map(str.strip, texts))


def _judge(event: Event, record: Parsed, rules: Rules, now_s: float) -> None:
    """Raises: BadMessage with what is wrong with an event."""
    check_event(event, now_s=now_s, max_ahead_s=rules.max_ahead_s)
    check_user_key(record, event.user_id)
    check_action(event, rules.actions)


def kept_only(decoded: Decoded, keep: list[int]) -> Decoded:
    """Fewer of the events, with all of the dead letters."""
    return Decoded(
        [decoded.events[at] for at in keep],
        [decoded.records[at] for at in keep],
        [decoded.users[at] for at in keep],
        decoded.dead,
    )


def check_user_key(record: Parsed, user_id: str) -> bytes:
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


def rows_of(events: Sequence[Event], catalog: Catalog) -> Rows:
    """Catalogue row of each event's item, -1 for one that the catalogue does not have, or words."""
    find = catalog.rows.get
    return np.array([find(event.item_id, -1) for event in events], dtype=np.intp)


def located(decoded: Decoded, catalog: Catalog) -> tuple[Decoded, Rows]:
    """The same events with the rows of their items as they are now, and these rows."""
    rows = rows_of(decoded.events, catalog)
    return dataclasses.replace(decoded, rows=rows), rows


def unknown_items(decoded: Decoded, catalog: Catalog) -> set[str]:
    """Items that the catalogue does not have."""
    rows = rows_of(decoded.events, catalog)
    return {decoded.events[at].item_id for at in lacking(decoded, rows)}


def lacking(decoded: Decoded, rows: Rows) -> list[int]:
    """Positions of events whose item the catalogue lacks; words have none."""
    return [at for at in np.flatnonzero(rows < 0).tolist() if decoded.events[at].item_id]


def drop_unknown(decoded: Decoded, catalog: Catalog) -> Decoded:
    """Events of items that stayed unknown become dead letters."""
    unknown = lacking(decoded, rows_of(decoded.events, catalog))
    if not unknown:
        return decoded
    dead = [
        DeadLetter(
            decoded.records[at],
            "unknown-item",
            f"item {decoded.events[at].item_id!r} is not in the catalogue; produce it to the "
            "items topic first, then replay this event from the dead-letter topic",
        )
        for at in unknown
    ]
    known = kept_only(decoded, sorted(set(range(len(decoded.events))).difference(unknown)))
    return Decoded(known.events, known.records, known.users, known.dead + dead)


def words_apart(decoded: Decoded, memory: TextMemory) -> Decoded:
    """An event with words and an item becomes two: what was said, then what was done.

    Words are cut to what is kept of them.  Without any, the same object.
    """
    if not any([event.text for event in decoded.events]):  # a list: twice as fast as a generator
        return decoded
    events: list[Event] = []
    records: list[Parsed] = []
    users: list[bytes] = []
    for event, record, user in zip(decoded.events, decoded.records, decoded.users, strict=True):
        parts = [event]
        if event.text is not None:
            said = msgspec.structs.replace(event, item_id="", text=memory.kept(event.text))
            parts = [said, msgspec.structs.replace(event, text=None)] if event.item_id else [said]
        events += parts
        records += [record] * len(parts)
        users += [user] * len(parts)
    return Decoded(events, records, users, decoded.dead)


@dataclass(frozen=True, slots=True)
class Columns:
    """Events of several chunks, one chunk after another, as columns.

    `users`: whom the rows of `batch.users` point to, each chunk's own in the order of their keys,
    in which RocksDB finds and takes in neighbours from the cache.  `slices`: where each chunk's
    users stand; `chunk_of_user`: the same the other way round, a chunk's number for each row.
    """

    batch: Batch
    events: Sequence[Event]
    users: list[bytes]
    slices: list[slice]
    chunk_of_user: list[int]


def to_batch(chunks: Sequence[Decoded], catalog: Catalog, actions: Mapping[str, int]) -> Columns:
    """Columns for `profiles.applying`; no partition has two of the chunks."""
    events = [event for chunk in chunks for event in chunk.events]
    users: list[bytes] = []
    slices: list[slice] = []
    rows_of_events: list[int] = []
    chunk_of_user: list[int] = []
    for number, chunk in enumerate(chunks):
        own = sorted(set(chunk.users))
        start, stop = len(users), len(users) + len(own)
        row_of = dict(zip(own, range(start, stop), strict=True))
        rows_of_events += map(row_of.__getitem__, chunk.users)
        users += own
        slices.append(slice(start, stop))
        chunk_of_user += [number] * len(own)
    rows = np.concatenate(
        [rows_of(chunk.events, catalog) if chunk.rows is None else chunk.rows for chunk in chunks]
    )
    values = [event.value or 0.0 for event in events]
    keys = event_keys([event.event_id for event in events])
    words = np.flatnonzero(rows < 0)
    item_keys = catalog.keys[rows] if len(catalog) else np.zeros(len(rows), np.uint64)
    if len(words):
        keys[words] ^= _WORDS
        item_keys[words] = [text_key(events[at].text or "") for at in words.tolist()]
    batch = Batch(
        users=np.array(rows_of_events, dtype=np.intp),
        offsets=np.array(
            [record.offset for chunk in chunks for record in chunk.records], dtype=np.int64
        ),
        event_keys=keys,
        item_rows=rows,
        item_keys=item_keys,
        actions=np.array([actions[event.action] for event in events], dtype=np.int64),
        # Rounded to what the history can hold before it is used, so that a rebuild from the
        # history sees exactly what the first pass saw.
        values=np.clip(values, -MAX_KEPT_VALUE, MAX_KEPT_VALUE)
        .astype(np.float16)
        .astype(np.float32),
        ts=np.array([event.ts for event in events], dtype=np.float64),
        appended_ms=np.array(
            [record.timestamp for chunk in chunks for record in chunk.records], dtype=np.int64
        ),
    )
    return Columns(batch, events, users, slices, chunk_of_user)
