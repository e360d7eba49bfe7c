"""How much one user may weigh in what a round learns: against bots, and against one busy person.

    repeats  a user's events on one item count as `learner.user_item_events` of them, at most
    share    a user's events together count as `learner.user_share` of all, at most

Both scale target weights down and drop nothing: events still move profiles, and honest users who
keep within the bounds weigh what they weighed.  Shares are of a whole round, so that a batch holds
that much of a user in the mean.  Where users are so few that the share of each would exceed the
bound, nobody weighs more than twice the even share.  Decisions 0027 and 0044 have the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from learner.sampling import Windows
from profiles.layers import Floats

ROUNDS = 20
"""Scaling one user down raises the shares of others; it settles within a few turns."""

Sums = npt.NDArray[np.float64]


def bound_influence(parts: Sequence[Windows], share: float, item_events: int) -> list[Windows]:
    """The same windows with bounded weights; shares are of all parts together.

    `share` 1: no bound; `item_events` 0: no bound.
    """
    weights = [part.weights for part in parts]
    if not sum(float(each.sum()) for each in weights):
        return list(parts)
    names, users = _numbered([part.users for part in parts])
    if item_events:
        weights = _bound_repeats(weights, users, [part.targets for part in parts], item_events)
    sums = np.zeros(len(names))
    for each, who in zip(weights, users, strict=True):
        np.add.at(sums, who, each.sum(axis=1))
    scale = shrink_to_share(sums, share)
    return [
        replace(part, weights=(each * scale[who, None]).astype(np.float32))
        for part, each, who in zip(parts, weights, users, strict=True)
    ]


def shrink_to_share(sums: Sums, share: float) -> Sums:
    """Factor for each user's weight so that nobody exceeds the share.  Shapes: (U,) -> (U,).

    >>> shrink_to_share(np.array([1.0, 1.0, 1.0, 1.0, 6.0]), 0.5).round(2).tolist()
    [1.0, 1.0, 1.0, 1.0, 0.67]
    """
    scale = np.ones(len(sums))
    most = max(share, 2.0 / max(int((sums > 0).sum()), 1))
    if most >= 1.0:
        return scale
    for _ in range(ROUNDS):
        now = sums * scale
        over = now > most * now.sum() * (1.0 + 1e-9)
        if not over.any():
            break
        # Those over it together shall be `over.sum() * most` of what is then the whole.
        rest, part = now[~over].sum(), most * over.sum()
        if part >= 1.0 or not rest:
            break
        scale[over] = rest * most / (1.0 - part) / sums[over]
    return scale


def _bound_repeats(
    weights: Sequence[Floats],
    users: Sequence[npt.NDArray[np.intp]],
    targets: Sequence[npt.NDArray[np.int32]],
    most: int,
) -> list[Floats]:
    """Events of one user on one item, scaled so that they count as `most` at most."""
    rows = 1 + max(int(each.max(initial=0)) for each in targets)
    pairs = [
        who[:, None].astype(np.int64) * rows + items
        for who, items in zip(users, targets, strict=True)
    ]
    used = [pair[weight > 0] for pair, weight in zip(pairs, weights, strict=True)]
    known, counts = np.unique(np.concatenate(used), return_counts=True)
    factors = np.minimum(1.0, most / counts)
    bounded = []
    for weight, pair in zip(weights, used, strict=True):
        scaled = weight.copy()
        scaled[weight > 0] *= factors[np.searchsorted(known, pair)]
        bounded.append(scaled)
    return bounded


def _numbered(
    users: Sequence[npt.NDArray[np.uint64]],
) -> tuple[npt.NDArray[np.uint64], list[npt.NDArray[np.intp]]]:
    """Users of all parts, once each, and where each window's user stands among them."""
    names = np.unique(np.concatenate(list(users)))
    return names, [np.searchsorted(names, part) for part in users]
