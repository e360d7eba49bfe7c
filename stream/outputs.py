"""Recommendations, from ranked rows to the message an application reads.

One call per batch of users: scoring is one matrix product, reasons one more.  Every vector comes
from one `Space`, whose release the message names, next to the release that the stored profile
itself carries.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.answers import Filters, Reason, Recommendation, Request, ScoredItem, output_id
from profiles.catalog import Catalog, Rows
from profiles.confidence import is_empty
from profiles.exploration import Policy, Slates, explore
from profiles.head import Floats
from profiles.items import Item
from profiles.metrics import WorkerMetrics
from profiles.reasons import event_shares
from profiles.rules import Rules, Ruling, pool_size, rerank
from profiles.scoring import Ranked, best_of, queries, recommend
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records
from profiles.wire import encode
from stream.exposure import Exposure

ANSWERED_AT_ONCE = 128
"""Users ranked and written at once.  What they need stays in the processor's cache: of 10k items,
a recommendation costs 56 us, in batches of 4,000 twice that; fewer would slow the matrix product.
"""

T = TypeVar("T")
_NO_FILTERS = Filters()
Sureness = tuple[float | msgspec.UnsetType, bool | msgspec.UnsetType]
_UNASKED: Sureness = (msgspec.UNSET, msgspec.UNSET)


class Cause(msgspec.Struct, frozen=True, gc=False):
    """What called for a recommendation: an event or a request, and where it stood."""

    kind: str
    cause_id: str
    topic_id: str
    partition: int
    offset: int
    event_ts: float | None = None


@dataclass(frozen=True, slots=True)
class Recommender:
    """Makes the messages.  Pure but for the catalogue and space that it reads."""

    catalog: Catalog
    settings: ServingSettings
    ruling: Ruling | None = None
    exposure: Exposure | None = None
    metrics: WorkerMetrics | None = None
    no_rules: Ruling = field(init=False)

    def __post_init__(self) -> None:
        # What follows from the catalogue is kept there, also between requests.
        object.__setattr__(self, "no_rules", Ruling(Rules(), self.catalog))

    @property
    def policy(self) -> Policy:
        """How slots are filled."""
        serving = self.settings
        return Policy(
            serving.exploration, serving.exploration_epsilon, serving.exploration_temperature
        )

    def for_events(
        self,
        records: Records,
        users: Sequence[str],
        causes: Sequence[Cause],
        space: Space,
        now_s: float,
    ) -> list[bytes]:
        """One recommendation per user after an update; every record must be in `space`."""
        allowed = self._open(space)
        serving = self.settings
        seen = serving.exclude_seen
        if self.ruling is not None and self.ruling.rules.filters.exclude_seen is not None:
            seen = self.ruling.rules.filters.exclude_seen
        messages: list[bytes] = []
        for start in range(0, len(records), ANSWERED_AT_ONCE):
            part = slice(start, start + ANSWERED_AT_ONCE)
            messages += self._answer(
                records[part],
                users[part],
                causes[part],
                allowed,
                serving.k,
                seen,
                space,
                now_s,
            )
        return messages

    def for_request(
        self, record: Records, request: Request, cause: Cause, space: Space, now_s: float
    ) -> bytes:
        """The answer to one request, its filters applied."""
        allowed = self.allowed(request, space)
        filters = request.filters
        return self._answer(
            record,
            [request.user_id],
            [cause],
            allowed,
            request.k,
            filters.exclude_seen,
            space,
            now_s,
            filters,
        )[0]

    def for_prediction(
        self, record: Records, request: Request, cause: Cause, space: Space, now_s: float
    ) -> bytes:
        """The items that a request names, best first, whatever the user has seen or a rule says.

        Each has its probability where the release is calibrated.  Left out is what the catalogue
        or the release does not have, and what was withdrawn or blocked.  Nothing is shown by this,
        so exposure is not counted, and nothing is handed over.
        """
        rows_of, open_rows = self.catalog.rows, self.catalog.permitted & space.known
        named = [rows_of[item] for item in dict.fromkeys(request.items) if item in rows_of]
        rows = np.array([row for row in named if open_rows[row]], dtype=np.intp)
        ranked = best_of(queries(record, space), space, rows, len(rows))
        return self._messages(
            record, [request.user_id], [cause], ranked, space, now_s, sure=[_UNASKED]
        )[0]

    def allowed(self, request: Request, space: Space) -> npt.NDArray[np.bool_]:
        """Items that a request's filters leave.  Shapes: -> (N,)."""
        filters = request.filters
        allowed = self._open(space, filters.unavailable)
        if filters.any_tags:
            allowed &= self.catalog.with_tags(filters.any_tags)
        if filters.no_tags:
            allowed &= ~self.catalog.with_tags(filters.no_tags)
        excluded = [
            self.catalog.rows[item] for item in request.exclude if item in self.catalog.rows
        ]
        allowed[excluded] = False
        return allowed

    def _open(self, space: Space, unavailable: bool = False) -> npt.NDArray[np.bool_]:
        """Items that may be recommended to anybody.  Shapes: -> (N,)."""
        allowed = self.catalog.permitted if unavailable else self.catalog.available
        allowed = allowed & space.known
        if self.ruling is not None:
            allowed &= self.ruling.allowed()
        return allowed if self.exposure is None else self.exposure.bar_capped(allowed)

    def _answer(
        self,
        records: Records,
        users: Sequence[str],
        causes: Sequence[Cause],
        allowed: npt.NDArray[np.bool_],
        k: int,
        exclude_seen: bool,
        space: Space,
        now_s: float,
        filters: Filters = _NO_FILTERS,
    ) -> list[bytes]:
        """Rank, explore or reorder if that is asked for, and write the messages.

        Where serving explores, rules filter and do not reorder: propensities would be wrong.
        """
        slates: Slates | None = None
        if self.policy.kind != "off":
            most = max(k, self.settings.exploration_pool)
            pool = recommend(records, space, allowed, most, exclude_seen)
            names = [
                output_id(cause.topic_id, cause.partition, cause.offset, space.release_id)
                for cause in causes
            ]
            slates = explore(pool, k, self.policy, names, space.counts)
        elif self.ruling is not None or filters.diversity or filters.freshness:
            slates = self._chosen(records, allowed, k, exclude_seen, space, now_s, filters)
        ranked = (
            recommend(records, space, allowed, k, exclude_seen) if slates is None else slates.ranked
        )
        if self.exposure is not None:
            self.exposure.note(ranked.rows, space, now_s)
        return self._messages(records, users, causes, ranked, space, now_s, slates)

    def _chosen(
        self,
        records: Records,
        allowed: npt.NDArray[np.bool_],
        k: int,
        exclude_seen: bool,
        space: Space,
        now_s: float,
        filters: Filters,
    ) -> Slates:
        """What the rules, and what a request wants in their place, make of the best items."""
        ruling = self.ruling or self.no_rules
        rules = ruling.rules
        strength = rules.diversity.strength if filters.diversity is None else filters.diversity
        boost = rules.freshness.boost if filters.freshness is None else filters.freshness
        size = pool_size(rules, k, strength, boost)
        pool = recommend(records, space, allowed, size, exclude_seen)
        if not strength and not boost:
            places = np.broadcast_to(np.arange(pool.rows.shape[1]), pool.rows.shape)
            return Slates(pool, np.ones(pool.rows.shape), places)
        boosts = ruling.boosts(pool.rows, now_s, boost) if boost else None
        ranked, places = rerank(pool, k, strength, boosts, space.vectors)
        return Slates(ranked, np.ones(ranked.rows.shape), places)

    def _messages(
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
        listed = ranked.rows >= 0
        reasons, reason_ends = self._reasons(records, ranked, listed, space)
        declared = (records["interest_release"] == space.key) & (records["events"] == 0)
        # Everything becomes plain lists at once: numpy scalars one by one cost more than the rest.
        names = list(map(self.catalog.items.__getitem__, ranked.rows[listed].tolist()))
        scored = [
            ScoredItem(
                item.item_id, score, item.title, why or _OTHERWISE[said], propensity, chance, rank
            )
            for item, score, chance, (propensity, rank), why, said in zip(
                names,
                np.round(ranked.scores[listed].astype(np.float64), 5).tolist(),
                self._chances(ranked.scores[listed], space),
                repeat((1.0, 0), len(names)) if slates is None else slates.logged(listed),
                _cut(reasons, reason_ends),
                np.repeat(declared, listed.sum(axis=1)).tolist(),
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
            return repeat(_UNASKED, len(ranked.rows))
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


_OTHERWISE = {False: [Reason("popular", 1.0)], True: [Reason("interests", 1.0)]}
"""The reason of an item that no past event carries, by whether declared interests do."""


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
