"""What users turn to lately, against what a release has learned of it: a lift of each item's score.

A release knows how often an item was taken when it was trained.  Between two releases the stream
knows more: a film that came out yesterday has no event behind it in the release and a hundred in
the stream.  Its share of the recent events is compared with the share that the release expects:

    lift_i = weight · ln((c_i + a_i) / (C p_i + a_i))     a_i = prior_events · p_i + LEAST_PRIOR
    p_i    = (n_i + 1) / (Σ n + N)                        n_i events that the release learned

c_i are the item's recent events and C is their sum, each worth half as much after `half_life_s`.
(c_i + a_i) / (C + a_i / p_i) is the mean of a gamma-Poisson model of the item's rate, whose prior
is the release's own view.  So the lift is nought without recent events, and fades by itself when
the next release has learned what it told.

An item that the release knows is lifted by `known_most` at most.  On MovieLens-100K that costs a
few thousandths, since what is known hardly moves, and it bounds what a crowd of accounts can do for
an item of its choice; an item that is new to the release may be lifted by `NEW_MOST`.

Counts decay by event time and forwards (Cormode, Shkapenyuk, Srivastava & Xu 2009, "Forward
decay"): an event that comes late, or is read again from a backlog, weighs what it would have
weighed in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from profiles.growing import with_room
from profiles.head import newness
from profiles.layers import Floats

if TYPE_CHECKING:
    from profiles.settings.serving import ServingSettings

LEAST_PRIOR = 0.3
"""Events that stand behind the prior of an item that nobody ever took: one user's visit to it must
not outshine what thousands like."""
NEW_MOST = 4.0
"""Most that an item without events in the release is lifted by: its odds are 55 times as good."""
TRENDING = 1.0
"""A lift from which on an item is said to trend: its odds are e times as good."""
FAR = 32.0
"""Half-lives from the landmark after which counts are moved to a later one."""

Ints = npt.NDArray[np.int64]
Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Trend:
    """How far scores follow the stream: `serving.trend_weight` and what goes with it."""

    weight: float
    half_life_s: float
    prior_events: float
    known_most: float

    @classmethod
    def of(cls, serving: ServingSettings) -> Trend:
        """As the settings want it."""
        return cls(
            serving.trend_weight,
            serving.trend_half_life_s,
            serving.trend_prior_events,
            serving.trend_known_most,
        )

    def lifts(self, recent: Doubles, learned: Floats) -> Floats:
        """What is added to each item's score.

        Shapes: recent (..., N) decayed counts, learned (N,) events that the release has learned
        -> (..., N), float32.
        """
        share = (learned + 1.0) / (float(learned.sum()) + max(len(learned), 1))
        prior = self.prior_events * share + LEAST_PRIOR
        expected = recent.sum(axis=-1, keepdims=True) * share
        lifts = self.weight * np.log((recent + prior) / (expected + prior))
        most = self.known_most + max(NEW_MOST - self.known_most, 0.0) * newness(learned)
        out: Floats = np.minimum(lifts, most).astype(np.float32)
        return out


class RecentCounts:
    """Decayed counts of events by row.  Rows only grow."""

    def __init__(self, half_life_s: float, rows: int = 0) -> None:
        self._half_life_s = half_life_s
        self._counts: Doubles = np.zeros(rows)
        self._rows = rows
        self._landmark_s = -np.inf
        self._now_s = -np.inf

    def __len__(self) -> int:
        return self._rows

    @property
    def now_s(self) -> float:
        """The latest event time noted, Unix seconds; -inf before the first."""
        return self._now_s

    def grow(self, rows: int) -> None:
        """There are so many rows now."""
        self._rows = max(rows, self._rows)
        self._counts = with_room(self._counts, rows)

    def note(self, rows: npt.NDArray[np.intp], ts: Doubles, counts: Doubles | float = 1.0) -> None:
        """Count events, or what they were worth at a time.

        Shapes: rows, counts (M,), ts (M,) Unix seconds, in any order.
        """
        if not len(rows):
            return
        self._now_s = max(self._now_s, float(ts.max()))
        since_s = self._now_s - self._landmark_s
        if since_s > FAR * self._half_life_s:
            self._counts *= np.exp2(-since_s / self._half_life_s)
            self._landmark_s = self._now_s
        worth = np.exp2((ts - self._landmark_s) / self._half_life_s)
        np.add.at(self._counts, rows, worth * counts)

    def take_back(self, rows: npt.NDArray[np.intp], ts: Doubles) -> None:
        """Events that are to count no more.  Shapes: rows (M,), each once, ts (M,)."""
        self.note(rows, ts, -1.0)
        self._counts[rows] = np.maximum(self._counts[rows], 0.0)

    def at(self, now_s: float) -> Doubles:
        """What the counts are worth at a time.  Shapes: -> (N,)."""
        counts = self._counts[: self._rows]
        if not np.isfinite(self._landmark_s):
            return counts.copy()
        out: Doubles = counts * np.exp2((self._landmark_s - now_s) / self._half_life_s)
        return out


@dataclass(frozen=True, slots=True)
class TrendLog:
    """A log of events, from which the lifts before any of them are worked out again: for
    evaluation, where a release ranks what was.

    Shapes: rows (E,) item of each event, in the order of the stream, -1 for one that does not
    count; ts (E,) Unix seconds; learned (N,) as in `Trend.lifts`.
    """

    trend: Trend
    rows: Ints
    ts: Doubles
    learned: Floats

    def before(self, places: Ints) -> Floats:
        """Lifts just before events of the log.  Shapes: places (M,) ascending -> (M, N)."""
        counts = RecentCounts(self.trend.half_life_s, len(self.learned))
        recent = np.zeros((len(places), len(self.learned)))
        done = 0
        for at, place in enumerate(places.tolist()):
            part = slice(done, place)
            counted = self.rows[part] >= 0
            counts.note(self.rows[part][counted], self.ts[part][counted])
            recent[at] = counts.at(self.ts[place])
            done = place
        return self.trend.lifts(recent, self.learned)
