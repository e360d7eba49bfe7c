"""Who is recommended to now, and who waits.

A user's first update is answered at once, the next ones at most once per interval: the last of
them when the interval has passed.  A worker that is behind first catches up: a recommendation
from a profile that is about to change again is not worth its cost, so outputs are held (for
`backlog_hold_s` at most) and then made once per user.  What waits is in memory only: a worker
that stops flushes it, one that is killed leaves these users with their previous recommendation
until their next event.

A skipped duplicate of the event that caused a profile's last recommendation has it sent again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.applying import Applied
from profiles.catalog import Rows
from profiles.settings.serving import ServingSettings
from profiles.state import Records
from stream.codecs import Columns
from stream.messages import Cause

FLUSH_USERS = 500
"""Users answered in one flush: bounds how long newer events wait behind it."""


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """A recommendation that is owed: when (Unix seconds), and the event that called for it.

    A struct because every event of a backlog makes one: a frozen dataclass takes ten times as long.
    """

    due_s: float
    offset: int
    event_id: str
    event_key: int
    event_ts: float


@dataclass(slots=True)
class Owed:
    """What one partition owes, by user, and since when it has been held back."""

    users: dict[bytes, Waiting] = field(default_factory=dict)
    held_since_s: float | None = None

    def note_position(self, behind: int, settings: ServingSettings, now_s: float) -> None:
        """`behind` records of the partition are still to be read."""
        if behind <= settings.backlog_records:
            self.held_since_s = None
        elif self.held_since_s is None:
            self.held_since_s = now_s

    def is_holding(self, settings: ServingSettings, now_s: float) -> bool:
        """Whether outputs wait for the worker to catch up."""
        held_since_s = self.held_since_s
        return held_since_s is not None and now_s - held_since_s < settings.backlog_hold_s

    def take(
        self, settings: ServingSettings, now_s: float, everything: bool = False
    ) -> dict[bytes, Waiting]:
        """Remove and return what is due, `FLUSH_USERS` at most; `everything`: all that waits."""
        if everything:
            due, self.users = self.users, {}
            return due
        if self.is_holding(settings, now_s):
            return {}
        # In order of arrival, so what was owed first is due first.
        due = {}
        for user, waiting in self.users.items():
            if waiting.due_s <= now_s:
                due[user] = waiting
                if len(due) == FLUSH_USERS:
                    break
        for user in due:
            del self.users[user]
        return due


class Place(Protocol):
    """A partition of the events: its topic's identity, its number and what it owes."""

    topic_id: str
    number: int
    owed: Owed


@dataclass(frozen=True, slots=True)
class Due:
    """Rows of a round's users that are recommended to now, each with its cause; the first
    `fresh` of them are for newly applied events, whose keys are `event_keys`."""

    rows: Rows
    causes: list[Cause]
    event_keys: list[int]

    @property
    def fresh(self) -> int:
        return len(self.event_keys)


def choose(
    sources: Sequence[Place],
    columns: Columns,
    records: Records,
    applied: Applied,
    settings: ServingSettings,
    now_s: float,
) -> Due:
    """One recommendation per user and round, for its last event.

    `sources`: the partition of each of the columns' chunks.
    """
    batch, users, events = columns.batch, columns.users, columns.events
    source_of = columns.chunk_of_user
    is_holding = np.array([source.owed.is_holding(settings, now_s) for source in sources])

    def cause(kind: str, row: int, at: int, offset: int) -> Cause:
        source, event = sources[source_of[row]], events[at]
        return Cause(kind, event.event_id, source.topic_id, source.number, offset, event.ts)

    # The last applied event of each user: of several writes to one place, numpy keeps the last.
    last = np.full(len(users), -1, dtype=np.intp)
    last[batch.users[applied.applied]] = applied.applied
    moved = np.flatnonzero(last >= 0)
    moved = moved[np.argsort(last[moved])]  # in order of arrival: so they will be flushed
    due_s = records["emit_ms"][moved] / 1000.0 + settings.user_interval_s
    is_now = due_s <= now_s
    if is_holding.any():
        is_now &= ~is_holding[np.array(source_of)[moved]]
    waits, due_s = moved[~is_now], due_s[~is_now]
    for source, theirs in zip(sources, columns.slices, strict=True):
        own = (waits >= theirs.start) & (waits < theirs.stop)
        source.owed.users.update(_waiting(columns, waits[own], last[waits[own]], due_s[own]))
    owed = [source.owed.users for source in sources]
    rows = moved[is_now].tolist()
    keys = batch.event_keys[last[rows]].tolist()
    causes = []
    for row, at, offset in zip(
        rows, last[rows].tolist(), batch.offsets[last[rows]].tolist(), strict=True
    ):
        causes.append(cause("event", row, at, offset))
        owed[source_of[row]].pop(users[row], None)
    chosen = set(rows)
    for at in np.concatenate([applied.replayed, applied.repeated]).tolist():
        row = int(batch.users[at])
        again = int(batch.offsets[at]) == int(records["emit_offset"][row]) or int(
            batch.event_keys[at]
        ) == int(records["emit_event"][row])
        if again and row not in chosen:
            chosen.add(row)
            rows.append(row)
            causes.append(cause("replay", row, at, int(records["emit_offset"][row])))
    return Due(np.array(rows, dtype=np.intp), causes, keys)


def _waiting(
    columns: Columns, rows: Rows, at_of: Rows, due_s: npt.NDArray[np.float64]
) -> Iterator[tuple[bytes, Waiting]]:
    """Users and what they wait for.  Whole columns: a backlog makes one of these for every event.

    Shapes: rows, at_of (positions of the events that call for it), due_s (W,).
    """
    batch = columns.batch
    waiting = map(
        Waiting,
        due_s.tolist(),
        batch.offsets[at_of].tolist(),
        [columns.events[at].event_id for at in at_of.tolist()],
        batch.event_keys[at_of].tolist(),
        batch.ts[at_of].tolist(),
    )
    return zip(map(columns.users.__getitem__, rows.tolist()), waiting, strict=True)
