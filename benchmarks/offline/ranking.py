"""Exact ranks of targets in full score rows: the one place where a rank is made.

As in `profiles.evaluation`: the whole catalogue, never a sample; what the user had before is left
out; a tie, or a score that is no number, counts against the target.  Imports numpy alone: the
peers' environment runs it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from benchmarks.offline.histories import Floats, Histories, Ints

Scorer = Callable[[Ints], Floats]
"""Rows of events -> scores (rows, N items) from what their users had done before them."""
ROWS_AT_ONCE = 512
"""512 x 100k items x 4 bytes are 200 MB."""


def ranks(scores: Floats, targets: Ints, seen: Sequence[Ints]) -> Ints:
    """Rank of each row's target, 1 is best.

    Shapes: scores (Q, N), overwritten; targets (Q,); seen: per row the items to leave out.

    >>> ranks(np.array([[3.0, 2.0, 2.0, 9.0]], np.float32), np.array([1]), [np.array([3])]).tolist()
    [3]
    """
    everyone = np.arange(len(targets))
    goals = scores[everyone, targets].copy()
    rows = np.repeat(everyone, [len(items) for items in seen])
    if len(rows):
        scores[rows, np.concatenate(seen)] = -np.inf
    found: Ints = np.maximum((~(scores < goals[:, None])).sum(axis=1), 1)
    return found


def rank_rows(score: Scorer, asked: Ints, items: Ints, histories: Histories) -> Ints:
    """Ranks of the asked events' items, scored a slice at a time.  Shapes: asked (Q,) -> (Q,)."""
    found = np.zeros(len(asked), np.int64)
    for start in range(0, len(asked), ROWS_AT_ONCE):
        rows = asked[start : start + ROWS_AT_ONCE]
        seen = [items[histories.before(int(row))] for row in rows]
        scores = np.array(score(rows), np.float32)
        found[start : start + len(rows)] = ranks(scores, items[rows], seen)
    return found
