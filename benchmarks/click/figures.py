"""Log loss, AUC and calibration error of predicted probabilities, with bootstrap intervals by user.

Users are drawn with replacement, all their events together (`benchmarks.offline.figures.Draws`);
every method on the same draws, so that a difference of two has a paired interval.  The calibration
error of a draw is biased upwards, as is that of any sample: bins are never exactly as predicted.
Its interval may therefore lie above its figure.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from benchmarks.harness import Result
from benchmarks.offline.figures import Draws, Interval, ends
from benchmarks.offline.histories import Bools, Doubles, Ints
from learner.calibration import BINS

FIGURES = ("log_loss", "auc", "ece")


@dataclass(frozen=True)
class Asked:
    """Predictions of one method.  Shapes: chance, is_liked (n,)."""

    chance: Doubles
    is_liked: Bools

    def figures(self, weights: Ints | Doubles) -> tuple[float, float, float]:
        """`FIGURES`, each event counted `weights` (n,) times.

        >>> asked = Asked(np.array([0.1, 0.9]), np.array([False, True]))
        >>> [round(value, 3) for value in asked.figures(np.ones(2))]
        [0.105, 1.0, 0.1]
        """
        return self._log_loss(weights), self._auc(weights), self._ece(weights)

    @cached_property
    def _level(self) -> Ints:
        """Number of each distinct probability, ascending: sorted once, not in each draw."""
        _, level = np.unique(self.chance, return_inverse=True)
        return level.astype(np.int64)

    def _log_loss(self, weights: Ints | Doubles) -> float:
        chance = np.clip(self.chance, 1e-7, 1.0 - 1e-7)
        losses = -np.log(np.where(self.is_liked, chance, 1.0 - chance))
        return float((weights * losses).sum() / weights.sum())

    def _auc(self, weights: Ints | Doubles) -> float:
        """Ties count half; 0.5 where there is no pair."""
        liked = np.bincount(self._level, weights * self.is_liked)
        others = np.bincount(self._level, weights * ~self.is_liked)
        pairs = liked.sum() * others.sum()
        won = (liked * (np.cumsum(others) - others / 2.0)).sum()
        return float(won / pairs) if pairs else 0.5

    def _ece(self, weights: Ints | Doubles) -> float:
        """Ten bins of equal width, as in `learner.calibration`."""
        place = np.minimum((self.chance * BINS).astype(np.int64), BINS - 1)
        gap = np.bincount(place, weights * (self.chance - self.is_liked), BINS)
        return float(np.abs(gap).sum() / weights.sum())


def compare(asked: Mapping[str, Asked], users: Ints, seed: int, draws: int) -> Result:
    """Every method's figures, and those of the first less each other's.

    Args:
        users: whose event each is, (n,).
    Returns: {"methods": {name: {figure: interval}}, "first_less": {name: {figure: interval}}}.
    """
    drawn = Draws(users, seed, draws)
    points = {name: np.array(one.figures(np.ones(len(users)))) for name, one in asked.items()}
    samples = {
        name: np.array([one.figures(weights) for weights in drawn.weights()])
        for name, one in asked.items()
    }
    first, *others = asked
    return {
        "events": len(users),
        "users": len(drawn.users),
        "liked": round(float(asked[first].is_liked.mean()), 5),
        "methods": {name: _told(points[name], samples[name]) for name in asked},
        "first_less": {
            name: _told(points[first] - points[name], samples[first] - samples[name])
            for name in others
        },
    }


def _told(points: Doubles, samples: Doubles) -> Result:
    return {
        figure: {
            name: round(value, 5)
            for name, value in asdict(Interval(float(points[at]), *ends(samples[:, at]))).items()
        }
        for at, figure in enumerate(FIGURES)
    }
