"""Is one release worse than another on the same events?  A test that may be looked at any time.

Each event gives y = g(candidate) - (1 - tolerance) * g(rival), with g the NDCG@10 of the event
under either release, in [0, 1].  A gambler who bets the fraction b of her money on y has
money * (1 + b*y) afterwards.  If y is not positive on average, no bet makes money in expectation,
so by Ville's inequality she ever multiplies it by 1/alpha with probability alpha at most: a
capital of 1/alpha shows that the candidate is *not worse* by more than the tolerance, however
often one looked.  A second gambler bets on -y and shows *harm*.  Both spread their money over a
grid of constant bets, which loses at most a factor of the grid's size against the best of them.

Source: Waudby-Smith & Ramdas 2024, "Estimating means of bounded random variables by betting",
JRSS-B 86(1).  What it assumes: a null of no positive conditional mean, which holds for users who
come in random order; a user's own taste for one release is chance to it.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

BETS = tuple(0.9 * 0.5**k for k in range(9))
"""Fractions of the capital: 0.9 to 0.0035.  Below 1, so that no single event ruins a gambler."""


class Betting(msgspec.Struct):
    """Two gamblers' purses and the sums of what they saw; plain values, so it can be saved.

    `log_no_harm`, `log_harm`: natural log of the capital behind each bet.
    """

    tolerance: float
    log_no_harm: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(BETS))
    log_harm: list[float] = msgspec.field(default_factory=lambda: [0.0] * len(BETS))
    events: int = 0
    candidate: float = 0.0
    rival: float = 0.0

    def take(self, candidate: npt.NDArray[np.float64], rival: npt.NDArray[np.float64]) -> None:
        """Bet on some more events.  Shapes: both (n,), NDCG@10 of each event, in [0, 1]."""
        y = candidate - (1.0 - self.tolerance) * rival
        bets = np.array(BETS)[:, None]
        self.log_no_harm = (np.array(self.log_no_harm) + np.log1p(bets * y).sum(axis=1)).tolist()
        self.log_harm = (np.array(self.log_harm) + np.log1p(-bets * y).sum(axis=1)).tolist()
        self.events += len(y)
        self.candidate += float(candidate.sum())
        self.rival += float(rival.sum())

    @property
    def no_harm(self) -> float:
        """Log10 of the evidence that the candidate is not worse by more than the tolerance."""
        return _log10_mean(self.log_no_harm)

    @property
    def harm(self) -> float:
        """Log10 of the evidence that it is."""
        return _log10_mean(self.log_harm)

    def means(self) -> tuple[float, float]:
        """NDCG@10 of candidate and rival."""
        return self.candidate / max(self.events, 1), self.rival / max(self.events, 1)


def _log10_mean(logs: list[float]) -> float:
    """Log10 of the mean of exp(logs).

    >>> round(_log10_mean([0.0, 0.0]), 6)
    0.0
    """
    top = max(logs)
    return (top + math.log(sum(math.exp(value - top) for value in logs) / len(logs))) / math.log(10)
