"""Opinions in, alerts out: every entity's buckets, the season they share, and who is in alarm.

Time is the items' own (`advance` is told what it is): a replay of a year in an hour gives the
alerts of that year.  Given the same opinions and times the book says the same, whatever the pace.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from profiles.opinions import Alert, Evidence
from profiles.settings.monitor import MonitorSettings
from stream.monitor.surge import Change, SurgeDetector
from stream.monitor.windows import Cell, Opinion, Season

NOTHING = Cell()


class OpinionBook:
    """Counts opinions and says what changed.  Not safe for threads."""

    def __init__(self, settings: MonitorSettings) -> None:
        self._settings = settings
        self._season = Season(settings.season_s)
        self._detectors: dict[str, SurgeDetector] = {}
        self._open: defaultdict[int, dict[str, Cell]] = defaultdict(dict)
        self._next: int | None = None  # the oldest bucket that is not closed

    @property
    def entities(self) -> int:
        """How many are watched."""
        return len(self._detectors)

    @property
    def raised(self) -> int:
        """How many alerts stand."""
        return sum(each.raised_since_s is not None for each in self._detectors.values())

    @property
    def decided_s(self) -> float | None:
        """Everything before this time has been decided on; None before the first opinion."""
        return None if self._next is None else self._next * self._settings.bucket_s

    def restore(self, alerts: Sequence[Alert]) -> None:
        """What was told before, oldest first: one that was raised and not recovered stands."""
        raised: dict[str, Alert] = {}
        for alert in alerts:
            if alert.state == "raised":
                raised[alert.entity] = alert
            elif (before := raised.pop(alert.entity, None)) is not None:
                self._detector(alert.entity).restore(before.since, before.at, alert.at)
        for alert in raised.values():
            self._detector(alert.entity).restore(alert.since, alert.at, None)

    def add(self, opinion: Opinion) -> str:
        """Count an opinion.  Returns: `counted`, `late` or `crowded` (one entity too many)."""
        bucket = int(opinion.at_s // self._settings.bucket_s)
        if self._next is None:
            self._next = bucket
        if bucket < self._next:
            return "late"
        known = opinion.entity in self._detectors
        if not known and len(self._detectors) >= self._settings.entities:
            return "crowded"
        self._detector(opinion.entity)
        self._open[bucket].setdefault(opinion.entity, Cell()).add(opinion)
        return "counted"

    def advance(self, now_s: float, release_id: str = "", *, is_past: bool = False) -> list[Alert]:
        """Close every bucket that ended `late_s` ago.

        `is_past`: they were decided on before; nothing is raised or recovered.
        """
        settings = self._settings
        if self._next is None:
            return []
        end = int((now_s - settings.late_s) // settings.bucket_s)
        # After a long silence a cycle of empty buckets says as much as ten thousand.
        cycle = settings.window_buckets + round(settings.season_s / settings.bucket_s)
        if end - self._next > cycle and not self._open:
            self._next = end - cycle
        alerts: list[Alert] = []
        while self._next < end:
            alerts += self._close(self._next, release_id, is_past)
            self._next += 1
        return alerts

    def _close(self, bucket: int, release_id: str, is_past: bool) -> list[Alert]:
        begins_s = bucket * self._settings.bucket_s
        cells = self._open.pop(bucket, {})
        factor = self._season.factor(begins_s)
        alerts: list[Alert] = []
        seen = level = 0.0
        for entity, detector in self._detectors.items():
            cell = cells.get(entity, NOTHING)
            if detector.raised_since_s is None:
                seen += cell.negative
                level += detector.level.negative
            change = detector.close(begins_s, cell, factor, is_past=is_past)
            if change is not None:
                alerts.append(told(entity, change, release_id))
        self._season.learn(begins_s, self._settings.bucket_s, seen, level)
        return alerts

    def _detector(self, entity: str) -> SurgeDetector:
        detector = self._detectors.get(entity)
        if detector is None:
            detector = self._detectors[entity] = SurgeDetector(self._settings)
        return detector


def told(entity: str, change: Change, release_id: str) -> Alert:
    """The message about a change.  Its id is the same for raised and recovered, and when it is
    decided on again."""
    window = change.window
    source = f"{entity}\x1f{change.raised_s:.3f}".encode("utf-8", "surrogatepass")
    return Alert(
        alert_id=hashlib.blake2b(source, digest_size=16).hexdigest(),
        entity=entity,
        state=change.state,
        reason=change.reason,
        since=change.since_s,
        at=change.at_s,
        items=window.items,
        negative=round(window.negative, 3),
        expected=round(change.expected, 3),
        share=round(window.negative / window.items, 4) if window.items else 0.0,
        usual_share=round(change.usual_share, 4),
        evidence=[
            Evidence(item_id, round(negative, 4), title)
            for negative, item_id, title in window.worst
        ],
        topics=dict(window.topics.most_common()),
        release_id=release_id,
    )
