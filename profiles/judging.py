"""Which events of a batch count: the one place that says no.

Exactly once, in effect: an event at or before the offset that a profile names was applied before
(a replay after a crash); an event whose id is in the profile's ring of recent ids was produced
twice.  Both are skipped here, and nowhere else.  Where the rate of a user's events is capped
(`profiles.rate_cap`), those beyond it are refused here: judged record by record, since one record
with words and an item is two events here, and by nothing but what profile and log say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.catalog import Rows
from profiles.layers import Floats
from profiles.rate_cap import RateCap
from profiles.state import Records


@dataclass(frozen=True, slots=True)
class Batch:
    """Valid events, those of each partition in offset order, as columns of M.

    `users` (M,) row of each event's user in the records; `item_rows` (M,) catalogue rows, -1 for
    words, whose vectors must be in `space.texts`; `event_keys`, `item_keys` (M,) 64-bit names of
    ids, and of words; `ts` (M,) Unix seconds; `values` 0 for none; `appended_ms` (M,) when the
    broker took each, Unix ms.  Events of one user at one offset are one record.
    """

    users: Rows
    offsets: npt.NDArray[np.int64]
    event_keys: npt.NDArray[np.uint64]
    item_rows: Rows
    item_keys: npt.NDArray[np.uint64]
    actions: npt.NDArray[np.int64]
    values: Floats
    ts: npt.NDArray[np.float64]
    appended_ms: npt.NDArray[np.int64]

    def take(self, where: Rows) -> Batch:
        """The same events, fewer."""
        return Batch(
            self.users[where],
            self.offsets[where],
            self.event_keys[where],
            self.item_rows[where],
            self.item_keys[where],
            self.actions[where],
            self.values[where],
            self.ts[where],
            self.appended_ms[where],
        )


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of a batch.  Shapes: replayed, repeated, refused (M,); used_until_us (B,)
    by user, afterwards, of the rate cap."""

    replayed: npt.NDArray[np.bool_]
    repeated: npt.NDArray[np.bool_]
    refused: npt.NDArray[np.bool_]
    used_until_us: npt.NDArray[np.int64]

    @property
    def applied(self) -> Rows:
        """Positions of the events that count."""
        return np.flatnonzero(~(self.replayed | self.repeated | self.refused))


def judge(records: Records, batch: Batch, topic_key: int, cap: RateCap | None) -> Verdict:
    """Which events count; changes nothing.  Arguments are those of `apply_batch`."""
    replayed = (records["topic"][batch.users] == np.uint64(topic_key)) & (
        batch.offsets <= records["offset"][batch.users]
    )
    count = len(batch.users)
    repeated, refused = np.zeros(count, dtype=np.bool_), np.zeros(count, dtype=np.bool_)
    verdict = Verdict(replayed, repeated, refused, records["used_until_us"].copy())
    twice = np.bincount(batch.users, minlength=len(records))[batch.users] > 1
    hit = np.zeros(count, dtype=np.bool_)
    at = np.flatnonzero(~replayed)
    recent = records["recent"][batch.users[at]]
    hit[at] = (recent == batch.event_keys[at, None]).any(axis=1)
    repeated[~twice] = hit[~twice]
    in_turn = ~replayed & twice
    if cap is None:
        # An id that is neither in its user's ring nor twice in the batch cannot be a repetition.
        in_turn &= _of_some(batch.users, hit | _twins(batch, in_turn), len(records))
    else:
        _charge(verdict, batch, np.flatnonzero(~replayed & ~twice & ~hit), cap)
    _judge_in_order(verdict, records, batch, np.flatnonzero(in_turn), cap)
    return verdict


def _twins(batch: Batch, among: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Which events of `among` have an id that occurs there again.  Shapes: (M,) -> (M,)."""
    at = np.flatnonzero(among)
    _, which, counts = np.unique(batch.event_keys[at], return_inverse=True, return_counts=True)
    found = np.zeros(len(among), dtype=np.bool_)
    found[at] = counts[which] > 1
    return found


def _of_some(users: Rows, marked: npt.NDArray[np.bool_], count: int) -> npt.NDArray[np.bool_]:
    """All events of the users who have one that is marked.  Shapes: users, marked (M,) -> (M,)."""
    of = np.zeros(count, dtype=np.bool_)
    of[users[marked]] = True
    found: npt.NDArray[np.bool_] = of[users]
    return found


def _charge(verdict: Verdict, batch: Batch, alone: Rows, cap: RateCap) -> None:
    """Judge events that are their users' only ones in the batch."""
    users = batch.users[alone]
    after = [
        cap.used_until_us(*known)
        for known in zip(
            verdict.used_until_us[users].tolist(), batch.appended_ms[alone].tolist(), strict=True
        )
    ]
    found = np.array(after, dtype=np.int64)
    verdict.refused[alone] = found == 0
    verdict.used_until_us[users[found > 0]] = found[found > 0]


def _judge_in_order(
    verdict: Verdict, records: Records, batch: Batch, rows: Rows, cap: RateCap | None
) -> None:
    """Several events of one user: the ring of ids moves between them, so they go one by one."""
    rings: dict[int, list[int]] = {}
    judged: dict[int, tuple[int, bool]] = {}
    size = records["recent"].shape[1]
    for at in rows.tolist():
        user, event_key = int(batch.users[at]), int(batch.event_keys[at])
        ring = rings.get(user)
        if ring is None:
            # Oldest first, as the ring will be overwritten.
            turn = int(records["events"][user]) % size
            stored = records["recent"][user].tolist()
            ring = rings[user] = [key for key in stored[turn:] + stored[:turn] if key]
        if event_key in ring[-size:]:
            verdict.repeated[at] = True
            continue
        if cap is not None:
            offset = int(batch.offsets[at])
            before, is_refused = judged.get(user, (-1, False))
            if offset != before:  # else the second event of one record goes the way of the first
                after_us = cap.used_until_us(
                    int(verdict.used_until_us[user]), int(batch.appended_ms[at])
                )
                is_refused = after_us == 0
                judged[user] = offset, is_refused
                if not is_refused:
                    verdict.used_until_us[user] = after_us
            if is_refused:
                verdict.refused[at] = True
                continue
        ring.append(event_key)
