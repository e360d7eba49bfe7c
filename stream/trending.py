"""What this worker's users turn to lately, counted, and scores lifted by it (`profiles.trend`).

Each applied event that says that a user wants an item counts once for her and the item, as far as
her filter of seen items can tell: who clicks the same thing a thousand times lifts it once.  Every
second or so each resident space's lifts are worked out anew, by what *its* release has learned.
Who is erased is taken out again.

A worker counts the events of its own partitions.  Users are spread over partitions by a hash, so
these are a fair sample of all, and shares are all that is made of them.  Counts outlive a restart
in a small file beside the stores; they name items and no users.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.catalog import Catalog, Rows
from profiles.history import read_history
from profiles.judging import Batch
from profiles.layers import Floats
from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.positive import Bools, Ints, rate_action, target_weights
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records, was_seen
from profiles.trend import TRENDING, RecentCounts, Trend
from profiles.whole_files import replace_file
from stream.state_thread import StateThread

log = get_logger("stream.trending")

LIFT_EVERY_S = 1.0
ITEMS_A_SECOND = 50_000
"""Lifts of so many items are worked out anew each second, at most: a thousandth of the time."""
KEEP_EVERY_S = 30.0
LEAST_WORTH = 0.01
KEPT_ITEMS = 20_000
"""What is worth less than a hundredth of an event is not kept in the file, nor all of a large
catalogue: the state thread would pause for it."""


class Kept(msgspec.Struct, frozen=True):
    """The file: items by 64-bit key, and what their events were worth at `now_s`."""

    now_s: float
    items: list[int]
    counts: list[float]


class Trending:
    """Of one worker; used on the state thread alone, but for keeping the file."""

    def __init__(
        self,
        catalog: Catalog,
        settings: ServingSettings,
        actions: Mapping[str, float],
        metrics: WorkerMetrics,
        file: Path | None = None,
    ) -> None:
        """`actions`: weight of each, in the order of their numbers; `file`: where counts are kept.

        A file that is missing or damaged means that nothing trends yet.
        """
        self._catalog, self._metrics, self._file = catalog, metrics, file
        self._trend = Trend.of(settings)
        self._recent = RecentCounts(settings.trend_half_life_s)
        names = list(actions)
        self._weights = np.array([actions[name] for name in names], np.float32)
        self._rate = rate_action(names)
        self._lifted: dict[str, float] = {}
        self._waiting, self._kept_s = self._read()

    @property
    def is_on(self) -> bool:
        """Whether scores follow a trend at all."""
        return self._trend.weight > 0.0

    def first_times(self, records: Records, batch: Batch, space: Space) -> Rows:
        """Positions of the events that would count if they are applied; to be asked before.

        `space`: any; only its places in the filter are read.
        """
        at = np.flatnonzero((batch.item_rows >= 0) & self._wanted(batch.actions, batch.values))
        users, rows = batch.users[at], batch.item_rows[at]
        new = ~was_seen(records["seen"][users], space.slots[rows][:, None])[:, 0]
        at, pairs = at[new], users[new] * len(self._catalog) + rows[new]
        return at[np.unique(pairs, return_index=True)[1]]

    def note(self, batch: Batch, first: Rows, applied: Rows) -> None:
        """Count the events that were applied, of those of `first_times`."""
        was_applied = np.zeros(len(batch.users), np.bool_)
        was_applied[applied] = True
        counted = first[was_applied[first]]
        self._grow()
        self._recent.note(batch.item_rows[counted], batch.ts[counted])

    def forget(self, records: Records) -> None:
        """Take out what an erased user added, as far as her profile remembers it.

        Older events of hers are worth next to nothing by then; counts are never below nought.
        """
        self._grow()
        history = read_history(records)
        at = history.mask & ~history.said
        rows = self._catalog.rows_of(history.items[at])
        kept = np.flatnonzero((rows >= 0) & self._wanted(history.actions[at], history.values[at]))
        rows, ts = rows[kept], history.ts[at][kept]
        first = np.unique(rows, return_index=True)[1]
        self._recent.take_back(rows[first], ts[first])

    def _wanted(self, actions: Ints, values: Floats) -> Bools:
        """Which events say that their user wants the item.  Shapes: (M,) -> (M,)."""
        wanted: Bools = target_weights(self._weights, self._rate, actions, values) > 0
        return wanted

    def lift(self, spaces: Sequence[Space], now_s: float) -> None:
        """Work out the lifts of spaces that are due."""
        pause_s = max(LIFT_EVERY_S, len(self._catalog) / ITEMS_A_SECOND)
        for space in spaces:
            if now_s - self._lifted.get(space.release_id, -np.inf) < pause_s:
                continue
            self._grow()
            recent = self._recent.at(self._recent.now_s)
            lifts = self._trend.lifts(recent[: len(space.counts)], space.counts)
            space.lift(lifts)
            self._lifted[space.release_id] = now_s
            self._metrics.trend_events.set(float(recent.sum()))
            self._metrics.trending_items.set(float((lifts >= TRENDING).sum()))
        if len(self._lifted) > len(spaces):
            names = {space.release_id for space in spaces}
            self._lifted = {name: at for name, at in self._lifted.items() if name in names}

    def _snapshot(self) -> Kept:
        self._grow()
        now_s = self._recent.now_s
        counts = self._recent.at(now_s)
        rows = np.flatnonzero(counts >= LEAST_WORTH)
        if len(rows) > KEPT_ITEMS:
            rows = rows[np.argpartition(-counts[rows], KEPT_ITEMS)[:KEPT_ITEMS]]
        return Kept(now_s, self._catalog.keys[rows].tolist(), counts[rows].round(3).tolist())

    async def keep(self, state: StateThread) -> None:
        """Write the file.  A disk that is full costs the trend after a restart, and no more."""
        kept = await state.run(self._snapshot)
        if self._file is None or not kept.items:
            return
        try:
            await asyncio.to_thread(replace_file, self._file, msgspec.json.encode(kept))
        except OSError as error:
            log.warning("trend not kept", file=str(self._file), error=str(error))

    def _read(self) -> tuple[dict[int, float], float]:
        """Counts of the file by item, to be taken in as the catalogue is read, and of when."""
        nothing: tuple[dict[int, float], float] = {}, -np.inf
        if self._file is None:
            return nothing
        try:
            kept = msgspec.json.decode(self._file.read_bytes(), type=Kept)
        except FileNotFoundError:
            return nothing
        except (OSError, msgspec.DecodeError) as error:
            log.warning("trend lost: its file is damaged", file=str(self._file), error=str(error))
            return nothing
        return dict(zip(kept.items, kept.counts, strict=False)), kept.now_s

    async def keep_running(self, state: StateThread) -> None:
        """Keep the counts now and then, for as long as the worker lives."""
        while True:
            await asyncio.sleep(KEEP_EVERY_S)
            await self.keep(state)

    def _grow(self) -> None:
        """Follow the catalogue; what the file said of its new items is taken in."""
        size, before = len(self._catalog), len(self._recent)
        if size == before:
            return
        self._recent.grow(size)
        keys: npt.NDArray[np.uint64] = self._catalog.keys[before:]
        if self._waiting:
            counts = np.array([self._waiting.pop(key, 0.0) for key in keys.tolist()])
            known = np.flatnonzero(counts)
            self._recent.note(before + known, np.full(len(known), self._kept_s), counts[known])
