"""Who is recommended what: ranking for events, for requests and for predictions.

One call per batch of users: scoring is one matrix product, reasons one more.  Every vector comes
from one `Space`; `stream.messages` writes what comes of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from profiles.answers import Filters, Request, output_id
from profiles.catalog import Catalog
from profiles.exploration import Policy, Slates, explore
from profiles.metrics import WorkerMetrics
from profiles.rules import Rules, Ruling, pool_size, rerank
from profiles.scoring import best_of, by_score, plain, queries, recommend
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records
from stream.exposure import Exposure
from stream.messages import UNASKED, Cause, MessageWriter

ANSWERED_AT_ONCE = 128
"""Users ranked and written at once.  What they need stays in the processor's cache: of 10k items,
a recommendation costs 56 us, in batches of 4,000 twice that; fewer would slow the matrix product.
"""

_NO_FILTERS = Filters()


@dataclass(frozen=True, slots=True)
class Recommender:
    """Makes the messages.  Pure but for the catalogue and space that it reads."""

    catalog: Catalog
    settings: ServingSettings
    ruling: Ruling | None = None
    exposure: Exposure | None = None
    metrics: WorkerMetrics | None = None
    no_rules: Ruling = field(init=False)
    writer: MessageWriter = field(init=False)

    def __post_init__(self) -> None:
        # What follows from the catalogue is kept there, also between requests.
        object.__setattr__(self, "no_rules", Ruling(Rules(), self.catalog))
        writer = MessageWriter(self.catalog, self.settings, self.metrics)
        object.__setattr__(self, "writer", writer)

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
        ranked = by_score(plain(best_of(queries(record, space), space, rows, len(rows)), space))
        return self.writer.write(
            record, [request.user_id], [cause], ranked, space, now_s, sure=[UNASKED]
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
        return self.writer.write(records, users, causes, plain(ranked, space), space, now_s, slates)

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
