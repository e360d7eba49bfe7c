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
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.space import Space

SLICES = 8
"""The window moves by an eighth of itself."""
REPORT_EVERY_S = 5.0
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
        self._ranks: tuple[str, int, Floats] = "", 0, np.zeros(0)

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
        if size > len(self._totals):
            more = size - len(self._totals)
            self._totals = np.pad(self._totals, (0, more))
            self._slices = np.pad(self._slices, ((0, 0), (0, more)))
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
        outputs, slots = int(self._outputs.sum()), int(self._totals.sum())
        if outputs < LEAST_OUTPUTS or not slots:
            return
        metrics, shown = self._metrics, self._totals
        on_sale = self._catalog.available[: len(shown)]
        metrics.exposure_coverage.set(float((shown > 0).sum()) / max(int(on_sale.sum()), 1))
        metrics.exposure_gini.set(gini(shown[on_sale | (shown > 0)]))
        metrics.exposure_popularity.set(float(shown @ self._popularity(space)) / slots)
        metrics.exposure_top_item.set(float(shown.max()) / outputs)
        capped = shown >= self._settings.exposure_cap * outputs
        metrics.exposure_capped.set(float(capped.sum()) if self._settings.exposure_cap < 1 else 0.0)
        for tag in self._settings.exposure_tags:
            tagged = self._catalog.with_tags([tag])[: len(shown)]
            metrics.exposure_share.labels(tag).set(float(shown[tagged].sum()) / slots)
            share = float((tagged & on_sale).sum()) / max(int(on_sale.sum()), 1)
            metrics.catalogue_share.labels(tag).set(share)

    def _popularity(self, space: Space) -> Floats:
        """Share of the catalogue that is less popular, by the events the release learned from.

        Shapes: -> (rows counted,), 0 to 1.
        """
        name, size, ranks = self._ranks
        if (name, size) != (space.release_id, len(self._totals)):
            size = len(self._totals)
            events = np.zeros(size)
            rows = self._catalog.rows_of(space.release.items.keys)
            known = (rows >= 0) & (rows < size)
            events[rows[known]] = space.release.items.counts[known]
            ranks = percentiles(events)
            self._ranks = space.release_id, size, ranks
        return ranks


def percentiles(values: npt.NDArray[np.floating]) -> Floats:
    """Of each value the share of values below it, and half of those equal to it.

    >>> percentiles(np.array([5.0, 0.0, 0.0, 9.0])).tolist()
    [0.625, 0.25, 0.25, 0.875]
    """
    ordered = np.sort(values)
    below = np.searchsorted(ordered, values, side="left")
    upto = np.searchsorted(ordered, values, side="right")
    share: Floats = (below + upto) / (2.0 * max(len(values), 1))
    return share


def gini(counts: Counts) -> float:
    """How unevenly slots fall to items: 0 when all get as many, near 1 when one gets all.

    Source: half the relative mean absolute difference (Gini 1912).

    >>> gini(np.array([5, 5, 5])), round(gini(np.array([0, 0, 0, 9])), 2)
    (0.0, 0.75)
    """
    ordered = np.sort(counts)
    total, size = int(ordered.sum()), len(ordered)
    if not total:
        return 0.0
    return float((2 * np.arange(1, size + 1) - size - 1) @ ordered / (size * total))
