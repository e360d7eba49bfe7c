"""The message that an application reads, written from ranked rows.

Every name, score, reason and probability in it comes from one `Space`, whose release it names, next
to the release that the stored profile itself carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import cast

import msgspec
import numpy as np

from profiles.answers import Recommendation, ScoredItem, output_id
from profiles.catalog import Catalog
from profiles.confidence import is_empty
from profiles.exploration import Slates
from profiles.layers import Floats
from profiles.metrics import WorkerMetrics
from profiles.reasons import event_shares
from profiles.scoring import Ranked
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records
from profiles.trend import TRENDING
from profiles.wire import encode
from stream.slate_loops import Otherwise
from stream.slate_writer import Said, SlateWriter

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
    slates: SlateWriter = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slates", SlateWriter(self.catalog))

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
        past, shares = event_shares(records, ranked, space, self.catalog, self.settings.reasons)
        declared = (records["interest_release"] == space.key) & (records["events"] == 0)
        otherwise = np.full(listed.shape, Otherwise.POPULAR.value, np.intp)
        trends = space.lifts[ranked.rows[listed]] >= TRENDING
        otherwise[listed] = np.where(trends, Otherwise.TRENDING, Otherwise.POPULAR)
        otherwise[declared] = Otherwise.INTERESTS
        said = Said(
            ranked.rows, ranked.scores, past, shares, otherwise, self._chances(ranked, space)
        )
        items = self.slates.write(said, slates)
        in_space = (records["release"] == space.key).tolist()
        versions = records["revision"].tolist()
        sure = self._sureness(ranked, space) if sure is None else sure
        return [
            encode(
                Recommendation(
                    output_id(cause.topic_id, cause.partition, cause.offset, space.release_id),
                    user,
                    cast("list[ScoredItem]", slate),  # as JSON already
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
                zip(users, causes, items, sure, strict=True)
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

    @staticmethod
    def _chances(ranked: Ranked, space: Space) -> Floats:
        """Probabilities of ranked items; (B, 0) where the release has no calibration."""
        calibration = space.release.manifest.calibration
        if calibration is None:
            return np.zeros((len(ranked.rows), 0), np.float32)
        scores = np.where(ranked.rows >= 0, ranked.scores, np.float32(0.0))
        return calibration.probabilities(scores).astype(np.float32)
