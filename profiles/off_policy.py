"""What would another policy have earned?  Estimated from what was shown, and with what probability.

Each logged slot has a reward r (1 if the user took the item), the probability p with which the
logging policy showed it, and q, with which the policy in question would have.  With w = q/p:

    IPS    sum(w r) / n          unbiased, but it varies wildly where p is small
    SNIPS  sum(w r) / sum(w)     slightly biased, never outside the rewards' range

Both need p > 0 wherever q > 0: what was never shown teaches nothing.
Source: Swaminathan & Joachims 2015, "The self-normalized estimator for counterfactual learning".
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """`value`: mean reward per slot; `standard_error` by the delta method; `effective`: how many
    unweighted slots would be as certain (Kish), a small part of `slots` where policies differ."""

    value: float
    standard_error: float
    slots: int
    effective: float


def snips(rewards: Floats, logged: Floats, target: Floats, clip: float = np.inf) -> Estimate:
    """Self-normalised estimate.  Shapes: all (n,); `clip` bounds the weights.

    >>> ones = np.ones(4)
    >>> snips(np.array([1.0, 0.0, 1.0, 0.0]), ones, ones).value
    0.5
    """
    weights = np.minimum(target / logged, clip)
    total = float(weights.sum())
    if total <= 0.0:
        return Estimate(0.0, float("inf"), len(rewards), 0.0)
    value = float((weights * rewards).sum()) / total
    error = float(np.sqrt((weights**2 * (rewards - value) ** 2).sum())) / total
    return Estimate(value, error, len(rewards), total**2 / float((weights**2).sum()))


def ips(rewards: Floats, logged: Floats, target: Floats) -> Estimate:
    """Unnormalised estimate.  Shapes: all (n,)."""
    n = len(rewards)
    if n == 0:
        return Estimate(0.0, float("inf"), 0, 0.0)
    weights = target / logged
    products = weights * rewards
    error = float(products.std(ddof=1)) / np.sqrt(n) if n > 1 else float("inf")
    squares = float((weights**2).sum())
    return Estimate(
        float(products.mean()), float(error), n, float(weights.sum()) ** 2 / max(squares, 1e-300)
    )
