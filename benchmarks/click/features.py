"""What the baselines of bench_click know of an event: only what came before it.

A user's part moves on with every event, as her profile does; an item's part moves on as long as
there is something to fit on, and then stands still, as a release does.  So a method that is fitted
before a border and asked after it has the same right to the events in between as ours.

    rates   log(1 + events) and share of likes of the user and of the item, each share pulled to
            the overall one by `PRIOR` events' worth
    ids     one-hot user and item, beside the rates; a user who has nothing in the fit has no column
    text    mean text vector of the items that the user liked, the item's, and their product
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from benchmarks.offline.histories import Bools, Doubles, Floats, Ints

PRIOR = 5.0


@dataclass(frozen=True, slots=True)
class Acts:
    """N acts in time order.  Shapes: users, items, is_liked (N,); text (items, T); the first
    `fit` of them may be fitted on."""

    users: Ints
    items: Ints
    is_liked: Bools
    text: Floats
    fit: int


def rates(acts: Acts) -> Floats:
    """Shapes: -> (N, 4)."""
    users, items = int(acts.users.max()) + 1, int(acts.items.max()) + 1
    by_user, by_item = np.zeros((users, 2)), np.zeros((items, 2))
    overall = float(acts.is_liked[: acts.fit].mean())
    found = np.empty((len(acts.users), 4), np.float32)
    for row, (user, item) in enumerate(zip(acts.users.tolist(), acts.items.tolist(), strict=True)):
        found[row, :2] = _pulled(by_user[user], overall)
        found[row, 2:] = _pulled(by_item[item], overall)
        by_user[user] += (1.0, acts.is_liked[row])
        if row < acts.fit:
            by_item[item] += (1.0, acts.is_liked[row])
    return found


def _pulled(counted: Doubles, overall: float) -> Floats:
    events, likes = counted.tolist()
    share = (likes + PRIOR * overall) / (events + PRIOR)
    return np.array([np.log1p(events), share], np.float32)


def ids(acts: Acts) -> sp.csr_matrix:
    """One-hot user and item, and the rates.  Shapes: -> (N, users + items + 4), sparse."""
    rows = np.arange(len(acts.users))
    seen = np.zeros(int(acts.users.max()) + 1)
    seen[acts.users[: acts.fit]] = 1.0
    one = np.ones(len(rows), np.float32)
    user = sp.csr_matrix((seen[acts.users].astype(np.float32), (rows, acts.users)))
    user.eliminate_zeros()
    item = sp.csr_matrix((one, (rows, acts.items)))
    return sp.hstack([user, item, sp.csr_matrix(rates(acts))], format="csr")


def text(acts: Acts) -> Floats:
    """Shapes: -> (N, 3 T): profile, item, product."""
    width = acts.text.shape[1]
    users = int(acts.users.max()) + 1
    sums, likes = np.zeros((users, width), np.float32), np.zeros(users, np.float32)
    found = np.empty((len(acts.users), 3, width), np.float32)
    for row, (user, item) in enumerate(zip(acts.users.tolist(), acts.items.tolist(), strict=True)):
        found[row, 0] = sums[user] / max(likes[user], 1.0)
        found[row, 1] = acts.text[item]
        if acts.is_liked[row]:
            sums[user] += acts.text[item]
            likes[user] += 1.0
    found[:, 2] = found[:, 0] * found[:, 1]
    return found.reshape(len(found), 3 * width)
