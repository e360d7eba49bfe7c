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
from profiles.head import Floats, Head
from profiles.said import step_vectors
from profiles.scoring import Ranked, flat_places
from profiles.space import Space
from profiles.state import Records, read_history
from profiles.updater import Steps, top_gates, top_inputs, top_profile

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
        step_vectors(space.vectors, space.texts, np.where(said, -1, past.clip(0)), keys),
        history.actions[:, -width:].take(order),
        history.values[:, -width:].take(order),
        history.gaps_s[:, -width:].take(order),
    )
    moved = records["profile"][:, None] - _profiles_without(
        space.head, records["state"][:, -1], steps, mask | said
    )
    # How much lower each item's score is without each event: (B, K, W).
    falls = np.matmul(space.vectors[ranked.rows], moved.transpose(0, 2, 1))
    falls *= mask[:, None]
    np.maximum(falls, 0.0, out=falls)
    falls /= np.maximum(falls.sum(axis=2, keepdims=True), 1e-9)
    columns = np.argsort(-falls, axis=2, kind="stable")[:, :, :count]
    named = past.take(columns + np.arange(users)[:, None, None] * width)
    return named, falls.take(flat_places(columns, width))


def _profiles_without(
    head: Head, stored: Floats, steps: Steps, mask: npt.NDArray[np.bool_]
) -> Floats:
    """Each user's profile without each event.  Shapes: stored (B, D), mask (B, W) -> (B, W, D)."""
    x, gaps = top_inputs(head, steps, mask)
    gate, candidate = top_gates(head, x, gaps)
    gate *= mask[..., None]
    kept = np.float32(1.0) - gate
    after = np.ones_like(kept)
    np.cumprod(kept[:, :0:-1], axis=1, out=after[:, -2::-1])
    brought = after * gate
    brought *= candidate
    held = stored.astype(np.float32)[:, None]
    without = held - np.cumsum(brought[:, ::-1], axis=1)[:, ::-1]
    without *= gate
    without /= np.maximum(kept, LEAST_KEPT)
    without -= brought
    without += held
    # The last event's own vector is part of the profile: without it, the one before's is.
    inputs = np.repeat(x[:, -1:], x.shape[1], axis=1)
    one_before = mask[:, -2, None] * x[:, -2] if x.shape[1] > 1 else np.zeros_like(x[:, -1])
    inputs[:, -1] = one_before
    return top_profile(head, inputs, without)
