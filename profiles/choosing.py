"""Which of a row's scores are the best, and how many are better than one: a pass over each row.

A catalogue's scores for one user are 40 KB or more, and what is asked of them is small.  Seen items
are left out on the way, by the Bloom filter (`profiles.state.was_seen`), so that nothing has to be
ranked again.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from profiles.catalog import Rows
from profiles.compiled import called_by_loops, compiled
from profiles.layers import Floats

BLOCK = 64
"""Scores that are only compared, in vector registers, where none is high enough."""


@called_by_loops
def _is_seen(seen: npt.NDArray[np.uint8], user: int, slots: Rows, row: int) -> bool:
    """Whether a user's filter names an item: all of its bits are set."""
    is_seen = True
    for h in range(slots.shape[1]):
        slot = slots[row, h]
        is_seen &= (seen[user, slot >> 3] >> (slot & 7)) & 1 == 1
    return is_seen


@compiled(
    "f4[:, ::1], b1[::1], u1[:, :], i8[:, ::1], b1, i8[:, ::1], f4[:, ::1]", writes="rows best"
)
def choose_best(
    scores: Floats,
    allowed: npt.NDArray[np.bool_],
    seen: npt.NDArray[np.uint8],
    slots: Rows,
    hides_seen: bool,
    rows: Rows,
    best: Floats,
) -> None:
    """Each row's best in order; `rows` come filled with -1 and `best` with -inf.

    Kept by insertion: after the first few blocks hardly a score is higher than the last of them.
    Shapes: scores (B, N), allowed (N,), seen (B, bytes) and slots (N, hashes) if `hides_seen`;
    rows and best (B, K), K > 0.
    """
    users, width = scores.shape
    k = rows.shape[1]
    for user in range(users):
        filled = 0
        least = np.float32(-np.inf)
        for start in range(0, width, BLOCK):
            if start + BLOCK <= width:
                higher = np.int32(0)  # as wide as a score: a register compares several
                for n in range(BLOCK):
                    higher |= np.int32(scores[user, start + n] > least)
                if not higher:
                    continue
            for row in range(start, min(start + BLOCK, width)):
                score = scores[user, row]
                if not score > least or not allowed[row]:
                    continue
                if hides_seen and _is_seen(seen, user, slots, row):
                    continue
                at = min(filled, k - 1)
                while at > 0 and best[user, at - 1] < score:
                    best[user, at], rows[user, at] = best[user, at - 1], rows[user, at - 1]
                    at -= 1
                best[user, at], rows[user, at] = score, row
                filled = min(filled + 1, k)
                if filled == k:
                    least = best[user, k - 1]


@compiled(
    "f4[:, ::1], b1[::1], u1[:, :], i8[:, ::1], i8[::1], i8[::1], i8[::1], i8[::1]",
    writes="ranks",
)
def count_better(
    scores: Floats,
    allowed: npt.NDArray[np.bool_],
    seen: npt.NDArray[np.uint8],
    slots: Rows,
    by_slot: Rows,
    starts: Rows,
    targets: Rows,
    ranks: npt.NDArray[np.int64],
) -> None:
    """How many allowed and unseen rows are at least as good as each user's target, without it.

    All are counted, less what the filters name of them: that is looked up from the bits that a
    filter has set, not item by item, since few items begin at any bit.  The newest rows, which are
    not sorted by their bits yet, are looked at one by one.
    Shapes: scores (B, N), allowed (N,), seen (B, bytes), slots (N, hashes), by_slot (M,), M <= N,
    and starts (bits + 1,) of `Space.rows_by_first_slot`, targets and ranks (B,).
    """
    users, width = scores.shape
    for user in range(users):
        target = targets[user]
        goal = scores[user, target] if allowed[target] else np.float32(-np.inf)
        better = 0
        for row in range(width):
            better += allowed[row] & (scores[user, row] >= goal)
        better -= allowed[target]
        for bit in range(8 * seen.shape[1]):
            if not (seen[user, bit >> 3] >> (bit & 7)) & 1:
                continue
            for at in range(starts[bit], starts[bit + 1]):
                row = by_slot[at]
                if row != target and allowed[row] and scores[user, row] >= goal:
                    better -= _is_seen(seen, user, slots, row)
        for row in range(len(by_slot), width):
            if row != target and allowed[row] and scores[user, row] >= goal:
                better -= _is_seen(seen, user, slots, row)
        ranks[user] = better
