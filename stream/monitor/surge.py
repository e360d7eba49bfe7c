"""When an entity's negative posts surge, and when the surge is over.

Two things must agree.  river's Page-Hinkley test over the buckets' surprise (what came, less what
the season and the entity's level expect, in standard deviations of a Poisson count) finds that
something changed upwards; the sliding window then says whether it is large enough, in numbers and
in share, to wake somebody.  The test alone would report a change of half a post; the window alone
would report every third of three posts at night.

While an alert stands nothing is learned, or a long surge would become its own normal, and no second
alert is raised.  It ends when the window has been calm for a while; or, as `settled`, when it has
stood so long that this is how things are now.

Source: Page 1954, Continuous inspection schemes; river.drift.PageHinkley.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from river.drift import PageHinkley

from profiles.settings.monitor import MonitorSettings
from stream.monitor.windows import Cell, Level, merged

LONGEST_GAP = 100_000
"""Observations for which Page-Hinkley has no memory of its own: the surprise has mean nought."""


@dataclass(frozen=True, slots=True)
class Change:
    """An alert begins or ends.  `since_s`, `at_s`: of the window's beginning, and of now;
    `raised_s`: when it was raised."""

    state: Literal["raised", "recovered"]
    reason: Literal["surge", "calm", "settled"]
    since_s: float
    raised_s: float
    at_s: float
    window: Cell
    expected: float
    usual_share: float


def surprise(negative: float, expected: float, grain: float = 1.0) -> float:
    """How far a sum of probabilities lies above (or below) the expected, in standard deviations.

    A sum of grains is to its grain as a Poisson count is to one; and the square root makes a
    count's spread one whatever its size: (x - e) / sqrt(e) calls twelve posts of four expected 4
    deviations, and chance brings them in every thousandth window.
    Source: Anscombe 1948, The transformation of Poisson, binomial and negative-binomial data.

    >>> round(surprise(12.0, 4.0), 2), surprise(4.0, 4.0)
    (2.85, 0.0)
    >>> surprise(3.0, 1.0, grain=0.25) == surprise(12.0, 4.0)
    True
    """
    return 2.0 * (math.sqrt(negative / grain + 0.375) - math.sqrt(expected / grain + 0.375))


class SurgeDetector:
    """One entity.  Give it every bucket, in order, the empty ones too."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self.level = Level(settings.memory_s)
        self._cells: deque[tuple[Cell, float]] = deque(maxlen=settings.window_buckets)
        self._test = self._new_test()
        self._observed_s = 0.0
        self._suspected_for = 0
        self._calm_s = 0.0
        self._over: list[tuple[float, float]] = []
        self._told_s = -math.inf
        self.raised_since_s: float | None = None
        self._raised_s = 0.0

    def expected(self, factor: float) -> float:
        """Negative posts expected of the next bucket."""
        return self.level.negative * factor

    def restore(self, since_s: float, told_s: float, until_s: float | None) -> None:
        """An alert was told then, says the topic; it still stands where `until_s` is None."""
        # A kill between telling and committing: what led to it comes again, and is not new.
        self._told_s = max(told_s, until_s or told_s)
        if until_s is None:
            self.raised_since_s, self._raised_s = since_s, told_s
        else:
            self._over.append((since_s, until_s))

    def close(
        self, begins_s: float, cell: Cell, factor: float, *, is_past: bool = False
    ) -> Change | None:
        """Take the bucket that began then.

        `is_past`: it was decided on before, so it only tells what is usual and what was suspected.
        """
        settings = self._settings
        ends_s = begins_s + settings.bucket_s
        expected = self.expected(factor)
        self._cells.append((cell, expected))
        is_past = is_past or ends_s <= self._told_s
        stands = self.raised_since_s is not None and ends_s > self.raised_since_s
        if stands or any(since_s < ends_s <= until_s for since_s, until_s in self._over):
            return None if is_past or not stands else self._while_raised(ends_s)
        self.level.learn(cell, factor, settings.bucket_s)
        self._observed_s += settings.bucket_s
        if self._observed_s < settings.warm_up_s:
            return None
        self._suspect(cell, expected)
        if is_past or not self._suspected_for or not self._is_large():
            return None
        self._suspected_for, self._calm_s = 0, 0.0
        self.raised_since_s = ends_s - len(self._cells) * settings.bucket_s
        self._raised_s = ends_s
        return self._change("raised", "surge", self.raised_since_s, ends_s)

    def _suspect(self, cell: Cell, expected: float) -> None:
        """Ask the test; what it finds holds for a window, for it forgets what it has told."""
        self._suspected_for = max(0, self._suspected_for - 1)
        found = surprise(cell.negative, expected, self.level.grain)
        self._test.update(found)  # type: ignore[no-untyped-call]
        if self._test.drift_detected:
            self._suspected_for = self._settings.window_buckets

    def _while_raised(self, ends_s: float) -> Change | None:
        assert self.raised_since_s is not None, "the caller looked"
        settings = self._settings
        window, expected = self._window()
        is_calm = self._surprise(window, expected) < settings.recover_at
        self._calm_s = self._calm_s + settings.bucket_s if is_calm else 0.0
        reason: Literal["calm", "settled"]
        if self._calm_s >= settings.calm_s:
            reason = "calm"
        elif ends_s - self.raised_since_s >= settings.longest_s:
            reason = "settled"
            # What stood for so long is usual now; and what is usual is to be learned anew.
            self.level, self._observed_s = Level(settings.memory_s), 0.0
        else:
            return None
        change = self._change("recovered", reason, self.raised_since_s, ends_s)
        self.raised_since_s, self._test = None, self._new_test()
        return change

    def _is_large(self) -> bool:
        window, expected = self._window()
        share = window.negative / window.items if window.items else 0.0
        return (
            window.items >= self._settings.min_items
            and share > self.level.share
            and self._surprise(window, expected) >= self._settings.raise_at
        )

    def _surprise(self, window: Cell, expected: float) -> float:
        return surprise(window.negative, expected, self.level.grain)

    def _window(self) -> tuple[Cell, float]:
        whole = merged([cell for cell, _ in self._cells])
        return whole, sum(expected for _, expected in self._cells)

    def _change(
        self,
        state: Literal["raised", "recovered"],
        reason: Literal["surge", "calm", "settled"],
        since_s: float,
        at_s: float,
    ) -> Change:
        window, expected = self._window()
        return Change(
            state, reason, since_s, self._raised_s, at_s, window, expected, self.level.share
        )

    def _new_test(self) -> PageHinkley:
        return PageHinkley(
            min_instances=1,
            delta=self._settings.slack,
            threshold=self._settings.change_at,
            alpha=1.0 - 1.0 / LONGEST_GAP,
            mode="up",
        )
