"""Showing, now and then, what is not thought best, so that one can learn what would have happened.

The slots of a recommendation are filled one after another from a pool of the best-ranked items:

    epsilon    with probability 1 - epsilon the best item left, else any of those left, evenly
    boltzmann  an item left, with probability proportional to exp(score / temperature)
    uncertain  as epsilon, but the others by what there is to learn of them: in proportion to
               1 / sqrt(1 + n), n being the events behind an item

The propensity of a slot is the probability with which the policy put just this item there, given
the slots above it: that is what an off-policy estimate divides by (`profiles.off_policy`).  The
draw is a hash of the recommendation's own name, so one that is sent again is the same.

Sources: the standard error of what n events tell falls with 1 / sqrt(n), the bonus of count-based
exploration (Strehl & Littman 2008; Bellemare et al. 2016, arXiv:1606.01868).  Boltzmann slots are a
Plackett-Luce ranking; as a logging policy in Swaminathan et al. 2017, "Off-policy evaluation for
slate recommendation".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from profiles.catalog import Rows
from profiles.scoring import Ranked

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Policy:
    """How slots are filled.  `kind` off: always the best item left."""

    kind: Literal["off", "epsilon", "boltzmann", "uncertain"] = "off"
    epsilon: float = 0.0
    temperature: float = 1.0

    def probabilities(
        self,
        scores: npt.NDArray[np.floating],
        free: npt.NDArray[np.bool_],
        counts: npt.NDArray[np.floating] | None = None,
    ) -> Probabilities:
        """Of each item of the pool for the next slot; rows without a free item are all zero.

        `counts`: events behind each item, for `uncertain`.
        Shapes: scores, free, counts (B, P) -> (B, P).

        >>> policy = Policy("epsilon", epsilon=0.3)
        >>> policy.probabilities(np.array([[3.0, 2.0, 1.0]]), np.array([[False, True, True]]))
        array([[0.  , 0.85, 0.15]])
        """
        open_scores = np.where(free, scores, -np.inf).astype(np.float64)
        best = open_scores.max(axis=1, keepdims=True, initial=-np.inf)
        usable = free & np.isfinite(best)
        if self.kind == "boltzmann":
            top = np.where(np.isfinite(best), best, 0.0)
            weights: Probabilities = np.exp((open_scores - top) / self.temperature)
            chances: Probabilities = weights / np.maximum(
                weights.sum(axis=1, keepdims=True), 1e-300
            )
            return chances
        first = np.zeros_like(usable)
        rows = np.flatnonzero(usable.any(axis=1))
        first[rows, open_scores[rows].argmax(axis=1)] = True
        epsilon = self.epsilon if self.kind in ("epsilon", "uncertain") else 0.0
        to_learn = usable.astype(np.float64)
        if self.kind == "uncertain" and counts is not None:
            to_learn /= np.sqrt(1.0 + counts)
        others: Probabilities = to_learn / np.maximum(to_learn.sum(axis=1, keepdims=True), 1e-300)
        return np.where(first, 1.0 - epsilon, 0.0) + epsilon * others


def draws(names: Sequence[str], slots: int) -> Probabilities:
    """Numbers in [0, 1) that follow from a name alone.  Shapes: -> (len(names), slots).

    >>> bool((draws(["a"], 3) == draws(["a"], 3)).all())
    True
    """
    drawn = b"".join(hashlib.shake_128(name.encode()).digest(8 * slots) for name in names)
    whole = np.frombuffer(drawn, dtype="<u8").reshape(len(names), slots)
    return (whole >> np.uint64(11)).astype(np.float64) / 2.0**53


@dataclass(frozen=True, slots=True)
class Slates:
    """What is shown.  Shapes: ranked, propensities and ranks (B, k).  `ranks`: place of each item
    in the pool; padding has propensity 1 and row -1."""

    ranked: Ranked
    propensities: Probabilities
    ranks: Rows

    def logged(self, listed: npt.NDArray[np.bool_]) -> Iterator[tuple[float, int]]:
        """(propensity, rank) of the listed slots, one after another, as messages carry them.

        Shapes: listed (B, K).
        """
        return zip(self.propensities[listed].tolist(), self.ranks[listed].tolist(), strict=True)


def explore(
    pool: Ranked,
    k: int,
    policy: Policy,
    names: Sequence[str],
    counts: npt.NDArray[np.floating] | None = None,
) -> Slates:
    """Fill k slots from each row's pool.

    Args:
        pool: candidates, best first, padded with row -1.
        names: what each row's draw follows from.
        counts: events behind each item of the catalogue, which `uncertain` asks for.
    Shapes: pool (B, P), counts (N,).
    """
    users, width = pool.rows.shape
    k = min(k, width)
    free = pool.rows >= 0
    everyone = np.arange(users)
    behind = None if counts is None else counts[pool.rows]  # padding is never free
    numbers = draws(names, k)
    columns = np.zeros((users, k), dtype=np.intp)
    propensities = np.ones((users, k))
    filled = np.zeros((users, k), dtype=np.bool_)
    for slot in range(k):
        chances = policy.probabilities(pool.scores, free, behind)
        upto = chances.cumsum(axis=1)
        # The last item with any chance, should rounding leave the sum below the draw.
        last = width - 1 - np.argmax(chances[:, ::-1] > 0, axis=1)
        chosen = np.minimum((upto <= numbers[:, slot, None]).sum(axis=1), last)
        filled[:, slot] = free.any(axis=1)
        columns[:, slot] = chosen
        propensities[:, slot] = np.where(filled[:, slot], chances[everyone, chosen], 1.0)
        free[everyone, chosen] = False
    rows = np.where(filled, np.take_along_axis(pool.rows, columns, axis=1), -1)
    scores = np.where(filled, np.take_along_axis(pool.scores, columns, axis=1), -np.inf)
    return Slates(Ranked(rows, scores.astype(np.float32)), propensities, columns)
