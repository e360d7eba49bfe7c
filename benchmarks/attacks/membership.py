"""What an attacker makes of a release: signals for each event and user, and how well they tell.

The attacker has a user's whole history and replays it against a release, so that before each event
there is a profile:

    loss    with the release's files in hand: the event's item in a softmax over the catalogue
    gain    with recommendations alone: whether the item stood in the top ten that she would have
            been given, and where (NDCG@10); what she had before is left out, as in the product
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.attacks.world import Border, Doubles, K, World, scores_of, trail_of
from benchmarks.harness import Result
from learner.round_types import Candidate
from learner.sampling import Segment, is_held_out

Members = npt.NDArray[np.bool_]
RESAMPLES = 300


@dataclass(frozen=True, slots=True)
class Signals:
    """Of each user, one value per event before the border; none for who came after it.

    Shapes: U arrays of (n,) each.  More of `loss` and less of `gain` speak against membership.
    """

    loss: list[Doubles]
    gain: list[Doubles]


def signals(world: World, release: Candidate, border: Border) -> Signals:
    """Replay every user's history against a release."""
    both = [_signals_of(world, release, segment, border) for segment in world.users]
    return Signals([loss for loss, _ in both], [gain for _, gain in both])


def _signals_of(
    world: World, release: Candidate, segment: Segment, border: Border
) -> tuple[Doubles, Doubles]:
    events = int((~is_held_out(segment, border)).sum())
    if not events:
        return np.zeros(0), np.zeros(0)
    rows = world.catalogue.rows(segment.items[:events])
    scores = scores_of(release, trail_of(world, release, segment, events)[:-1])
    peak = scores.max(axis=1, keepdims=True)
    log_sum = peak[:, 0] + np.log(np.exp(scores - peak).sum(axis=1, dtype=np.float64))
    goal = scores[np.arange(events), rows]
    above = scores >= goal[:, None]
    seen = np.tril(above[:, rows], -1).sum(axis=1)  # what she had before: not recommended again
    rank = above.sum(axis=1) - seen
    gain = np.where(rank <= K, 1.0 / np.log2(1.0 + rank), 0.0)
    return (log_sum - goal).astype(np.float64), gain


def by_user(values: Sequence[Doubles]) -> Doubles:
    """Mean of each user's events; NaN where she has none.  Shapes: -> (U,)."""
    return np.array([each.mean() if len(each) else np.nan for each in values])


def calibrated(
    target: Sequence[Doubles], others: Sequence[Sequence[Doubles]], members: Sequence[Members]
) -> list[Doubles]:
    """Signals under the target less their means under releases that the user is not in.

    `members[r]` (U,): who is in `others[r]`.  Events that some release's border cuts off are left
    out; a user who is in all of them comes back empty.
    """
    found = []
    for user, mine in enumerate(target):
        usual = [
            other[user] for other, inside in zip(others, members, strict=True) if not inside[user]
        ]
        events = min([len(mine), *(len(each) for each in usual)]) if usual else 0
        found.append(
            mine[:events] - np.mean([each[:events] for each in usual], axis=0)
            if events
            else np.zeros(0)
        )
    return found


def auc(inside: Doubles, outside: Doubles) -> float:
    """Chance that a member scores above a non-member, ties counting half (Mann and Whitney 1947).

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    both = np.concatenate([inside, outside])
    ordered = np.sort(both)
    ranks = (np.searchsorted(ordered, both, "left") + np.searchsorted(ordered, both, "right")) / 2
    above = ranks[: len(inside)].sum() - len(inside) ** 2 / 2.0
    return float(above / (len(inside) * len(outside)))


def judged(scores: Doubles, inside: Members, rng: np.random.Generator) -> Result:
    """AUC with its 95% interval (members and others drawn anew), and hits at 1% false alarms.

    `scores`: higher speaks for membership; NaN is left out.
    """
    known = ~np.isnan(scores)
    mine, others = scores[known & inside], scores[known & ~inside]
    drawn = [
        auc(rng.choice(mine, len(mine)), rng.choice(others, len(others))) for _ in range(RESAMPLES)
    ]
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    strict = float(np.quantile(others, 0.99))
    return {
        "auc": round(auc(mine, others), 4),
        "low": round(low, 4),
        "high": round(high, 4),
        "true_positives_at_1_percent": round(float((mine > strict).mean()), 4),
        "members": len(mine),
        "others": len(others),
    }
