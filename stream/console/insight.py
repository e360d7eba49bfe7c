"""One user seen through the releases: map, sessions, and what the last swap changed.

The console holds the catalogue as a worker does and opens the serving release and the one before
it from the release store, verified, the first time somebody looks: their item tables are then in
memory (4 bytes x dimensions x items each).  All arithmetic is the workers' own.

What it has not: a language model (items newer than the release and remembered words are left out)
and the workers' rules.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from profiles.catalog import Catalog, Keys
from profiles.config import Settings
from profiles.errors import BadMessage, ReleaseError
from profiles.item_text import item_text
from profiles.items import decode_item
from profiles.modalities import Modalities
from profiles.rebuild import rebuild
from profiles.release import Release
from profiles.scoring import Ranked, recommend
from profiles.space import Space
from profiles.state import Records
from profiles.topics import Topics
from stream.api.read_model import ReadModel
from stream.console.item_map import project
from stream.console.sessions import (
    contributions,
    newest_first,
    session_length,
    split,
    without_words,
)
from stream.console.views import ItemMap, Listed, Point, ScoreParts, Sessions, Side, Swap, UserView

if TYPE_CHECKING:
    from stream.chunks import Record  # which would import Faust

NEAR = 80
"""Catalogue items on the map besides the user's own: those with the highest scores."""

Open = Callable[[str], Release]


class Insight:
    """Follows the catalogue; looks at users.  `open_release` blocks, raises ReleaseError."""

    def __init__(self, settings: Settings, model: ReadModel, open_release: Open) -> None:
        self._topics = Topics.under(settings.topics.prefix)
        self._settings = settings
        self._model = model
        self._open = open_release
        self._catalog = Catalog(item_text(settings.data), Modalities.of(settings.model.vectors))
        self._spaces: dict[str, Space] = {}
        self._opening = asyncio.Lock()
        self._blocked: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()

    def take(self, topic: str, records: Sequence[Record]) -> None:
        """Take the catalogue in; other topics are passed over."""
        if topic != self._topics.items:
            return
        for record in records:
            if not record.value:
                self._catalog.withdraw((record.key or b"").decode("utf-8", "replace"))
                continue
            try:
                self._catalog.put(decode_item(record.value))
            except BadMessage:
                continue  # the workers dead-letter it

    async def look(self, user_id: str) -> UserView | None:
        """A user whose profile is kept, as the serving release sees her.

        Raises: ReleaseError when none serves or it cannot be opened; StoreCorruptError, SealError.
        """
        stored = self._model.stored(user_id)
        if stored is None:
            return None
        board = self._model.board
        serving, previous = board.serving(), board.previous()
        if serving is None:
            raise ReleaseError("no release serves yet; start the learner")
        wanted = [serving.release_id, *([previous.release_id] if previous else [])]
        space = await self._space(serving.release_id, wanted)
        self._obey()
        records = without_words(stored[0])
        swap, why = None, ""
        after = self._side(records, space)
        if previous is not None:
            try:
                before = await self._space(previous.release_id, wanted)
            except ReleaseError as error:
                why = str(error)
            else:
                swap = Swap(serving.decided_at, self._side(records, before), after)
        keys, times = newest_first(records)
        session = session_length(times[::-1])
        sent = self._model.recommendation(user_id)
        shown = [item.item_id for item in sent.items] if sent else []
        shown = shown or [item.item_id for item in after.items]
        return UserView(
            user_id,
            space.release_id,
            self._map(records, keys, session, shown, space),
            self._sessions(records, session, shown, space),
            swap,
            why,
        )

    def _obey(self) -> None:
        """Take over what people have blocked."""
        policies = self._model.policies
        orders = policies.items, policies.tags
        if orders != self._blocked:
            self._catalog.block(*orders)
            self._blocked = orders

    async def _space(self, release_id: str, wanted: Collection[str]) -> Space:
        """A release laid over the present catalogue; those that are not wanted are let go."""
        async with self._opening:
            for name in set(self._spaces) - set(wanted):
                del self._spaces[name]
            if release_id not in self._spaces:
                release = await asyncio.to_thread(self._open, release_id)
                seen_bytes = self._settings.profile.seen_bytes
                self._spaces[release_id] = Space(release, self._catalog, seen_bytes)
            space = self._spaces[release_id]
        space.extend()
        return space

    def _ranked(self, records: Records, space: Space, k: int, exclude_seen: bool) -> Ranked:
        """The best items for the remembered events in a space."""
        made = records.copy()
        rebuild(made, np.arange(1), space, self._catalog)
        allowed = self._catalog.available & space.known
        return recommend(made, space, allowed, k, exclude_seen)

    def _side(self, records: Records, space: Space) -> Side:
        serving = self._settings.serving
        ranked = self._ranked(records, space, serving.k, serving.exclude_seen)
        listed = [
            Listed(item.item_id, item.title, round(score, 4))
            for row, score in zip(ranked.rows[0].tolist(), ranked.scores[0].tolist(), strict=True)
            if row >= 0
            for item in [self._catalog.items[row]]
        ]
        return Side(space.release_id, listed)

    def _map(
        self, records: Records, keys: Keys, session: int, shown: Sequence[str], space: Space
    ) -> ItemMap:
        """Remembered items, recommended ones, and what else comes near.

        `keys`: of what is remembered, newest first, 0 for words.
        """
        past = self._catalog.rows_of(keys)
        near = self._ranked(records, space, NEAR + len(past) + len(shown), False).rows[0]
        kinds: dict[int, tuple[str, bool]] = {}
        for place, row in enumerate(past.tolist()):
            kinds.setdefault(row, ("history", place < session))
        for row in self._rows(shown):
            kinds.setdefault(row, ("recommended", False))
        left = NEAR
        for row in near.tolist():
            if left and row not in kinds:
                kinds[row] = ("near", False)
                left -= 1
        known = [row for row in kinds if row >= 0 and space.known[row]]
        places, explained = project(space.vectors[known])
        points = [
            Point(item.item_id, item.title, kinds[row][0], x, y, kinds[row][1])
            for row, (x, y) in zip(known, np.round(places, 4).tolist(), strict=True)
            for item in [self._catalog.items[row]]
        ]
        placed = set(known)
        lost = {
            key
            for key, row in zip(keys.tolist(), past.tolist(), strict=True)
            if key and row not in placed
        }
        lost |= {
            item for item, row in zip(shown, self._rows(shown), strict=True) if row not in placed
        }
        return ItemMap(points, round(explained, 4), len(lost))

    def _sessions(
        self, records: Records, session: int, shown: Sequence[str], space: Space
    ) -> Sessions:
        parts = split(records, session)
        rows = [row for row in self._rows(shown) if row >= 0 and space.known[row]]
        score, base, recent, earlier = contributions(
            parts, np.array(rows, np.intp), space, self._catalog
        )
        added = float(np.abs(recent).sum()), float(np.abs(earlier).sum())
        columns = np.round(np.stack([score, base, recent, earlier], axis=1).astype(np.float64), 4)
        return Sessions(
            int(parts["events"][1]),
            int(parts["events"][2]),
            round(added[0] / sum(added), 4) if sum(added) else None,
            [
                ScoreParts(item.item_id, item.title, *figures)
                for row, figures in zip(rows, columns.tolist(), strict=True)
                for item in [self._catalog.items[row]]
            ],
        )

    def _rows(self, items: Sequence[str]) -> list[int]:
        return [self._catalog.rows.get(item, -1) for item in items]
