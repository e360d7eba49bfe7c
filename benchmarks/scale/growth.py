"""Fitted exponents: cost ~ size ** exponent, a straight line between logarithms."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LINEAR = 1.1
"""A whole cost that grows with a larger exponent is worse than linear: a defect."""


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float | None:
    """Least-squares slope of log cost over log size; None for fewer than two sizes.

    >>> exponent([1, 10, 100], [3, 30, 300])
    1.0
    """
    if len(sizes) < 2 or min(costs) <= 0:
        return None
    return round(float(np.polyfit(np.log(sizes), np.log(costs), 1)[0]), 3)
