"""Users' recent events on disk, findable by user and by who was active last.

h <user>         the user's last `HISTORY_EVENTS` events
t <arrival no.>  the user whose last event has this number: "who was active since" is a scan
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from learner.disk import Disk
from learner.records import EVENT, Events, Row, UserHistory
from learner.reservoir import USER, Batch

HISTORY_EVENTS = 200
READ_USERS = 256


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a user's new events: how many were new, and the oldest ones that a full
    history let go, after `skipped` still older ones."""

    added: int
    dropped: Events
    skipped: int


class Histories:
    """Reads and writes histories; writes go into the caller's batch.

    `held_bytes` is the payload held, as the caller's saved counters know it.
    """

    def __init__(self, disk: Disk, held_bytes: int) -> None:
        self._disk = disk
        self.held_bytes = held_bytes

    def read(self, users: Sequence[int]) -> list[UserHistory | None]:
        """Histories in the order of the users."""
        found = self._disk.get_many([_history_key(user) for user in users])
        return [UserHistory.from_bytes(payload) if payload else None for payload in found]

    def active_since(
        self, order: int, limit: int | None = None
    ) -> Iterator[tuple[int, UserHistory]]:
        """Users whose last event has arrival number `order` or more, least recent first."""
        users: list[int] = []
        for _, value in self._disk.scan(b"t", _touch_key(order)):
            if limit is not None and len(users) >= limit:
                break
            users.append(USER.unpack(value)[0])
        for start in range(0, len(users), READ_USERS):
            some = users[start : start + READ_USERS]
            for user, history in zip(some, self.read(some), strict=True):
                if history is not None:
                    yield user, history

    def append(
        self,
        batch: Batch,
        user: int,
        old: UserHistory | None,
        arrived: Sequence[tuple[int, Row]],
    ) -> Appended:
        """Add events with their arrival numbers; an event id that the history holds is skipped."""
        history = old or UserHistory(0, arrived[0][0], 0, np.zeros(0, EVENT))
        known = set(history.events["event_id"].tolist())
        new: list[tuple[int, int, float, int, float, int]] = []
        for order, row in arrived:
            if row.event_id not in known:
                known.add(row.event_id)
                new.append((order, row.item, row.ts, row.event_id, row.value, row.action))
        if not new:
            return Appended(0, history.events[:0], history.skipped())
        events = np.concatenate([history.events, np.array(new, EVENT)])
        spare = max(len(events) - HISTORY_EVENTS, 0)
        grown = UserHistory(
            history.total + len(new), history.first_order, new[-1][0], events[spare:]
        )
        if old is not None:
            self.delete(batch, user, old)
        payload = grown.to_bytes()
        batch.put(_history_key(user), payload)
        batch.put(_touch_key(grown.last_order), USER.pack(user))
        self.held_bytes += len(payload)
        return Appended(len(new), events[:spare], history.skipped())

    def delete(self, batch: Batch, user: int, history: UserHistory) -> None:
        """Remove a history and its place in the order of activity."""
        batch.delete(_history_key(user))
        batch.delete(_touch_key(history.last_order))
        self.held_bytes -= history.size_bytes


def _history_key(user: int) -> bytes:
    return b"h" + USER.pack(user)


def _touch_key(order: int) -> bytes:
    return b"t" + order.to_bytes(8, "big")
