"""Profiles recomputed along stretches of a user's events: many stretches in one matrix product.

A stretch begins where vectors were made anew (a first event, or a rebuild from the last H events
after a swap) and goes on for as long as one release served that user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from profiles.layers import Floats
from profiles.updater import Steps, advance_all, profile_at_start, start_state
from stream.oracle.ledger import Ints, Ledger
from stream.oracle.models import Model

CELLS = 20_000
"""Events in one block: its arrays (20k x 64 x 4 bytes are 5 MB) should stay in cache."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Events `begin` to `end` (numbers among the user's own) under one release.

    `start`: the state before them, None where it is the empty one; `without`: numbers of words
    that were forgotten before the profile was made anew.
    """

    user: int
    begin: int
    end: int
    start: Floats | None = None
    without: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Walked:
    """A block of stretches, walked.

    Shapes: which (B,) indexes into the stretches; final (B, L, D) states at the ends; before
    (B, D) profiles before the first event; trail (B, S, D) profiles after each.
    """

    which: Ints
    final: Floats
    before: Floats
    trail: Floats


def walk(model: Model, ledger: Ledger, stretches: Sequence[Stretch]) -> Iterator[Walked]:
    """All stretches, shortest first, in blocks of about `CELLS` events."""
    lengths = np.array([stretch.end - stretch.begin for stretch in stretches], dtype=np.int64)
    order = np.argsort(lengths, kind="stable")
    at = 0
    while at < len(order):
        size = 1
        while at + size < len(order) and (size + 1) * max(lengths[order[at + size]], 1) <= CELLS:
            size += 1
        which = order[at : at + size]
        yield _walk_block(model, ledger, [stretches[i] for i in which], which)
        at += size


def _walk_block(model: Model, ledger: Ledger, block: Sequence[Stretch], which: Ints) -> Walked:
    first = np.array([ledger.first[stretch.user] + stretch.begin for stretch in block])
    lengths = np.array([stretch.end - stretch.begin for stretch in block])
    columns = np.arange(max(int(lengths.max()), 1))
    mask = columns[None] < lengths[:, None]
    rows = np.where(mask, first[:, None] + columns[None], 0)
    ts = ledger.ts[rows] if len(ledger.ts) else np.zeros(rows.shape)
    gaps = np.full(ts.shape, np.nan)
    gaps[:, 1:] = np.maximum(ts[:, 1:] - ts[:, :-1], 0.0)
    state = start_state(model.head, len(block))
    for row, stretch in enumerate(block):
        mask[row, [number - stretch.begin for number in stretch.without]] = False
        if stretch.start is not None:
            state[row] = stretch.start
            if stretch.begin and mask[row, 0]:
                gaps[row, 0] = max(ts[row, 0] - ledger.ts[first[row] - 1], 0.0)
    before = profile_at_start(model.head, len(block))
    if not mask.any():
        return Walked(which, state, before, before[:, None])
    steps = Steps(model.read[ledger.items[rows]], ledger.actions[rows], ledger.values[rows], gaps)
    final, trail = advance_all(model.head, state, steps, mask)
    return Walked(which, final, before, trail)
