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
    Item,
    Reason,
    Recommendation,
    Request,
    ScoredItem,
    encode,
    output_id,
)
from profiles.exploration import Policy, Slates, explore
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
        if not len(records):
            return []
        allowed = self.catalog.available & space.known
        return self._answer(
            records,
            users,
            causes,
            allowed,
            self.settings.k,
            self.settings.exclude_seen,
            space,
            now_s,
        )

    def for_request(
        self, record: Records, request: Request, cause: Cause, space: Space, now_s: float
    ) -> bytes:
        """The answer to one request, its filters applied."""
        allowed = self.allowed(request, space)
        exclude_seen = request.filters.exclude_seen
        return self._answer(
            record, [request.user_id], [cause], allowed, request.k, exclude_seen, space, now_s
        )[0]

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
    ) -> list[bytes]:
        """Rank, explore if that is asked for, and write the messages."""
        if self.policy.kind == "off":
            ranked = recommend(records, space, allowed, k, exclude_seen)
            return self._messages(records, users, causes, ranked, space, now_s)
        most = max(k, self.settings.exploration_pool)
        pool = recommend(records, space, allowed, most, exclude_seen)
        names = [
            output_id(cause.topic_id, cause.partition, cause.offset, space.release_id)
            for cause in causes
        ]
        slates = explore(pool, k, self.policy, names)
        return self._messages(records, users, causes, slates.ranked, space, now_s, slates)

    def _messages(
        self,
        records: Records,
        users: Sequence[str],
        causes: Sequence[Cause],
        ranked: Ranked,
        space: Space,
        now_s: float,
        slates: Slates | None = None,
    ) -> list[bytes]:
        history_rows = self._history_rows(records, space)
        columns, weights = history_shares(ranked, history_rows, space, self.settings.reasons)
        # Everything becomes plain lists at once: numpy scalars one by one cost more than the rest.
        past_rows = np.take_along_axis(history_rows[:, None, :], columns, axis=2).tolist()
        shares = np.round(weights.astype(np.float64), 4).tolist()
        rows, scores = ranked.rows.tolist(), np.round(ranked.scores.astype(np.float64), 5).tolist()
        chances = self._chances(ranked, space)
        plain = [[(1.0, 0)] * ranked.rows.shape[1]] * len(ranked.rows)
        shown = plain if slates is None else slates.logged()
        in_space = (records["release"] == space.key).tolist()
        versions = records["revision"].tolist()
        return [
            encode(
                Recommendation(
                    output_id(cause.topic_id, cause.partition, cause.offset, space.release_id),
                    user,
                    [
                        self._item(row, score, *why)
                        for row, score, *why in zip(
                            rows[at],
                            scores[at],
                            chances[at],
                            shown[at],
                            past_rows[at],
                            shares[at],
                            strict=True,
                        )
                        if row >= 0
                    ],
                    space.release_id,
                    space.release_id if in_space[at] else "mixed",
                    versions[at],
                    cause.kind,
                    cause.cause_id,
                    cause.partition,
                    cause.offset,
                    now_s,
                    cause.event_ts,
                )
            )
            for at, (user, cause) in enumerate(zip(users, causes, strict=True))
        ]

    @staticmethod
    def _chances(ranked: Ranked, space: Space) -> list[list[float | None]]:
        """Probabilities of the ranked items, None each where the release has no calibration."""
        calibration = space.release.manifest.calibration
        if calibration is None:
            return [[None] * ranked.rows.shape[1]] * len(ranked.rows)
        chances: list[list[float | None]] = np.round(
            calibration.probabilities(ranked.scores).astype(np.float64), 4
        ).tolist()
        return chances

    def _history_rows(self, records: Records, space: Space) -> Rows:
        history = read_history(records)
        rows = self.catalog.rows_of(history.items[:, -MAX_REASON_HISTORY:])
        rows = np.where(history.mask[:, -MAX_REASON_HISTORY:], rows, -1)
        if not len(space.known):
            return rows  # an empty catalogue: every one is -1
        usable: Rows = np.where((rows >= 0) & space.known[rows], rows, -1)
        return usable

    def _item(
        self,
        row: int,
        score: float,
        chance: float | None,
        shown: tuple[float, int],
        past_rows: list[int],
        shares: list[float],
    ) -> ScoredItem:
        items = self.catalog.items
        item = items[row]
        reasons: list[Reason] = []
        for at, (past_row, share) in enumerate(zip(past_rows, shares, strict=True)):
            # A user may have touched one item twice: it is named once.
            if share > 0.0 and past_row not in past_rows[:at]:
                past = items[past_row]
                reasons.append(
                    Reason("history", share, past.item_id, past.title, _shared_tag(item, past))
                )
        propensity, rank = shown
        why = reasons or _POPULAR
        return ScoredItem(item.item_id, score, item.title, why, propensity, chance, rank)


_POPULAR = [Reason("popular", 1.0)]


def _shared_tag(item: Item, past: Item) -> str | None:
    for tag in item.tags:
        if tag in past.tags:
            return tag
    return None
