"""From ranks to figures: HR@10 and NDCG@10 per slice, with bootstrap intervals by user.

Users are drawn with replacement, all events of a drawn user together, because events of one user
are not independent.  Every method is computed on the same draws, so that a ratio of two methods
has a paired interval.  With several seeds an event counts with its mean gain over the seeds: the
interval tells of users, the spread over seeds is told beside it.

A library (ranx) gives the same HR and NDCG and is too slow for a thousand draws of 40,000 events;
`tests/unit/test_offline_figures.py` holds the two together.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.offline.histories import Bools, Doubles, Histories, Ints
from benchmarks.offline.interactions import Interactions
from benchmarks.offline.protocols import Stage
from profiles.evaluation import gains
from profiles.positive import LOW_RATING

DRAWS = 1000
LEVEL = 0.95
COLD_ITEM_EVENTS = 5
SHORT_HISTORY_EVENTS = 5
K = 10


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure and the interval that holds it at `LEVEL`."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Figures:
    """One method on one slice.  `by_seed`: NDCG@10 of each seed."""

    events: int
    users: int
    hr: Interval
    ndcg: Interval
    by_seed: tuple[float, ...]


def slices(data: Interactions, stages: Sequence[Stage]) -> dict[str, Bools]:
    """Which of the asked events, stage after stage, belong to which slice.

    cold_items: the item has fewer than 5 events in the stage's fit; short_history: the user has
    at most 5 events before; new_users: none of them in the fit; liked: no rating of 1 or 2.
    """
    place = Histories(data.users).place
    asked = np.concatenate([stage.asked for stage in stages])
    cold, new = [], []
    for stage in stages:
        item_events = np.bincount(data.items[stage.fit], minlength=len(data.catalogue))
        user_events = np.bincount(data.users[stage.fit], minlength=len(data.user_ids))
        cold.append(item_events[data.items[stage.asked]] < COLD_ITEM_EVENTS)
        new.append(user_events[data.users[stage.asked]] == 0)
    return {
        "all": np.ones(len(asked), np.bool_),
        "cold_items": np.concatenate(cold),
        "short_history": place[asked] <= SHORT_HISTORY_EVENTS,
        "new_users": np.concatenate(new),
        "liked": ~(data.values[asked] <= LOW_RATING),
    }


class Draws:
    """How often each user was drawn in each bootstrap draw; the same for every method."""

    def __init__(self, users: Ints, seed: int, draws: int = DRAWS) -> None:
        self.users, self._row = np.unique(users, return_inverse=True)
        count = len(self.users)
        rng = np.random.default_rng(seed)
        self._times = np.zeros((draws, 0), np.int64)
        if count:
            self._times = rng.multinomial(count, np.full(count, 1.0 / count), size=draws)

    def means(self, values: Doubles) -> Doubles:
        """Mean over events in each draw.  Shapes: values (Q,) -> (draws,)."""
        count = len(self.users)
        sums = np.bincount(self._row, values, minlength=count)
        events = np.bincount(self._row, minlength=count)
        found: Doubles = (self._times @ sums) / np.maximum(self._times @ events, 1)
        return found

    def weights(self) -> Iterator[Ints]:
        """How often each event counts, draw by draw.  Shapes: (Q,) each."""
        for times in self._times:
            yield times[self._row]

    def interval(self, values: Doubles) -> Interval:
        """Mean of `values` (Q,) and its interval."""
        if not len(values):
            return Interval(0.0, 0.0, 0.0)
        return Interval(float(values.mean()), *ends(self.means(values)))

    def ratio(self, ours: Doubles, theirs: Doubles) -> Interval:
        """Mean of `ours` over mean of `theirs`, both (Q,), with the paired interval; infinite
        where theirs is nothing."""
        if not len(ours) or not theirs.any():
            return Interval(np.inf, 0.0, np.inf)
        below = self.means(theirs)
        quotient = np.where(below > 0, self.means(ours) / np.maximum(below, 1e-12), np.inf)
        return Interval(float(ours.mean() / theirs.mean()), *ends(quotient))


def seed_mean(ranks_by_seed: Sequence[Ints]) -> Doubles:
    """NDCG@10 of each event, averaged over seeds.  Shapes: (Q,) each -> (Q,)."""
    found: Doubles = np.mean([gains(ranks, K) for ranks in ranks_by_seed], axis=0)
    return found


def figures(ranks_by_seed: Sequence[Ints], members: Bools, draws: Draws) -> Figures:
    """One method on one slice; `draws` made from the users of exactly these events."""
    inside = [ranks[members] for ranks in ranks_by_seed]
    hits: Doubles = np.mean([(ranks > 0) & (ranks <= K) for ranks in inside], axis=0)
    return Figures(
        events=int(members.sum()),
        users=len(draws.users),
        hr=draws.interval(hits),
        ndcg=draws.interval(seed_mean(inside)),
        by_seed=tuple(float(gains(ranks, K).mean()) if len(ranks) else 0.0 for ranks in inside),
    )


def ends(draws: Doubles) -> tuple[float, float]:
    """The interval at `LEVEL` of a figure's draws."""
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
