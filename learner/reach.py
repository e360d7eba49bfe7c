"""Whom a release's recommendations reach: how much of the catalogue, and how much the popular part.

Each exam user is recommended to just before the first event asked about, as serving would.  From
the lists:

    coverage         share of the catalogue that is in any; grows with the users: compare one exam
    gini             how unevenly items are shown: 0 for evenly, near 1 for a few items only
    popularity_lift  mean log popularity of what is shown over that of what the users then took,
                     less one: above zero means that popular items are pushed

Source: Abdollahpouri et al. 2020, "The connection between popularity bias, calibration, and
fairness" (popularity lift); Fleder & Hosanagar 2009 (Gini coefficient of exposure).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learner.evaluation import Exam, Model
from learner.sampling import to_sequence
from profiles.evaluation import Ints, profiles_before
from profiles.layers import Floats

BLOCK_USERS = 64
K = 10


@dataclass(frozen=True, slots=True)
class Reach:
    """All zero where nobody was asked."""

    users: int
    coverage: float
    gini: float
    popularity_lift: float

    def figures(self, who: str) -> dict[str, float]:
        """Named for a manifest."""
        return {
            f"coverage_{who}": self.coverage,
            f"gini_{who}": self.gini,
            f"popularity_lift_{who}": self.popularity_lift,
        }


def reach(model: Model, exam: Exam, counts: Floats, *, exclude_seen: bool = True) -> Reach:
    """Recommend to every exam user once.

    Shapes: counts (N,): events behind each item, the popularity.
    """
    if not exam.segments:
        return Reach(0, 0.0, 0.0, 0.0)
    shown = np.concatenate(
        [
            _top(
                model,
                exam,
                range(start, min(start + BLOCK_USERS, len(exam.segments))),
                exclude_seen,
            )
            for start in range(0, len(exam.segments), BLOCK_USERS)
        ]
    )
    times = np.bincount(shown[shown >= 0], minlength=len(counts))
    taken = np.concatenate([rows[ask] for rows, ask in zip(exam.rows, exam.wanted, strict=True)])
    popularity = np.log1p(counts.astype(np.float64))
    shown_popularity = float((times * popularity).sum() / max(times.sum(), 1))
    taken_popularity = float(popularity[taken].mean())
    lift = shown_popularity / taken_popularity - 1.0 if taken_popularity > 0 else 0.0
    return Reach(len(exam.segments), float((times > 0).mean()), gini(times), lift)


def gini(times: npt.NDArray[np.int64]) -> float:
    """How unevenly a total is spread.  Shapes: (N,).

    >>> gini(np.array([1, 1, 1, 1])), gini(np.array([0, 0, 0, 4]))
    (0.0, 0.75)
    """
    total = float(times.sum())
    if total == 0:
        return 0.0
    n = len(times)
    rank = np.arange(1, n + 1)
    return float((2 * rank - n - 1) @ np.sort(times)) / (n * total)


def _top(model: Model, exam: Exam, users: range, exclude_seen: bool) -> Ints:
    """The K best items of each user before her first asked event.  Shapes: -> (B, K), -1: none."""
    sequences = [to_sequence(exam.segments[user], exam.rows[user]) for user in users]
    kept = [np.arange(len(sequence.items)) for sequence in sequences]
    before = profiles_before(model.head, model.vectors, sequences, kept)
    first = np.array([int(np.argmax(exam.wanted[user])) for user in users])
    profiles = before[np.arange(len(first)), first]
    scores = profiles @ model.vectors.T * model.head.score_scale[0] + model.bias
    if exclude_seen:
        for row, (sequence, upto) in enumerate(zip(sequences, first.tolist(), strict=True)):
            scores[row, sequence.items[:upto]] = -np.inf
    best = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return np.where(np.isfinite(np.take_along_axis(scores, best, axis=1)), best, -1)
