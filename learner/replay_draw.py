"""Which past examples a round learns from again: a pure choice among what the buffer holds.

The buffer keeps a uniform sample of all examples ever (learner/reservoir.py), bounded in bytes and
erasable; what is drawn from it for a round is one of three policies, `learner.replay_policy`:

    reservoir   uniformly: the past in its own proportions
    recent      evenly over the logarithm of age: the last thousand examples get as many places as
                the thousand before them, then the two thousand before those, and so on
    herding     evenly over cohorts of users who came at the same time; inside a cohort the
                examples whose items together are nearest to the cohort's own mixture (Welling
                2009; as exemplars: Rebuffi et al. 2017, iCaRL)

Herding needs a vector per example.  It takes a sketch of the example's items (feature hashing,
Weinberger et al. 2009) and not the model's vectors: the choice then depends on the events alone,
the buffer needs no model, and the same events give the same choice in a resumed round.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import numpy.typing as npt

from learner.sampling import Segment

Policy = Literal["reservoir", "recent", "herding"]
Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float32]

COHORTS = 16
SKETCH = 64
"""Numbers in the sketch of an example's items: inner products then err by about 1/8."""
POOL_TIMES = 4
"""Examples looked at for each one drawn by a policy that chooses."""


def draw(
    policy: Policy, segments: Sequence[Segment], count: int, rng: np.random.Generator
) -> list[Segment]:
    """Up to `count` of the segments, in no particular order, each at most once.

    >>> draw("reservoir", [], 3, np.random.default_rng(0))
    []
    """
    if count >= len(segments) or policy == "reservoir":
        chosen = rng.permutation(len(segments))[:count]
    elif policy == "recent":
        chosen = recent_first(_ages(segments), count, rng)
    else:
        chosen = herd_by_cohort(_cohorts(segments), _sketches(segments), count, rng)
    return [segments[at] for at in chosen.tolist()]


def recent_first(ages: Ints, count: int, rng: np.random.Generator) -> Ints:
    """`count` places, drawn without replacement with chance about 1/(1 + age).

    That density is even over log(1 + age).  Gumbel keys make the draw one sort (Efraimidis and
    Spirakis 2006).  Shapes: ages (M,), 0 for the newest -> (count,).
    """
    keys = -np.log1p(ages) + rng.gumbel(size=len(ages))
    return np.argsort(-keys, kind="stable")[:count]


def herd_by_cohort(cohorts: Ints, sketches: Floats, count: int, rng: np.random.Generator) -> Ints:
    """`count` places, as evenly over the cohorts as their sizes allow, herded in each.

    Shapes: cohorts (M,), sketches (M, K) -> (count,).
    """
    members = [np.flatnonzero(cohorts == cohort) for cohort in np.unique(cohorts)]
    members = [rng.permutation(inside) for inside in members]
    chosen: list[Ints] = []
    left = count
    # Smallest first: what a small cohort cannot fill goes to the larger ones.
    for place, inside in enumerate(sorted(members, key=len)):
        share = min(len(inside), left // (len(members) - place))
        chosen.append(inside[herd(sketches[inside], share)])
        left -= share
    return np.concatenate(chosen) if chosen else np.zeros(0, np.int64)


def herd(vectors: Floats, count: int) -> Ints:
    """Rows whose mean stays as near to the mean of all as one more row at a time allows.

    Shapes: vectors (M, K) -> (min(count, M),).

    >>> herd(np.array([[0.0], [10.0], [4.0], [5.0]], np.float32), 2).tolist()
    [3, 2]
    """
    goal = vectors.mean(axis=0) if len(vectors) else np.zeros(0, np.float32)
    free = np.ones(len(vectors), np.bool_)
    total = np.zeros_like(goal)
    squares = (vectors * vectors).sum(axis=1)
    chosen: list[int] = []
    for taken in range(1, min(count, len(vectors)) + 1):
        # |goal - (total + v) / taken|², less what does not depend on v.
        wanted = taken * goal - total
        error = np.where(free, squares - 2.0 * (vectors @ wanted), np.inf)
        best = int(error.argmin())
        free[best] = False
        total = total + vectors[best]
        chosen.append(best)
    return np.array(chosen, np.int64)


def _ages(segments: Sequence[Segment]) -> Ints:
    """Place of each segment from the newest, by its last arrival number."""
    last = np.array([int(s.orders.max()) for s in segments], np.int64)
    ages = np.empty(len(segments), np.int64)
    ages[np.argsort(-last, kind="stable")] = np.arange(len(segments))
    return ages


def _cohorts(segments: Sequence[Segment]) -> Ints:
    """Number of each segment's cohort: its user's first arrival here, cut into equal parts."""
    came: dict[int, int] = {}
    for segment in segments:
        first = int(segment.orders.min())
        came[segment.user] = min(came.get(segment.user, first), first)
    users = sorted(came, key=lambda user: came[user])
    cohort = {user: place * COHORTS // len(users) for place, user in enumerate(users)}
    return np.array([cohort[segment.user] for segment in segments], np.int64)


def _sketches(segments: Sequence[Segment]) -> Floats:
    """Sum over each segment's targets of +-1 at a place hashed from the item, per target."""
    made = np.zeros((len(segments), SKETCH), np.float32)
    for row, segment in enumerate(segments):
        items = segment.items[segment.first_target :]
        signs = np.where(items & np.uint64(1 << 40), 1.0, -1.0).astype(np.float32)
        np.add.at(made[row], (items % np.uint64(SKETCH)).astype(np.int64), signs / len(items))
    return made
