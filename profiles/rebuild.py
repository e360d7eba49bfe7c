"""A profile made anew in another release's space, from its own bounded history.

At a swap no vector of the old space may survive: state and profile are recomputed from the
remembered events with the new head and the new item vectors.  It happens when a user is first
touched, and in a paced sweep for all others; both call this.
"""

from __future__ import annotations

import numpy as np

from profiles.catalog import Catalog, Rows
from profiles.history import read_history
from profiles.layers import Floats
from profiles.space import Space
from profiles.state import Records
from profiles.updater import Steps, advance_to_last, profile_at_start, start_state

SLICE = 64
"""Users rebuilt together.  Fewer cost more each, more gain nothing (256: the same within noise), so
a large round takes little memory."""


def rebuild(records: Records, rows: Rows, space: Space, catalog: Catalog) -> None:
    """Recompute state and profile of the given records, in place.

    Remembered events of items that the catalogue no longer has are passed over, and so are words
    that the profile has forgotten; those that it remembers must be in `space.texts`.
    """
    is_new = records["events"][rows] == 0
    new, rows = rows[is_new], rows[~is_new]
    if len(new):
        # Most of a young deployment's users: computed once, not once each.
        records["state"][new] = start_state(space.head, 1)
        records["profile"][new] = profile_at_start(space.head, 1)
        records["release"][new] = space.key
        records["revision"][new] += 1
    for start in range(0, len(rows), SLICE):
        part = rows[start : start + SLICE]
        state, profile = replay_history(records[part], space, catalog)
        records["state"][part] = state
        records["profile"][part] = profile
        records["release"][part] = space.key
        records["revision"][part] += 1


def replay_history(records: Records, space: Space, catalog: Catalog) -> tuple[Floats, Floats]:
    """State and profile that the remembered events make in this space.

    Shapes: records (B,) -> state (B, L, D), profile (B, D), float32.
    """
    users = len(records)
    history = read_history(records)
    state = start_state(space.head, users)
    if not history.mask.any() or not (len(space.known) or history.said.any()):
        return state, profile_at_start(space.head, users)
    item_rows = catalog.rows_of(history.items)
    mask = history.mask & (item_rows >= 0)
    if len(space.known):
        mask &= space.known[item_rows]
    spoken = history.said & (history.items != 0)
    mask |= spoken
    steps = Steps(
        items=space.picked(np.where(spoken, -1, item_rows.clip(0)), history.items),
        actions=history.actions,
        values=history.values,
        gaps_s=history.gaps_s,
    )
    state, profile = advance_to_last(space.head, state, steps, mask)
    if not (any_event := mask.any(axis=1)).all():
        profile[~any_event] = profile_at_start(space.head, 1)
    return state, profile
