"""Two releases on the same events: what came after the second had stopped learning.

Each ranks every such event the moment before it is applied, among all items that both know less
those the user had before; profiles begin as after a swap, from the user's last H events, and go
on event by event in the release's own space.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from profiles.evaluation import summarise
from profiles.layers import Floats
from stream.oracle.ledger import Ints, Ledger
from stream.oracle.models import Model
from stream.oracle.walking import Stretch, walk

MAX_PAIRS = 60_000_000
"""Scores computed per release at most (events x items): beyond, events are sampled."""
AT_ONCE = 512


@dataclass(frozen=True, slots=True)
class Later:
    """Events to rank.  Shapes: user, number (among the user's own), row (in the ledger) (Q,);
    begin (U,) first event that profiles see, -1 for users without one to rank."""

    user: Ints
    number: Ints
    row: Ints
    begin: Ints


@dataclass(frozen=True, slots=True)
class Quality:
    """HR@10 and NDCG@10 over `events` events of `users` users."""

    events: int
    users: int
    hr10: float
    ndcg10: float


def later_events(ledger: Ledger, border: dict[int, int], items: int, history: int) -> Later:
    """Events at or after `border` (partition to offset), repeats of an item left out, sampled
    (seeded) where there are more than `MAX_PAIRS` allows."""
    owner = np.repeat(np.arange(len(ledger.users)), ledger.count)
    number = np.arange(len(owner)) - ledger.first[owner]
    limit = np.array([border.get(p, 0) for p in ledger.partitions.tolist()], dtype=np.int64)
    is_later = ledger.offsets >= limit
    pair = owner * (max(items, 1) + len(ledger.texts)) + ledger.items
    is_first = np.zeros(len(owner), dtype=np.bool_)
    is_first[np.unique(pair, return_index=True)[1]] = True
    begin = np.full(len(ledger.users), -1, dtype=np.int64)
    later = np.flatnonzero(is_later)
    users, first = np.unique(owner[later], return_index=True)
    begin[users] = np.maximum(0, number[later[first]] - history)
    rows = np.flatnonzero(is_later & is_first & ~ledger.said)
    most = MAX_PAIRS // max(items, 1)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(0).choice(rows, most, replace=False))
    return Later(owner[rows], number[rows], rows, begin)


def judge(model: Model, other: Model, ledger: Ledger, later: Later) -> Quality:
    """Figures of `model`, over items that `other` knows too."""
    profiles = _profiles_before(model, ledger, later)
    unknown = ~(model.known & other.known)
    ranks = np.zeros(len(later.row), dtype=np.int64)
    targets = ledger.items[later.row]
    first = ledger.first[later.user]
    for start in range(0, len(ranks), AT_ONCE):
        part = slice(start, start + AT_ONCE)
        scores = (profiles[part] * model.head.score_scale[0]) @ model.vectors.T + model.bias
        everyone = np.arange(len(scores))
        goal = scores[everyone, targets[part]].copy()
        scores[:, unknown] = -np.inf
        had = [
            _items(ledger, begin, begin + count)
            for begin, count in zip(first[part].tolist(), later.number[part].tolist(), strict=True)
        ]
        scores[np.repeat(everyone, [len(rows) for rows in had]), np.concatenate(had)] = -np.inf
        scores[everyone, targets[part]] = goal
        # "Not below": a tie counts against the release, and so does NaN.
        ranks[part] = (~(scores < goal[:, None])).sum(axis=1)
    ranks[unknown[targets]] = 0
    ranking = summarise(ranks)
    users = len(np.unique(later.user[ranks > 0]))
    return Quality(ranking.events, users, ranking.hr10, ranking.ndcg10)


def _items(ledger: Ledger, begin: int, end: int) -> Ints:
    """Catalogue rows of these events; words have none."""
    return ledger.items[begin:end][~ledger.said[begin:end]]


def _profiles_before(model: Model, ledger: Ledger, later: Later) -> Floats:
    """The profile just before each event to rank.  Shapes: -> (Q, D)."""
    users = np.flatnonzero(later.begin >= 0)
    stretches = [Stretch(u, int(later.begin[u]), int(ledger.count[u])) for u in users.tolist()]
    order = np.argsort(later.user, kind="stable")
    left = np.searchsorted(later.user[order], users, side="left")
    right = np.searchsorted(later.user[order], users, side="right")
    profiles = np.zeros((len(later.row), model.head.shape.dim), dtype=np.float32)
    for walked in walk(model, ledger, stretches):
        for row, which in enumerate(walked.which.tolist()):
            asked = order[left[which] : right[which]]
            place = later.number[asked] - stretches[which].begin
            profiles[asked] = np.where(
                (place == 0)[:, None],
                walked.before[row],
                walked.trail[row, np.maximum(place - 1, 0)],
            )
    return profiles
