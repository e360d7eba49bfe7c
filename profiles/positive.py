"""Which events say that a user wants an item: the one place that tells a liking from a dislike.

The learner predicts such events, and trends (`profiles.trend`) count them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from profiles.layers import Floats

LOW_RATING = 2.0
"""Ratings up to this are dislikes."""

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


def rate_action(names: Sequence[str]) -> int:
    """The number of the action whose value is a rating, -1 where there is none.

    >>> rate_action(["click", "rate"]), rate_action(["click"])
    (1, -1)
    """
    return names.index("rate") if "rate" in names else -1


def target_weights(
    weights_by_action: Floats, rate_number: int, actions: Ints, values: Floats
) -> Floats:
    """How much each event counts as something to predict.

    `weights_by_action` (A,) are the settings' weights; `rate_number` is `rate_action`'s.
    Shapes: actions (n,), values (n,) -> (n,), float32, never negative.

    >>> target_weights(np.array([1.0, -1.0], np.float32), 0, np.array([0, 0, 1]),
    ...                np.array([5.0, 2.0, 0.0], np.float32)).tolist()
    [1.0, 0.0, 0.0]
    """
    weights = np.maximum(weights_by_action, 0.0)[actions]
    low = is_low_rating(rate_number, actions, values)
    return np.where(low, 0.0, weights).astype(np.float32)


def is_low_rating(rate_number: int, actions: Ints, values: Floats) -> Bools:
    """Ratings that are a dislike.  Shapes: (n,) -> (n,)."""
    low: Bools = (actions == rate_number) & (values > 0) & (values <= LOW_RATING)
    return low
