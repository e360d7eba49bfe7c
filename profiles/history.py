"""The remembered events of profiles, oldest first: the rings of a batch of records, unrolled."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.compiled import compiled
from profiles.state import SAID, Records


@dataclass(frozen=True, slots=True)
class History:
    """The remembered events of B users, oldest first, padded on the left.

    Shapes: all (B, S) with S the longest history among them; `mask` marks real events.
    `gaps_s` is NaN for a user's very first event, and for the oldest one remembered, whose
    predecessor is gone.  `said` marks words; their `items` are keys of texts.
    """

    items: npt.NDArray[np.uint64]
    ts: npt.NDArray[np.float64]
    gaps_s: npt.NDArray[np.float64]
    actions: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    said: npt.NDArray[np.bool_]


def read_history(records: Records, newest: int | None = None) -> History:
    """Unroll the rings of a batch of profiles; `newest`: only so many events of each."""
    ring = records["history"]
    events = records["events"].astype(np.int64)
    kept = np.minimum(events, ring.shape[1])
    if newest is not None:
        kept = np.minimum(kept, newest)
    shape = len(records), int(kept.max(initial=0))
    found = History(
        items=np.zeros(shape, np.uint64),
        ts=np.zeros(shape),
        gaps_s=np.full(shape, np.nan),
        actions=np.zeros(shape, np.int64),
        values=np.zeros(shape, np.float32),
        mask=np.zeros(shape, np.bool_),
        said=np.zeros(shape, np.bool_),
    )
    _unroll(
        # Fields lie unaligned, which numpy can read.
        np.ascontiguousarray(ring["item"]),
        np.ascontiguousarray(ring["ts"]),
        np.ascontiguousarray(ring["action"]),
        ring["value"].astype(np.float32),
        events,
        kept,
        found.items,
        found.ts,
        found.gaps_s,
        found.actions,
        found.values,
        found.mask,
        found.said,
    )
    return found


@compiled(
    "u8[:, ::1], f8[:, ::1], u1[:, ::1], f4[:, ::1], i8[::1], i8[::1], "
    "u8[:, ::1], f8[:, ::1], f8[:, ::1], i8[:, ::1], f4[:, ::1], b1[:, ::1], b1[:, ::1]",
    writes="items ts gaps_s actions values mask said",
)
def _unroll(
    ring_items: npt.NDArray[np.uint64],
    ring_ts: npt.NDArray[np.float64],
    ring_actions: npt.NDArray[np.uint8],
    ring_values: npt.NDArray[np.float32],
    events: npt.NDArray[np.int64],
    kept: npt.NDArray[np.int64],
    items: npt.NDArray[np.uint64],
    ts: npt.NDArray[np.float64],
    gaps_s: npt.NDArray[np.float64],
    actions: npt.NDArray[np.int64],
    values: npt.NDArray[np.float32],
    mask: npt.NDArray[np.bool_],
    said: npt.NDArray[np.bool_],
) -> None:
    users, size = ring_items.shape
    longest = items.shape[1]
    for user in range(users):
        # The last column is the last event.
        slot = (events[user] - kept[user]) % size
        for at in range(longest - kept[user], longest):
            items[user, at] = ring_items[user, slot]
            ts[user, at] = ring_ts[user, slot]
            actions[user, at] = ring_actions[user, slot] & (SAID - 1)
            values[user, at] = ring_values[user, slot]
            mask[user, at] = True
            said[user, at] = ring_actions[user, slot] >= SAID
            if at > longest - kept[user]:
                gaps_s[user, at] = max(ts[user, at] - ts[user, at - 1], 0.0)
            slot += 1
            if slot == size:
                slot = 0
