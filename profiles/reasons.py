"""Why an item is recommended: which remembered events raise its score, and by what share.

An event's share is what the score would lose without it.  No counterfactual history is replayed
for that: the recurrence is linear in its state, so one event can be taken out of the state that is
stored,

    h without j = h - P_j z_j c_j + R_j z_j / (1 - z_j)
    R_j = h - sum over i >= j of P_i z_i c_i

where P_j is the product of (1 - z) after j and R_j what is left of all that came before it; the
block's output and the scores are then computed anew.  Only the `WINDOW` newest events are looked
at, so the price does not grow with the history.  Left out: that the gap before the next event
would be longer, and, with several blocks, that the lower ones would have said something else.

What surprised us: the closeness of item vectors, the usual explanation, named events whose removal
mattered more than that of random ones in 89% of cases; this does in 99% (bench_reasons).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from profiles.catalog import Catalog, Rows
from profiles.compiled import compiled
from profiles.head import Head
from profiles.history import read_history
from profiles.layers import Floats
from profiles.scoring import Ranked, flat_places
from profiles.space import Space
from profiles.state import Records
from profiles.updater import Steps, top_profile, top_steps

WINDOW = 8
LEAST_KEPT = np.float32(0.02)
"""Bound of 1 - z below: what a gate has let through entirely, no division brings back."""


def event_shares(
    records: Records, ranked: Ranked, space: Space, catalog: Catalog, reasons: int
) -> tuple[Rows, Floats]:
    """The events that carry each recommended item most, and their shares.

    The share is of all that the events of the window add; one that lowers the score has none.
    Shapes: records (B,), ranked (B, K) -> past (B, K, R) catalogue rows, shares (B, K, R), best
    first, share 0 where there is none.
    """
    users, k = ranked.rows.shape
    history = read_history(records, WINDOW + 1)
    width = min(history.items.shape[1], WINDOW)
    count = min(reasons, width)
    if count == 0 or users == 0 or not len(space.known):
        return np.zeros((users, k, 0), np.intp), np.zeros((users, k, 0), np.float32)
    past = catalog.rows_of(history.items[:, -width:])
    mask = history.mask[:, -width:] & (past >= 0)
    mask &= space.known[past]
    # Words moved the profile, too, and are never named.
    keys = history.items[:, -width:]
    said = history.said[:, -width:]
    if said.any():
        said = said & space.texts.holds(keys)
    # What the model passes over stands before what it reads: the last column is the last event.
    order = flat_places(np.argsort(mask | said, axis=1, kind="stable"), width)
    past, mask = past.take(order), mask.take(order)
    said, keys = said.take(order), keys.take(order)
    steps = Steps(
        space.picked(np.where(said, -1, past.clip(0)), keys),
        history.actions[:, -width:].take(order),
        history.values[:, -width:].take(order),
        history.gaps_s[:, -width:].take(order),
    )
    without = _profiles_without(space.head, records["state"][:, -1], steps, mask | said)
    named = np.zeros((users, k, count), np.intp)
    shares = np.zeros((users, k, count), np.float32)
    _share_out(
        space.vectors,
        np.ascontiguousarray(ranked.rows),
        records["profile"].astype(np.float32),
        without,
        mask,
        past,
        named,
        shares,
    )
    return named, shares


def _profiles_without(
    head: Head, stored: Floats, steps: Steps, mask: npt.NDArray[np.bool_]
) -> Floats:
    """Each user's profile without each event.  Shapes: stored (B, D), mask (B, W) -> (B, W, D)."""
    x, mixed = top_steps(head, steps, mask)
    without = np.empty_like(x)
    _take_out(mixed, stored.astype(np.float32), mask, without)
    # The last event's own vector is part of the profile: without it, the one before's is.
    inputs = np.repeat(x[:, -1:], x.shape[1], axis=1)
    one_before = mask[:, -2, None] * x[:, -2] if x.shape[1] > 1 else np.zeros_like(x[:, -1])
    inputs[:, -1] = one_before
    return top_profile(head, inputs, without)


@compiled("f4[:, :, ::1], f4[:, ::1], b1[:, ::1], f4[:, :, ::1]", writes="without")
def _take_out(mixed: Floats, held: Floats, mask: npt.NDArray[np.bool_], without: Floats) -> None:
    """States without each event.  Shapes: mixed (B, W, 2 D), held (B, D) -> without (B, W, D)."""
    users, width, dim = without.shape
    after = np.empty(dim, np.float32)
    brought_since = np.empty(dim, np.float32)
    for user in range(users):
        after[:] = 1.0
        brought_since[:] = 0.0
        for event in range(width - 1, -1, -1):
            for d in range(dim):
                without[user, event, d] = held[user, d]
            if not mask[user, event]:
                continue
            for d in range(dim):
                gate = mixed[user, event, d]
                kept = np.float32(1.0) - gate
                brought = after[d] * gate * mixed[user, event, dim + d]
                brought_since[d] += brought
                rest = held[user, d] - brought_since[d]
                without[user, event, d] += rest * gate / max(kept, LEAST_KEPT) - brought
                after[d] *= kept


@compiled(
    "f4[:, ::1], i8[:, ::1], f4[:, ::1], f4[:, :, ::1], b1[:, ::1], i8[:, ::1], i8[:, :, ::1], "
    "f4[:, :, ::1]",
    writes="named shares",
    any_order=True,
)
def _share_out(
    vectors: Floats,
    ranked: Rows,
    profile: Floats,
    without: Floats,
    mask: npt.NDArray[np.bool_],
    past: Rows,
    named: Rows,
    shares: Floats,
) -> None:
    """How much lower each item's score is without each event, as shares of all that it falls."""
    users, width, dim = without.shape
    falls = np.empty(width, np.float32)
    for user in range(users):
        for place in range(ranked.shape[1]):
            item = ranked[user, place]
            if item < 0:
                continue
            total = np.float32(1e-9)
            for event in range(width):
                fall = np.float32(0.0)
                if mask[user, event]:
                    for d in range(dim):
                        fall += vectors[item, d] * (profile[user, d] - without[user, event, d])
                falls[event] = max(fall, np.float32(0.0))
                total += falls[event]
            for at in range(named.shape[2]):
                best = 0
                for event in range(1, width):
                    if falls[event] > falls[best]:
                        best = event
                named[user, place, at] = past[user, best]
                shares[user, place, at] = falls[best] / total
                falls[best] = -1.0
