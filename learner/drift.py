"""When a round is due: by count, by time, or because recommending got harder.

The drift sensor is ADWIN (Bifet & Gavaldà 2007, river's) over the prequential loss of a sample of
events: log(rank) / log(items), in [0, 1], which needs no assumption about the catalogue's size.
ADWIN tells of any change; only a rise makes a round due.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from river.drift import ADWIN

from profiles.settings.learning import LearnerSettings

ADWIN_DELTA = 0.05
"""Bound on the chance of a false alarm per check, were losses independent.  `make bench-drift`
raised none at 0.2 either; a step back, because real users' losses come in bursts."""


class DriftSensor:
    """Feed it losses; it says when they rose.

    >>> sensor = DriftSensor()
    >>> sensor.feed([0.2] * 500), sensor.feed([0.9] * 500)
    (False, True)
    """

    def __init__(self, delta: float = ADWIN_DELTA) -> None:
        self._delta = delta
        self._adwin = ADWIN(delta=delta)  # type: ignore[no-untyped-call]

    def feed(self, losses: Iterable[float]) -> bool:
        """Take losses in order.  Returns: whether a rise was found among them."""
        rose = False
        for loss in losses:
            before = self._adwin.estimation
            self._adwin.update(float(loss))  # type: ignore[no-untyped-call]
            rose |= self._adwin.drift_detected and self._adwin.estimation > before
        return rose

    def reset(self) -> None:
        """Begin anew: another release serves, its losses are another stream."""
        self._adwin = ADWIN(delta=self._delta)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Progress:
    """What has happened since the last round.  `fresh_events` are those not yet learned from;
    `rounds` those finished, whatever came of them."""

    rounds: int
    fresh_events: int
    since_last_s: float
    drifted: bool
    is_caught_up: bool


def due(progress: Progress, settings: LearnerSettings) -> str | None:
    """Why a round is due: first, count, time or drift; None when it is not.

    A first round waits for `min_events` and for the end of the backlog (or for `round_events`,
    if the backlog is longer than that).  Time and drift ask for a tenth of `min_events`, so that
    a quiet night does not make empty rounds.

    >>> due(Progress(0, 5_000, 10.0, False, True), LearnerSettings())
    'first'
    >>> due(Progress(1, 5_000, 10.0, True, True), LearnerSettings())
    'drift'
    """
    enough = progress.fresh_events >= settings.round_events
    if progress.rounds == 0:
        ready = progress.fresh_events >= settings.min_events
        return "first" if ready and (progress.is_caught_up or enough) else None
    if enough:
        return "count"
    if progress.fresh_events * 10 < settings.min_events:
        return None
    if progress.drifted:
        return "drift"
    return "time" if progress.since_last_s >= settings.round_interval_s else None
