"""A batch of events applied to a batch of profiles: the heart of the event path.

Pure and vectorised: it takes arrays and changes arrays.  Users are independent, so users with
about as many events as each other are advanced together, whole sequences at a time
(`updater.advance_all`); one user's events keep their order.

Which of them count is decided first, and elsewhere (`profiles.judging`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.catalog import Catalog, Rows
from profiles.judging import Batch, judge
from profiles.rate_cap import RateCap
from profiles.rebuild import rebuild
from profiles.scoring import unseen_ranks
from profiles.space import Space
from profiles.state import EVENT_DTYPE, SAID, Records, bloom_slots, mark_seen
from profiles.updater import Steps, advance_all

BUCKETS = (1, 4, 16, 64, 256, 1024, 1 << 30)
"""Users whose event counts fall in one bucket are padded to one length: at most fourfold."""


@dataclass(frozen=True, slots=True)
class Applied:
    """What became of a batch: positions in it.

    `applied` moved a profile; `replayed` were at or before the profile's offset; `repeated` had a
    recent event id; `refused` were beyond their user's rate.  `ranks` are the prequential ranks of
    the events in `ranked`, each taken before its event was applied (0 is best).
    """

    applied: Rows
    replayed: Rows
    repeated: Rows
    refused: Rows
    ranked: Rows
    ranks: npt.NDArray[np.int64]


def apply_batch(
    records: Records,
    batch: Batch,
    space: Space,
    catalog: Catalog,
    topic_key: int,
    prequential_share: float,
    cap: RateCap | None = None,
) -> Applied:
    """Apply a batch, in place.  Stale profiles are rebuilt first (first touch).

    Args:
        topic_key: `key64` of the input topic's identity; offsets of another topic do not compare.
        prequential_share: of the events, chosen by a hash of their id, how many are ranked.
        cap: of each user's rate.
    """
    verdict = judge(records, batch, topic_key, cap)
    applied = verdict.applied
    todo = batch.take(applied)
    # Position of every event among its user's events in this batch.
    order = np.argsort(todo.users, kind="stable")
    in_order = todo.users[order]
    first = np.flatnonzero(np.diff(in_order, prepend=-1))
    users, counts = in_order[first], np.diff(first, append=len(order))
    rebuild(records, users[records["release"][users] != space.key], space, catalog)
    chosen = (todo.event_keys >> np.uint64(11)).astype(np.float64) / 2.0**53 < prequential_share
    chosen &= todo.item_rows >= 0  # words are nothing to predict
    ranks = np.full(len(applied), -1, dtype=np.int64)
    lower = 0
    for upper in BUCKETS:
        members = np.flatnonzero((counts > lower) & (counts <= upper))
        lower = upper
        if not len(members):
            continue
        length = int(counts[members].max())
        columns = np.arange(length)
        mask = columns[None] < counts[members, None]
        at = order[np.where(mask, first[members, None] + columns[None], 0)]
        _advance_users(records, users[members], todo, at, mask, space, chosen, ranks)
    nth = np.empty(len(order), dtype=np.int64)
    nth[order] = np.arange(len(order)) - np.repeat(first, counts)
    _remember(records, todo, nth)
    records["offset"][users] = todo.offsets[order[first + counts - 1]]
    records["topic"][users] = np.uint64(topic_key)
    records["events"][users] += counts.astype(np.uint32)
    records["revision"][users] += counts.astype(np.uint32)
    records["used_until_us"][users] = 0 if cap is None else verdict.used_until_us[users]
    ranked = np.flatnonzero(ranks >= 0)
    return Applied(
        applied=applied,
        replayed=np.flatnonzero(verdict.replayed),
        repeated=np.flatnonzero(verdict.repeated),
        refused=np.flatnonzero(verdict.refused),
        ranked=applied[ranked],
        ranks=ranks[ranked],
    )


def _advance_users(
    records: Records,
    users: Rows,
    todo: Batch,
    at: Rows,
    mask: npt.NDArray[np.bool_],
    space: Space,
    chosen: npt.NDArray[np.bool_],
    ranks: npt.NDArray[np.int64],
) -> None:
    """Advance users with similarly many events.  Shapes: users (B,), at and mask (B, S)."""
    ts = todo.ts[at]
    before = np.empty_like(ts)
    before[:, 0] = np.where(records["events"][users] > 0, records["last_ts"][users], np.nan)
    before[:, 1:] = ts[:, :-1]
    steps = Steps(
        items=space.picked(todo.item_rows[at], todo.item_keys[at]),
        actions=todo.actions[at],
        values=todo.values[at],
        gaps_s=np.maximum(ts - before, 0.0),
    )
    held = records["state"][users].astype(np.float32, copy=False)
    state, trail = advance_all(space.head, held, steps, mask)
    row, column = np.nonzero(mask & chosen[at])
    if len(row):
        earlier = trail[row, column - 1]
        stored = records["profile"][users[row]].astype(np.float32, copy=False)
        profiles = np.where((column == 0)[:, None], stored, earlier)
        where = at[row, column]
        seen = records["seen"][users[row]]
        # What the user saw earlier in this batch counts as seen, too.
        which, step = np.nonzero(np.arange(mask.shape[1])[None] < column[:, None])
        met = at[row[which], step]
        which, met = which[todo.item_rows[met] >= 0], met[todo.item_rows[met] >= 0]
        mark_seen(seen, which, bloom_slots(todo.item_keys[met], seen.shape[1]))
        ranks[where] = unseen_ranks(profiles, seen, todo.item_rows[where], space.known, space)
    last = mask.sum(axis=1) - 1
    everyone = np.arange(len(users))
    # Rounded in one piece: numpy casts into a strided field several times more slowly.
    stored_as = records["state"].dtype
    records["state"][users] = state.astype(stored_as, copy=False)
    records["profile"][users] = trail[everyone, last].astype(stored_as, copy=False)
    records["last_ts"][users] = ts[everyone, last]


def _remember(records: Records, todo: Batch, nth: npt.NDArray[np.int64]) -> None:
    """Write history, recent ids and seen filter.

    Events stand in offset order; `nth` (M,) counts each event among its user's in this batch.
    """
    users = todo.users
    events = np.empty(len(users), dtype=EVENT_DTYPE)
    events["item"], events["ts"] = todo.item_keys, todo.ts
    words = todo.item_rows < 0
    events["action"], events["value"] = todo.actions | np.where(words, SAID, 0), todo.values
    number = records["events"][users].astype(np.int64) + nth
    # Where one slot is written twice, numpy keeps the later value: the later event.
    records["history"][users, number % records["history"].shape[1]] = events
    records["recent"][users, number % records["recent"].shape[1]] = todo.event_keys
    met = np.flatnonzero(~words)
    seen = records["seen"]
    mark_seen(seen, users[met], bloom_slots(todo.item_keys[met], seen.shape[1]))
