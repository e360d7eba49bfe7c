"""Streams of real texts at made-up times about made-up entities, with injected surges.

An entity's posts come by a Poisson process with a daily rhythm; each is drawn from a part of the
texts, negative with the entity's own share.  A surge multiplies the negative posts of one entity
for some hours.  Times, entities and surges are **synthetic**, texts and their sentiment are not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from benchmarks.finance.texts import Part
from profiles.opinions import Alert
from profiles.settings.monitor import MonitorSettings
from stream.monitor.book import OpinionBook
from stream.monitor.classes import SENTIMENTS, Doubles, Rows
from stream.monitor.windows import Opinion

DAY_S = 86_400.0
HOUR_S = 3600.0
NEGATIVE = SENTIMENTS.index("negative")
START_S = 20_000 * DAY_S
SURGE_S = 3 * HOUR_S
AFTER_S = 4 * HOUR_S
"""An alert so long after a surge's end still belongs to it."""


@dataclass(frozen=True, slots=True)
class Surge:
    """One entity, for `SURGE_S` from `begins_s`, has `times` as many negative posts."""

    entity: str
    begins_s: float
    times: float


@dataclass(frozen=True, slots=True)
class Stream:
    """Posts in order of time.  Shapes: at_s (P,), entity (P,), row (P,) in the part's texts."""

    days: float
    at_s: Doubles
    entity: Rows
    row: Rows
    surges: tuple[Surge, ...]


def make_stream(
    part: Part,
    seed: int,
    *,
    days: float,
    entities: int,
    per_hour: float,
    times: float,
    warm_up_days: float,
) -> Stream:
    """`times` <= 1: no surges; else every entity has one every other day after the warm-up."""
    random = np.random.default_rng(seed)
    pools = (
        np.flatnonzero(part.sentiment == NEGATIVE),
        np.flatnonzero(part.sentiment != NEGATIVE),
    )
    minutes: Doubles = START_S + np.arange(int(days * 24 * 60), dtype=np.float64) * 60.0
    at: list[Doubles] = []
    who: list[Rows] = []
    rows: list[Rows] = []
    surges: list[Surge] = []
    for entity in range(entities):
        share = random.uniform(0.1, 0.3)
        rate = per_hour * random.uniform(0.5, 1.5) / 60.0 * rhythm(minutes)
        boost = np.ones(len(minutes))
        for day in range(int(warm_up_days), int(days), 2) if times > 1 else ():
            begins_s = START_S + (day + random.uniform(0.0, 0.8)) * DAY_S
            boost[(minutes >= begins_s) & (minutes < begins_s + SURGE_S)] = times
            surges.append(Surge(f"entity-{entity}", begins_s, times))
        for expected, pool in zip((rate * share * boost, rate * (1.0 - share)), pools, strict=True):
            when = np.repeat(minutes, random.poisson(expected))
            at.append(when + random.uniform(0.0, 60.0, len(when)))
            who.append(np.full(len(when), entity))
            rows.append(random.choice(pool, len(when)))
    order = np.argsort(np.concatenate(at), kind="stable")
    return Stream(
        days,
        np.concatenate(at)[order],
        np.concatenate(who)[order],
        np.concatenate(rows)[order],
        tuple(surges),
    )


def rhythm(at_s: Doubles) -> Doubles:
    """Four times as much in the afternoon as at night, UTC; 1 on average."""
    wave: Doubles = 1.0 + 0.6 * np.sin(2.0 * np.pi * (at_s % DAY_S - 9 * HOUR_S) / DAY_S)
    return wave


@dataclass(slots=True)
class Outcome:
    """What the alerts of some streams came to."""

    surges: int = 0
    delays_s: list[float] = field(default_factory=list)
    delays_posts: list[int] = field(default_factory=list)
    false_alarms: int = 0
    entity_days: float = 0.0
    evidence: int = 0
    evidence_right: int = 0

    def figures(self, entities: int) -> dict[str, object]:
        """For the report; `false_alarms_per_day` is of a desk of so many entities."""
        minutes = [delay / 60.0 for delay in self.delays_s]
        days = self.entity_days
        return {
            "surges": self.surges,
            "found": len(self.delays_s),
            "recall": round(len(self.delays_s) / self.surges, 4) if self.surges else None,
            "delay_minutes_median": round(float(np.median(minutes)), 1) if minutes else None,
            "delay_minutes_p90": round(float(np.quantile(minutes, 0.9)), 1) if minutes else None,
            "delay_posts_median": float(np.median(self.delays_posts)) if minutes else None,
            "false_alarms": self.false_alarms,
            "entity_days": round(days, 1),
            "false_alarms_per_entity_day": round(self.false_alarms / days, 5) if days else None,
            "false_alarms_per_day": round(self.false_alarms / days * entities, 4) if days else None,
            "evidence_truly_negative": (
                round(self.evidence_right / self.evidence, 4) if self.evidence else None
            ),
        }


def watch(
    outcome: Outcome,
    stream: Stream,
    part: Part,
    negative: Doubles,
    settings: MonitorSettings,
    warm_up_days: float,
) -> None:
    """Play a stream through the book and add up what it tells.

    `negative`: probability of each text of the part, shape (N,).
    """
    book = OpinionBook(settings)
    open_surges = {(surge.entity, surge.begins_s): surge for surge in stream.surges}
    outcome.surges += len(open_surges)
    counted_from_s = START_S + warm_up_days * DAY_S
    entities = int(stream.entity.max()) + 1
    outcome.entity_days += entities * (stream.days - warm_up_days)
    for alert in _alerts(book, stream, negative, settings):
        if alert.state != "raised" or alert.at < counted_from_s:
            continue
        for each in alert.evidence:
            outcome.evidence += 1
            outcome.evidence_right += int(part.sentiment[int(each.title)] == NEGATIVE)
        mine = next(
            (
                surge
                for surge in stream.surges
                if surge.entity == alert.entity
                and surge.begins_s < alert.at <= surge.begins_s + SURGE_S + AFTER_S
            ),
            None,
        )
        if mine is None:
            outcome.false_alarms += 1
        elif open_surges.pop((mine.entity, mine.begins_s), None) is not None:
            # It is told when the bucket's time for late items is over.
            told_s = alert.at + settings.late_s
            outcome.delays_s.append(told_s - mine.begins_s)
            number = int(mine.entity.split("-")[1])
            since = (stream.at_s >= mine.begins_s) & (stream.at_s <= told_s)
            outcome.delays_posts.append(int((since & (stream.entity == number)).sum()))


def _alerts(
    book: OpinionBook, stream: Stream, negative: Doubles, settings: MonitorSettings
) -> Iterator[Alert]:
    next_s = 0.0
    for number, (at_s, entity, row) in enumerate(
        zip(stream.at_s.tolist(), stream.entity.tolist(), stream.row.tolist(), strict=True)
    ):
        if at_s >= next_s:
            yield from book.advance(at_s)
            next_s = at_s + settings.bucket_s / 2
        # The title carries the row, so that evidence can be compared with people's scores.
        book.add(
            Opinion(f"p{number}", f"entity-{entity}", at_s, float(negative[row]), title=str(row))
        )
    yield from book.advance(START_S + stream.days * DAY_S + DAY_S)
