"""How sure the first recommended item is right, and when a human should answer instead.

Three numbers of a release, fitted on what people accepted and rejected after they had said
something (learner/confidence.py).  They read two things off a ranked list: the score of the item
that stands first, and how far the best of the others stays behind.  A release that has none, for
want of evidence, is never sure: with `serving.hand_over_below` set, everything is handed over.
"""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.layers import Floats, sigmoid


class Confidence(msgspec.Struct, frozen=True):
    """Logistic regression: sigmoid(score · top + margin · (top - next) + intercept)."""

    score: float
    margin: float
    intercept: float

    def of(self, scores: Floats) -> Floats:
        """How sure each list's first item is right; 0 for an empty list.

        Shapes: scores (B, K) as listed, -inf where nothing is -> (B,), in [0, 1].

        >>> sure = Confidence(0.0, 2.0, 0.0)
        >>> sure.of(np.array([[3.0, 2.0], [3.0, 3.0]], np.float32)).round(3).tolist()
        [0.8809999823570251, 0.5]
        """
        top, margin = evidence(scores)
        found: Floats = sigmoid(
            np.float32(self.score) * top
            + np.float32(self.margin) * margin
            + np.float32(self.intercept)
        )
        return np.where(is_empty(scores), np.float32(0.0), found)


def evidence(scores: Floats) -> tuple[Floats, Floats]:
    """Score of the first item, and its lead over the best of the others.

    A list of one item has no lead: nothing says that others are worse.
    Shapes: (B, K) -> (B,), (B,); zeros for an empty list.
    """
    empty = is_empty(scores)
    if not scores.shape[1]:
        return np.zeros(len(scores), np.float32), np.zeros(len(scores), np.float32)
    top = np.where(empty, np.float32(0.0), scores[:, 0])
    others = scores[:, 1:].max(axis=1, initial=-np.inf)
    alone = ~np.isfinite(others)
    return top, np.where(
        empty | alone, np.float32(0.0), top - np.where(alone, np.float32(0.0), others)
    )


def is_empty(scores: Floats) -> npt.NDArray[np.bool_]:
    """Lists without a first item.  Shapes: (B, K) -> (B,), bool."""
    if not scores.shape[1]:
        return np.ones(len(scores), np.bool_)
    empty: npt.NDArray[np.bool_] = ~np.isfinite(scores[:, 0])
    return empty
