"""Two releases on the same live events: each event ranked by both, before it is applied.

The learner reads the events that the workers read, so what it has just taken into the replay
buffer is the mirrored traffic.  A user's profile is made from her buffered history in each
release's space, by the workers' own arithmetic.  Only items that both releases hold are ranked:
newer ones would need either language model here, and the same set keeps the pair comparable.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from learner.records import Row
from learner.sampling import ActionWeights, Segment
from profiles.evaluation import Bools, UserSequence, gains, prequential
from profiles.release import Release

CONTEXT_EVENTS = 60
SAMPLE_USERS = 128
"""Users scored of one batch of events: bounds the time that a batch takes."""

Gains = npt.NDArray[np.float64]


def count_new(rows: Sequence[Row]) -> dict[int, int]:
    """How many of a batch's events each user has, for the users who came last."""
    users = list(dict.fromkeys(row.user for row in reversed(rows)))[:SAMPLE_USERS]
    counts = Counter(row.user for row in rows)
    return {user: counts[user] for user in users}


class Pair:
    """A candidate and its rival, over the items that both hold."""

    def __init__(
        self, candidate: Release, rival: Release, actions: ActionWeights, *, exclude_seen: bool
    ) -> None:
        self._releases = (candidate, rival)
        self._actions = actions
        self._exclude_seen = exclude_seen
        self._keys, mine, theirs = np.intersect1d(
            candidate.items.keys, rival.items.keys, return_indices=True
        )
        self._rows = (mine, theirs)

    def score(self, segments: Sequence[Segment], new: dict[int, int]) -> tuple[Gains, Gains]:
        """NDCG@10 of each user's newest events under candidate and rival.

        Args:
            segments: users' histories, the new events among them.
            new: by user, how many of the last to arrive are asked about.
        Shapes: -> two (E,), in one order; events that cannot be ranked are left out.
        """
        sequences: list[UserSequence] = []
        asked: list[Bools] = []
        if len(self._keys):
            for segment in segments:
                sequence, ask = self._sequence(segment, new.get(segment.user, 0))
                if ask.any():
                    sequences.append(sequence)
                    asked.append(ask)
        found: list[Gains] = []
        for release, rows in zip(self._releases, self._rows, strict=True):
            ranks = prequential(
                release.head,
                release.items.vectors[rows],
                release.items.bias[rows],
                sequences,
                asked,
                exclude_seen=self._exclude_seen,
            )
            joined = np.concatenate(ranks) if ranks else np.zeros(0, np.int64)
            found.append(gains(joined[joined > 0]))
        candidate, rival = found
        return candidate, rival

    def _sequence(self, segment: Segment, new: int) -> tuple[UserSequence, Bools]:
        place = np.searchsorted(self._keys, segment.items).clip(max=len(self._keys) - 1)
        ask = self._actions.of(segment) > 0
        newest = np.argsort(-segment.orders, kind="stable")[:new]
        ask &= np.isin(np.arange(len(ask)), newest)
        kept = np.flatnonzero(self._keys[place] == segment.items)[-CONTEXT_EVENTS:]
        sequence = UserSequence(
            place[kept], segment.actions[kept], segment.values[kept], segment.ts[kept]
        )
        return sequence, ask[kept]
