"""The message that an application reads, written from ranked rows.

Every name, score, reason and probability in it comes from one `Space`, whose release it names, next
to the release that the stored profile itself carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from itertools import repeat
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.answers import Reason, Recommendation, ScoredItem, output_id
from profiles.catalog import Catalog, Rows
from profiles.confidence import is_empty
from profiles.exploration import Slates
from profiles.items import Item
from profiles.layers import Floats
from profiles.metrics import WorkerMetrics
from profiles.reasons import event_shares
from profiles.scoring import Ranked
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records
from profiles.trend import TRENDING
from profiles.wire import encode

T = TypeVar("T")
Sureness = tuple[float | msgspec.UnsetType, bool | msgspec.UnsetType]
"""Confidence of a list, and whether a human should answer."""
UNASKED: Sureness = (msgspec.UNSET, msgspec.UNSET)


class Cause(msgspec.Struct, frozen=True, gc=False):
    """What called for a recommendation: an event or a request, and where it stood."""

    kind: str
    cause_id: str
    topic_id: str
    partition: int
    offset: int
    event_ts: float | None = None


@dataclass(frozen=True, slots=True)
class MessageWriter:
    """Writes messages.  Pure but for the catalogue and space that it reads, and what it counts."""

    catalog: Catalog
    settings: ServingSettings
    metrics: WorkerMetrics | None = None

    def write(
        self,
        records: Records,
        users: Sequence[str],
        causes: Sequence[Cause],
        ranked: Ranked,
        space: Space,
        now_s: float,
        slates: Slates | None = None,
        sure: Iterable[Sureness] | None = None,
    ) -> list[bytes]:
        """One message per user.  `slates`: what was logged of each slot, where that is asked for;
        `sure`: confidence and hand-over of each list, if not to be worked out here.

        Shapes: records, users, causes (B,), ranked (B, K).
        """
        listed = ranked.rows >= 0
        reasons, reason_ends = self._reasons(records, ranked, listed, space)
        declared = (records["interest_release"] == space.key) & (records["events"] == 0)
        kinds = np.where(space.lifts[ranked.rows[listed]] >= TRENDING, Otherwise.TRENDING, 0)
        kinds[np.repeat(declared, listed.sum(axis=1))] = Otherwise.INTERESTS
        # Everything becomes plain lists at once: numpy scalars one by one cost more than the rest.
        names = list(map(self.catalog.items.__getitem__, ranked.rows[listed].tolist()))
        scored = [
            ScoredItem(
                item.item_id, score, item.title, why or _OTHERWISE[kind], propensity, chance, rank
            )
            for item, score, chance, (propensity, rank), why, kind in zip(
                names,
                np.round(ranked.scores[listed].astype(np.float64), 5).tolist(),
                self._chances(ranked.scores[listed], space),
                repeat((1.0, 0), len(names)) if slates is None else slates.logged(listed),
                _cut(reasons, reason_ends),
                kinds.tolist(),
                strict=True,
            )
        ]
        in_space = (records["release"] == space.key).tolist()
        versions = records["revision"].tolist()
        slates_of_users = _cut(scored, np.cumsum(listed.sum(axis=1)))
        sure = self._sureness(ranked, space) if sure is None else sure
        return [
            encode(
                Recommendation(
                    output_id(cause.topic_id, cause.partition, cause.offset, space.release_id),
                    user,
                    slate,
                    space.release_id,
                    space.release_id if in_space[at] else "mixed",
                    versions[at],
                    cause.kind,
                    cause.cause_id,
                    cause.partition,
                    cause.offset,
                    now_s,
                    cause.event_ts,
                    confidence,
                    hand_over,
                )
            )
            for at, (user, cause, slate, (confidence, hand_over)) in enumerate(
                zip(users, causes, slates_of_users, sure, strict=True)
            )
        ]

    def _sureness(self, ranked: Ranked, space: Space) -> Iterable[Sureness]:
        """Confidence and hand-over of each list; nothing where the domain does not ask for it."""
        least = self.settings.hand_over_below
        if not least:
            return repeat(UNASKED, len(ranked.rows))
        sure = space.release.manifest.confidence
        scores = np.where(ranked.rows >= 0, ranked.scores, np.float32(-np.inf))
        if isinstance(sure, msgspec.UnsetType):
            self._count_hand_overs("uncalibrated", len(scores))
            return repeat((msgspec.UNSET, True), len(scores))
        chances = np.round(sure.of(scores).astype(np.float64), 4)
        # Compared as it is told, so that a reader's own comparison gives the same.
        given_over = chances < least
        nothing = is_empty(scores)
        self._count_hand_overs("nothing", int((given_over & nothing).sum()))
        self._count_hand_overs("unsure", int((given_over & ~nothing).sum()))
        return zip(chances.tolist(), given_over.tolist(), strict=True)

    def _count_hand_overs(self, reason: str, count: int) -> None:
        if self.metrics is not None and count:
            self.metrics.hand_overs.labels(reason).inc(count)

    def _reasons(
        self, records: Records, ranked: Ranked, listed: npt.NDArray[np.bool_], space: Space
    ) -> tuple[list[Reason], Rows]:
        """Reasons of every listed item, one after another, and where those of each item end.

        Shapes: listed (B, K) -> ends (number of listed items,).
        """
        past_rows, weights = event_shares(
            records, ranked, space, self.catalog, self.settings.reasons
        )
        shares = np.round(weights.astype(np.float64), 4)
        told = (shares > 0.0) & listed[:, :, None]
        for at in range(1, told.shape[2]):
            # A user may have touched one item twice: it is named once.
            told[:, :, at] &= (past_rows[:, :, :at] != past_rows[:, :, at : at + 1]).all(axis=2)
        find = self.catalog.items.__getitem__
        reasons = [
            Reason("history", share, past.item_id, past.title, _shared_tag(item, past))
            for share, item, past in zip(
                shares[told].tolist(),
                map(find, np.repeat(ranked.rows.ravel(), told.sum(axis=2).ravel()).tolist()),
                map(find, past_rows[told].tolist()),
                strict=True,
            )
        ]
        return reasons, np.cumsum(told.sum(axis=2)[listed])

    @staticmethod
    def _chances(scores: Floats, space: Space) -> Iterable[float | None]:
        """Probabilities of ranked items, None each where the release has no calibration."""
        calibration = space.release.manifest.calibration
        if calibration is None:
            return repeat(None, len(scores))
        chances: list[float | None] = np.round(
            calibration.probabilities(scores).astype(np.float64), 4
        ).tolist()
        return chances


class Otherwise(IntEnum):
    """What speaks for an item that no past event carries."""

    POPULAR = 0
    INTERESTS = 1
    TRENDING = 2


_OTHERWISE = [[Reason(kind.name.lower(), 1.0)] for kind in Otherwise]


def _shared_tag(item: Item, past: Item) -> str | None:
    for tag in item.tags:
        if tag in past.tags:
            return tag
    return None


def _cut(flat: list[T], ends: Rows) -> list[list[T]]:
    """Consecutive parts of a list, each up to its end.

    >>> _cut([1, 2, 3], np.array([2, 2, 3]))
    [[1, 2], [], [3]]
    """
    stops = ends.tolist()
    return [flat[start:stop] for start, stop in zip([0, *stops], stops, strict=False)]
