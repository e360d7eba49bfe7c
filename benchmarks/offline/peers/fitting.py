"""A peer as a function that fits and gives back a scorer; everything else is the same for all.

Every peer sees a user's history up to the moment of prediction, also what came after its fit.
A user without any history is given what is popular: libraries refuse such users, and an empty
list would flatter us.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from benchmarks.offline.exchange import Settings, Task
from benchmarks.offline.histories import Floats, Histories, Ints
from benchmarks.offline.protocols import Stage
from benchmarks.offline.ranking import Scorer, rank_rows
from benchmarks.offline.search import Space
from profiles.evaluation import gains

Fit = Callable[[Task, Histories, Ints, Settings, int, float], Scorer]
"""(task, histories, rows to fit on, settings, seed, CPU seconds) -> scorer."""
EVERYTHING = 1_000_000
"""A `last` setting that keeps whole histories."""


@dataclass(frozen=True, slots=True)
class Peer:
    """A method (see `benchmarks.offline.methods.Method`) made of one fit function."""

    fit: Fit
    first: Settings
    space: Space

    def evaluate(
        self, task: Task, settings: Settings, seed: int, cpu_s: float
    ) -> tuple[float, Settings]:
        ranks = play_stage(self.fit, task, task.split.validation, settings, seed, cpu_s)
        return float(gains(ranks).mean()), settings

    def play(self, task: Task, settings: Settings, seed: int, cpu_s: float) -> Ints:
        return np.concatenate(
            [
                play_stage(self.fit, task, stage, settings, seed, cpu_s)
                for stage in task.split.stages
            ]
        )


def play_stage(
    fit: Fit, task: Task, stage: Stage, settings: Settings, seed: int, cpu_s: float
) -> Ints:
    """Fit once and rank what the stage asks."""
    histories = Histories(task.users)
    score = fit(task, histories, stage.fit, settings, seed, cpu_s)
    served = popular_for_the_new(score, task, histories, stage.fit)
    return rank_rows(served, stage.asked, task.items, histories)


def popular_for_the_new(score: Scorer, task: Task, histories: Histories, fit: Ints) -> Scorer:
    """`score`, but users without history get the fit's event counts as scores."""
    counts = np.bincount(task.items[fit], minlength=task.n_items).astype(np.float32)

    def served(rows: Ints) -> Floats:
        scores = score(rows)
        scores[histories.place[rows] == 0] = counts
        return scores

    return served


def interactions_of(task: Task, fit: Ints) -> scipy.sparse.csr_matrix:
    """Who had what, as 0 and 1.  Shapes: -> (users, items), float32."""
    return _binary(task.users[fit], task.items[fit], task.n_users, task.n_items)


def histories_of(
    task: Task, histories: Histories, rows: Ints, last: int
) -> scipy.sparse.csr_matrix:
    """The last `last` events before each row, as 0 and 1.  Shapes: -> (rows, items), float32."""
    before = [task.items[histories.before(int(row), last)] for row in rows]
    places = np.repeat(np.arange(len(rows)), [len(items) for items in before])
    return _binary(places, np.concatenate(before), len(rows), task.n_items)


def _binary(rows: Ints, columns: Ints, height: int, width: int) -> scipy.sparse.csr_matrix:
    made = scipy.sparse.csr_matrix(
        (np.ones(len(rows), np.float32), (rows, columns)), shape=(height, width)
    )
    made.data[:] = 1.0  # a repeat was summed
    return made
