"""Recommendations, from ranked rows to the message an application reads.

One call per batch of users: scoring is one matrix product, reasons one more.  Every vector comes
from one `Space`, whose release the message names, next to the release that the stored profile
itself carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.catalog import Catalog, Rows
from profiles.config import ServingSettings
from profiles.events import (
    Reason,
    Recommendation,
    Request,
    ScoredItem,
    encode,
    output_id,
)
from profiles.head import Floats
from profiles.scoring import Ranked, history_shares, recommend
from profiles.space import Space
from profiles.state import Records, read_history

MAX_REASON_HISTORY = 50


@dataclass(frozen=True, slots=True)
class Cause:
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

    def for_events(
        self,
        records: Records,
        users: Sequence[str],
        causes: Sequence[Cause],
        space: Space,
        now_s: float,
    ) -> list[bytes]:
        """One recommendation per user after an update; every record must be in `space`."""
        if not len(records):
            return []
        allowed = self.catalog.available & space.known
        ranked = recommend(records, space, allowed, self.settings.k, self.settings.exclude_seen)
        return self._messages(records, users, causes, ranked, space, now_s)

    def for_request(
        self, record: Records, request: Request, cause: Cause, space: Space, now_s: float
    ) -> bytes:
        """The answer to one request, its filters applied."""
        allowed = self.allowed(request, space)
        ranked = recommend(record, space, allowed, request.k, request.filters.exclude_seen)
        return self._messages(record, [request.user_id], [cause], ranked, space, now_s)[0]

    def allowed(self, request: Request, space: Space) -> npt.NDArray[np.bool_]:
        """Items that a request's filters leave.  Shapes: -> (N,)."""
        allowed = self.catalog.available & space.known
        filters = request.filters
        if filters.any_tags:
            allowed &= self.catalog.with_tags(filters.any_tags)
        if filters.no_tags:
            allowed &= ~self.catalog.with_tags(filters.no_tags)
        excluded = [
            self.catalog.rows[item] for item in request.exclude if item in self.catalog.rows
        ]
        allowed[excluded] = False
        return allowed

    def _messages(
        self,
        records: Records,
        users: Sequence[str],
        causes: Sequence[Cause],
        ranked: Ranked,
        space: Space,
        now_s: float,
    ) -> list[bytes]:
        history_rows = self._history_rows(records, space)
        columns, weights = history_shares(ranked, history_rows, space, self.settings.reasons)
        named = records["release"] == space.key
        messages = []
        for at, (user, cause) in enumerate(zip(users, causes, strict=True)):
            items = [
                self._item(
                    int(row), float(score), history_rows[at], columns[at, rank], weights[at, rank]
                )
                for rank, (row, score) in enumerate(
                    zip(ranked.rows[at].tolist(), ranked.scores[at].tolist(), strict=True)
                )
                if row >= 0
            ]
            messages.append(
                encode(
                    Recommendation(
                        output_id=output_id(
                            cause.topic_id, cause.partition, cause.offset, space.release_id
                        ),
                        user_id=user,
                        items=items,
                        release_id=space.release_id,
                        profile_release_id=space.release_id if named[at] else "mixed",
                        profile_version=int(records["revision"][at]),
                        cause=cause.kind,
                        cause_id=cause.cause_id,
                        cause_partition=cause.partition,
                        cause_offset=cause.offset,
                        produced_at=now_s,
                        event_ts=cause.event_ts,
                    )
                )
            )
        return messages

    def _history_rows(self, records: Records, space: Space) -> Rows:
        history = read_history(records)
        rows = self.catalog.rows_of(history.items[:, -MAX_REASON_HISTORY:])
        rows = np.where(history.mask[:, -MAX_REASON_HISTORY:], rows, -1)
        usable: Rows = np.where((rows >= 0) & space.known[rows], rows, -1) if rows.size else rows
        return usable

    def _item(
        self, row: int, score: float, history: Rows, columns: Rows, weights: Floats
    ) -> ScoredItem:
        item = self.catalog.items[row]
        reasons = []
        for column, weight in zip(columns.tolist(), weights.tolist(), strict=True):
            if weight <= 0.0:
                continue
            past = self.catalog.items[int(history[column])]
            shared = next((tag for tag in item.tags if tag in past.tags), None)
            reasons.append(
                Reason("history", round(weight, 4), past.item_id, past.title or None, shared)
            )
        if not reasons:
            reasons.append(Reason("popular", 1.0))
        return ScoredItem(item.item_id, round(score, 5), item.title, reasons)
