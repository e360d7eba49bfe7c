"""What each user had done before each event, by slices of one sorted array.

Imports numpy alone: the peers' environment runs it too.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]


class Histories:
    """Rows of events grouped by user, each group in the order of the rows.

    `place` (N,): how many events the user of each row had before it.
    """

    def __init__(self, users: Ints) -> None:
        self._order: Ints = np.argsort(users, kind="stable")
        grouped = users[self._order]
        starts = np.searchsorted(grouped, grouped)
        self._start: Ints = np.empty(len(users), np.int64)
        self.place: Ints = np.empty(len(users), np.int64)
        self._start[self._order] = starts
        self.place[self._order] = np.arange(len(users)) - starts

    def before(self, row: int, last: int | None = None) -> Ints:
        """Rows of the same user before `row`, oldest first; at most the `last` ones.

        >>> Histories(np.array([0, 1, 0, 0])).before(3).tolist()
        [0, 2]
        """
        begin, count = int(self._start[row]), int(self.place[row])
        kept = count if last is None else min(count, last)
        return self._order[begin + count - kept : begin + count]


def first_times(users: Ints, items: Ints) -> Bools:
    """Which events are the first of their user with their item.  Shapes: (N,), (N,) -> (N,).

    >>> first_times(np.array([0, 0, 0]), np.array([4, 5, 4])).tolist()
    [True, True, False]
    """
    pairs = np.stack([users, items], axis=1)
    first = np.zeros(len(users), np.bool_)
    first[np.unique(pairs, axis=0, return_index=True)[1]] = True
    return first
