"""What should have happened: every valid event once, in order, by user.

An event is dead if it breaks a rule of the contract (`stream.oracle.contract`); it is a repetition
if its id is among the user's `recent_ids` last applied ones; where the rate is capped, it is
refused if its user has used up her minute (the setting is supposed not to have changed).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from profiles.config import Settings
from profiles.layers import Floats
from profiles.wire import key64
from stream.oracle.catalogue import Catalogue
from stream.oracle.contract import judge_event
from stream.oracle.records import Raw

Ints = npt.NDArray[np.int64]
Place = tuple[int, int]
"""Partition and offset."""

KEPT_VALUE = 1e9


@dataclass(frozen=True, slots=True)
class Ledger:
    """Events that count, sorted by user, each user's in the order of application.

    Rows of user u are `first[u]` up to `first[u] + count[u]`.  Shapes: first, count (U,); items
    (catalogue rows; of words, N and on: rows of `texts` behind the catalogue's N), item_keys,
    actions, values, ts, partitions, offsets (E,).  `dead`: place to reason of every event that
    breaks a rule; `appended_ms`: when each record was appended; `kept_texts`: how many words of a
    user are remembered.
    """

    produced: int
    repeated: int
    over_rate: int
    users: tuple[bytes, ...]
    index: dict[bytes, int]
    first: Ints
    count: Ints
    items: Ints
    item_keys: npt.NDArray[np.uint64]
    actions: Ints
    values: Floats
    ts: npt.NDArray[np.float64]
    partitions: Ints
    offsets: Ints
    dead: dict[Place, str]
    appended_ms: dict[Place, int]
    texts: tuple[str, ...]
    said: npt.NDArray[np.bool_]
    kept_texts: int
    forgiven: frozenset[Place] = frozenset()
    """Bad events of erased users, whose letters are to be gone."""

    def forgotten(self, user: int, count: int, history: int) -> Ints:
        """Numbers of words that a profile of `count` events no longer remembers, though they are
        among its last `history`."""
        numbers = np.arange(max(0, count - history), count)
        words: Ints = numbers[self.said[self.first[user] + numbers]]
        return words[: max(0, len(words) - self.kept_texts)]

    def settled(self, before: Mapping[int, int] | None) -> Ints:
        """Of each user's events, how many stand before these offsets of their partitions.

        Shapes: -> (U,).
        """
        if before is None or not len(self.offsets):
            return self.count
        ends = np.array([before.get(number, 0) for number in range(self.partitions.max() + 1)])
        early = np.concatenate([[0], np.cumsum(self.offsets < ends[self.partitions])])
        found: Ints = early[self.first + self.count] - early[self.first]
        return found


@dataclass(slots=True)
class _Log:
    """One user's events while they are being collected."""

    recent: deque[tuple[str, bool]]
    rows: list[tuple[int, int, float, float, int, int]] = field(default_factory=list)
    used_until_us: int = 0

    def may_count(self, appended_ms: int, per_minute: int) -> bool:
        """Whether one more event is within the user's rate, which it then uses up."""
        if not per_minute:
            return True
        now_us, minute_us = 1000 * appended_ms, 60 * 10**6
        if self.used_until_us - now_us > 2 * minute_us:  # the broker's clock was set back
            self.used_until_us = now_us
        until_us = max(self.used_until_us, now_us) + minute_us // per_minute
        if until_us - now_us > minute_us:
            return False
        self.used_until_us = until_us
        return True


def keep_ledger(
    records: Iterable[Raw],
    catalogue: Catalogue,
    settings: Settings,
    dead_lettered: Mapping[Place, str],
    erased: Mapping[bytes, int] = MappingProxyType({}),
) -> Ledger:
    """Read the events topic.  `dead_lettered`: what the workers set aside, and why; `erased`: when
    users were, Unix ms."""
    actions = {name: at for at, name in enumerate(sorted(settings.actions))}
    per_minute = settings.serving.user_events_per_minute
    logs: dict[bytes, _Log] = {}
    dead: dict[Place, str] = {}
    forgiven: set[Place] = set()
    appended_ms: dict[Place, int] = {}
    repeated = over_rate = 0
    texts: dict[str, int] = {}
    for record in records:
        place = (record.partition, record.offset)
        appended_ms[place] = record.timestamp_ms
        event, reason = judge_event(record, actions, catalogue, settings, dead_lettered.get(place))
        if reason is None and dead_lettered.get(place) == "erased":
            erased_ms = erased.get(record.key or b"")
            # Refused because of the erasure, if it came after it.
            is_later = erased_ms is not None and record.timestamp_ms >= erased_ms
            reason = "erased" if is_later else None
        if reason is not None:
            dead[place] = reason
            if not erased.keys().isdisjoint((record.key or b"", _user_of(event))):
                forgiven.add(place)
            continue
        assert record.key is not None, "the key is the user's id"
        log = logs.get(record.key)
        if log is None:
            log = logs[record.key] = _Log(deque(maxlen=settings.profile.recent_ids))
        value = max(-KEPT_VALUE, min(KEPT_VALUE, event.get("value") or 0.0))
        action, behind = actions[event["action"]], len(catalogue.ids)
        may_count: bool | None = None
        for is_said, item in _parts(event, catalogue, texts, settings.profile.text_chars):
            if (event["event_id"], is_said) in log.recent:
                repeated += 1
                continue
            if may_count is None:  # of one record, words and act count together or not at all
                may_count = log.may_count(record.timestamp_ms, per_minute)
                over_rate += not may_count
            if not may_count:
                continue
            log.recent.append((event["event_id"], is_said))
            row = behind + item if is_said else item
            log.rows.append((row, action, value, event["ts"], *place))
    rows = [row for log in logs.values() for row in log.rows]
    columns = list(zip(*rows, strict=True)) or [()] * 6
    items = np.array(columns[0], dtype=np.int64)
    count = np.array([len(log.rows) for log in logs.values()], dtype=np.int64)
    return Ledger(
        produced=len(appended_ms),
        repeated=repeated,
        over_rate=over_rate,
        users=tuple(logs),
        index={user: at for at, user in enumerate(logs)},
        first=np.concatenate([[0], np.cumsum(count)[:-1]]).astype(np.int64)[: len(count)],
        count=count,
        items=items,
        item_keys=np.concatenate(
            [catalogue.keys, np.array([key64("\x00" + text) for text in texts], np.uint64)]
        )[items],
        actions=np.array(columns[1], dtype=np.int64),
        values=np.array(columns[2], dtype=np.float32),
        ts=np.array(columns[3], dtype=np.float64),
        partitions=np.array(columns[4], dtype=np.int64),
        offsets=np.array(columns[5], dtype=np.int64),
        dead=dead,
        appended_ms=appended_ms,
        texts=tuple(texts),
        said=items >= len(catalogue.ids),
        kept_texts=settings.profile.texts,
        forgiven=frozenset(forgiven),
    )


def _user_of(event: Any) -> bytes:  # Any: decoded JSON is anything
    user = event.get("user_id") if isinstance(event, dict) else None
    return user.encode("utf-8", "replace") if isinstance(user, str) else b""


def _parts(
    event: dict[str, Any], catalogue: Catalogue, texts: dict[str, int], chars: int
) -> list[tuple[bool, int]]:
    """What an event counts as: what was said (its number among `texts`), then what was done (the
    row of its item)."""
    parts = []
    if event.get("text") is not None:
        said = event["text"].strip()[:chars]
        parts.append((True, texts.setdefault(said, len(texts))))
    if event.get("item_id"):
        parts.append((False, catalogue.rows[event["item_id"]]))
    return parts


def dead_places(letters: Iterable[Raw]) -> dict[Place, str]:
    """Of the dead letters of events: place to reason of what they were."""
    places: dict[Place, str] = {}
    for record in letters:
        told = {name: value.decode() for name, value in record.headers if name.startswith("__conn")}
        place = (
            int(told.get("__connect.errors.partition", -1)),
            int(told.get("__connect.errors.offset", -1)),
        )
        places[place] = told.get("__connect.errors.exception.class.name", "")
    return places
