"""Do the users of a canary fare worse than the others?  From the workers' sums, at any time.

Two groups of users are no paired sample: they differ, and events of one user resemble each other.
So an arm's chance is estimated between its hash buckets of users, by the linearised variance of a
ratio of sums over clusters, and not between events; where few users carry an arm, it stays large.

With the difference theta = mean(candidate) - (1 - tolerance) * mean(rival) and its variance V, the
likelihood ratio of a normal mixture of effects, of standard deviation tau, against no effect is

    sqrt(V / (V + tau^2)) * exp(tau^2 * theta^2 / (2 V (V + tau^2)))

and exceeds 1/alpha with probability alpha at most, whenever one looks.
Sources: Johari, Pekelis & Walsh 2017, "Always valid inference" (mSPRT); Waudby-Smith et al. 2024,
"Time-uniform central limit theory" (why an estimated variance will do, in large samples);
Cochran 1977, section 6 and 9A (variance of a ratio over clusters).
"""

from __future__ import annotations

import math

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.notices import OutcomeCell
from profiles.rollout import BUCKETS

TAU = 0.03
"""Standard deviation of the effects that are looked for, in NDCG@10."""
LEAST_BUCKETS = 12
LEAST_EVENTS = 100
"""Below either, nothing is concluded: the variance is not known well enough."""

Floats = npt.NDArray[np.float64]


class Arm(msgspec.Struct):
    """Sums of one release's live outcomes by bucket of users; plain values, so it can be saved."""

    events: list[float] = msgspec.field(default_factory=lambda: [0.0] * BUCKETS)
    gain: list[float] = msgspec.field(default_factory=lambda: [0.0] * BUCKETS)
    hits: float = 0.0
    squared: float = 0.0

    def take(self, cells: list[OutcomeCell]) -> None:
        """Add a worker's window."""
        for cell in cells:
            self.events[cell.bucket % BUCKETS] += cell.events
            self.gain[cell.bucket % BUCKETS] += cell.gain
            self.hits += cell.hits
            self.squared += cell.squared

    def fade(self, most: float) -> None:
        """Keep about the `most` last events' weight: halve all sums when twice that is held."""
        if sum(self.events) > 2 * most:
            self.events = [value / 2 for value in self.events]
            self.gain = [value / 2 for value in self.gain]
            self.hits, self.squared = self.hits / 2, self.squared / 2

    @property
    def count(self) -> int:
        return int(sum(self.events))

    def mean(self) -> float:
        """NDCG@10."""
        return sum(self.gain) / max(sum(self.events), 1.0)

    def variance(self) -> float:
        """Of that mean, between buckets; infinite where it cannot be known.

        Never below what independent events would give.
        """
        events, gain = np.array(self.events), np.array(self.gain)
        used = int((events > 0).sum())
        total = float(events.sum())
        if used < LEAST_BUCKETS or total < LEAST_EVENTS:
            return math.inf
        mean = self.mean()
        between = float(((gain - mean * events) ** 2).sum()) / total**2 * used / (used - 1)
        within = max(self.squared / total - mean**2, 0.0) / total
        return max(between, within)


class Comparison(msgspec.Struct, frozen=True):
    """Log10 of the evidence, as in `betting.Betting`; 0 where nothing can be said."""

    harm: float
    no_harm: float


def compare(candidate: Arm, rival: Arm, tolerance: float) -> Comparison:
    """How sure it is that the candidate's users fare worse by more than the tolerance, or not."""
    variance = candidate.variance() + (1.0 - tolerance) ** 2 * rival.variance()
    theta = candidate.mean() - (1.0 - tolerance) * rival.mean()
    if not 0.0 < variance < math.inf:
        return Comparison(0.0, 0.0)
    wider = variance + TAU**2
    log_ratio = 0.5 * math.log(variance / wider) + TAU**2 * theta**2 / (2.0 * variance * wider)
    odds = log_ratio / math.log(10)
    return Comparison(odds if theta < 0 else 0.0, odds if theta > 0 else 0.0)
