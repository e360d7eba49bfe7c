"""Most popular, and most popular in the last seven days.

In the streaming protocols both count every event as soon as it was ranked: a counter is the
cheapest of states, so it would be unfair to freeze it.  In leave-one-out they count what may be
learned from, the seven days before the event.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from benchmarks.offline.exchange import Settings, Task
from benchmarks.offline.histories import Floats, Histories, Ints
from benchmarks.offline.peers.fitting import Peer
from benchmarks.offline.ranking import Scorer

WEEK_S = 7 * 86_400.0
TIE_BREAK = 1e-6
"""Weight of all-time counts, to order items that nobody touched this week."""


def fit_popular(
    task: Task, histories: Histories, fit: Ints, settings: Settings, seed: int, cpu_s: float
) -> Scorer:
    """Events of each item, ever."""
    if task.split.protocol == "leave-one-out":
        counts = np.bincount(task.items[fit], minlength=task.n_items).astype(np.float32)
        return lambda rows: np.repeat(counts[None], len(rows), axis=0)
    return _counting(task, np.arange(len(task.users)), lambda ts: -np.inf)


def fit_popular_7_days(
    task: Task, histories: Histories, fit: Ints, settings: Settings, seed: int, cpu_s: float
) -> Scorer:
    """Events of each item in the seven days before, all-time counts behind."""
    one_out = task.split.protocol == "leave-one-out"
    known = fit if one_out else np.arange(len(task.users))
    recent = _counting(task, known, lambda ts: ts - WEEK_S)
    ever = fit_popular(task, histories, fit, settings, seed, cpu_s)
    return lambda rows: recent(rows) + np.float32(TIE_BREAK) * ever(rows)


def _counting(task: Task, known: Ints, since: Callable[[float], float]) -> Scorer:
    """Counts of `known` events before each row and not before `since` its time.

    Rows are asked in ascending order, so two ends move through the events once.
    """
    items, ts = task.items[known], task.ts[known]
    counts = np.zeros(task.n_items, np.float32)
    ends = [0, 0]

    def score(rows: Ints) -> Floats:
        found = np.empty((len(rows), task.n_items), np.float32)
        for place, row in enumerate(rows):
            newest = int(np.searchsorted(known, row))
            oldest = int(np.searchsorted(ts, since(float(task.ts[row]))))
            oldest = min(oldest, newest)
            np.add.at(counts, items[ends[1] : newest], 1.0)
            np.subtract.at(counts, items[ends[0] : oldest], 1.0)
            ends[:] = [max(oldest, ends[0]), max(newest, ends[1])]
            found[place] = counts
        return found

    return score


METHODS = {
    "popular": Peer(fit_popular, {}, {}),
    "popular_7_days": Peer(fit_popular_7_days, {}, {}),
}
