"""What this worker shows, counted: who is seen, how unevenly, and how much of it is one item.

Counts lie in slices of a sliding window and move on the state thread, one `np.add.at` for each
batch of recommendations; figures are drawn from them every few seconds.  With
`serving.exposure_cap` an item that is in too many of the window's recommendations is no candidate
until it is in fewer.

Every worker counts its own recommendations, so the cap holds for each worker's users: over all of
them as well, but not for one partition or one hour of a quiet worker.  After a restart the window
is empty.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from profiles.catalog import Catalog, Rows
from profiles.growing import with_room
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.space import Space

SLICES = 8
"""The window moves by an eighth of itself."""
REPORT_EVERY_S = 5.0
MANY = 1 << 16
"""Counts below are tallied without being sorted."""
LEAST_OUTPUTS = 200
"""Of fewer recommendations no share is told, and no item is capped."""

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class Exposure:
    """Counts slots by catalogue row; used on the state thread alone."""

    def __init__(self, catalog: Catalog, settings: ServingSettings, metrics: WorkerMetrics) -> None:
        self._catalog, self._settings, self._metrics = catalog, settings, metrics
        self._slices: Counts = np.zeros((SLICES, len(catalog)), dtype=np.int64)
        self._totals: Counts = np.zeros(len(catalog), dtype=np.int64)
        self._outputs: Counts = np.zeros(SLICES, dtype=np.int64)
        self._turn = 0
        self._reported_s = 0.0

    def note(self, rows: Rows, space: Space, now_s: float) -> None:
        """Count what a batch of recommendations shows.  Shapes: rows (B, K), -1 for none."""
        self._move_to(now_s)
        slots = rows[rows >= 0]
        at = self._turn % SLICES
        np.add.at(self._slices[at], slots, 1)
        np.add.at(self._totals, slots, 1)
        self._outputs[at] += len(rows)
        if now_s - self._reported_s >= REPORT_EVERY_S:
            self._reported_s = now_s
            self._report(space)

    def bar_capped(self, allowed: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """The allowed items less those at the cap.  Shapes: (N,) -> (N,)."""
        cap, outputs = self._settings.exposure_cap, int(self._outputs.sum())
        if cap >= 1.0 or outputs < LEAST_OUTPUTS:
            return allowed
        open_ = allowed.copy()
        open_[: len(self._totals)] &= self._totals[: len(allowed)] < cap * outputs
        return open_

    def _move_to(self, now_s: float) -> None:
        size = len(self._catalog)
        self._totals = with_room(self._totals, size)
        self._slices = with_room(self._slices, size, axis=1)
        turn = int(now_s / self._settings.exposure_window_s * SLICES)
        # Clocks may be set back: then the present slice goes on.
        for _ in range(min(max(turn - self._turn, 0), SLICES)):
            self._turn += 1
            at = self._turn % SLICES
            self._totals -= self._slices[at]
            self._slices[at] = 0
            self._outputs[at] = 0
        self._turn = max(self._turn, turn)

    def _report(self, space: Space) -> None:
        shown = self._totals[: len(self._catalog)]
        outputs, slots = int(self._outputs.sum()), int(shown.sum())
        if outputs < LEAST_OUTPUTS or not slots:
            return
        metrics = self._metrics
        on_sale = self._catalog.available[: len(shown)]
        metrics.exposure_coverage.set(float((shown > 0).sum()) / max(int(on_sale.sum()), 1))
        metrics.exposure_gini.set(gini(shown[on_sale | (shown > 0)]))
        metrics.exposure_popularity.set(self._popularity(space, shown))
        metrics.exposure_top_item.set(float(shown.max()) / outputs)
        capped = shown >= self._settings.exposure_cap * outputs
        metrics.exposure_capped.set(float(capped.sum()) if self._settings.exposure_cap < 1 else 0.0)
        for tag in self._settings.exposure_tags:
            tagged = self._catalog.with_tags([tag])[: len(shown)]
            metrics.exposure_share.labels(tag).set(float(shown[tagged].sum()) / slots)
            share = float((tagged & on_sale).sum()) / max(int(on_sale.sum()), 1)
            metrics.catalogue_share.labels(tag).set(share)

    def _popularity(self, space: Space, shown: Counts) -> float:
        """How popular what is shown is: the share of the catalogue that is less so, by the events
        that the release learned from, in the mean over slots.  Shapes: shown (N,) -> 0 to 1."""
        events = np.zeros(len(shown), np.int64)
        learned = space.counts[: len(shown)]
        events[: len(learned)] = np.rint(learned)
        values, times = tallied(events)
        # Of each value the share of items below it, and half of those equal to it.
        shares = (np.cumsum(times) - times / 2.0) / len(events)
        rows = np.flatnonzero(shown)
        found = shares[np.searchsorted(values, events[rows])]
        return float(shown[rows] @ found) / int(shown.sum())


def tallied(counts: Counts) -> tuple[Counts, Counts]:
    """The different values in ascending order, and how often each occurs.

    As `np.unique`, which sorts: a million items would hold events up for a tenth of a second.

    >>> values, times = tallied(np.array([5, 0, 0, 70_000, 9]))
    >>> values.tolist(), times.tolist()
    ([0, 5, 9, 70000], [2, 1, 1, 1])
    """
    few = np.bincount(counts[counts < MANY], minlength=1)
    values = np.flatnonzero(few)
    more, often = np.unique(counts[counts >= MANY], return_counts=True)
    return np.concatenate([values, more]), np.concatenate([few[values], often])


def gini(counts: Counts) -> float:
    """How unevenly slots fall to items: 0 when all get as many, near 1 when one gets all.

    Source: half the relative mean absolute difference (Gini 1912).

    >>> gini(np.array([5, 5, 5])), round(gini(np.array([0, 0, 0, 9])), 2)
    (0.0, 0.75)
    """
    total, size = int(counts.sum()), len(counts)
    if not total:
        return 0.0
    values, times = tallied(counts)
    before = np.cumsum(times) - times
    # Those of one value stand in the places after `before`: the sum of 2 place - size - 1.
    return float(values @ (times * (2 * before + times - size))) / (size * total)
