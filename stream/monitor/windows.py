"""How much an entity is usually spoken ill of: counts by bucket of time, season and level.

A bucket is a few minutes.  What is expected of it is the entity's own level (weighted mean of its
buckets, the season taken out) times the season of the hour: a factor for each hour of a day (or of
a week), pooled over all entities, since most have too few posts for a season of their own.

A probability stands in for a post, so a doubtful one counts half.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from dataclasses import dataclass, field

SLOT_S = 3600.0
LEAST_GRAIN = 0.01
EVIDENCE = 5
"""Items named with an alert: the worst of the window."""


@dataclass(frozen=True, slots=True)
class Opinion:
    """What one text says of an entity.  `at_s` is when, `negative` the probability that it is."""

    item_id: str
    entity: str
    at_s: float
    negative: float
    topic: str = ""
    title: str = ""


@dataclass(slots=True)
class Cell:
    """One entity in one bucket.  `squared`: the sum of the squares of what `negative` sums."""

    items: int = 0
    negative: float = 0.0
    squared: float = 0.0
    worst: list[tuple[float, str, str]] = field(default_factory=list)
    topics: Counter[str] = field(default_factory=Counter)

    def add(self, opinion: Opinion) -> None:
        """Count a text."""
        self.items += 1
        self.negative += opinion.negative
        self.squared += opinion.negative**2
        if opinion.topic:
            self.topics[opinion.topic] += 1
        keep = heapq.heappush if len(self.worst) < EVIDENCE else heapq.heappushpop
        keep(self.worst, (opinion.negative, opinion.item_id, opinion.title))


def merged(cells: list[Cell]) -> Cell:
    """Several buckets of an entity as one.

    >>> one, two = Cell(), Cell()
    >>> one.add(Opinion("a", "Acme", 0.0, 0.9)); two.add(Opinion("b", "Acme", 9.0, 0.4))
    >>> both = merged([one, two])
    >>> both.items, both.negative, both.worst[0][1]
    (2, 1.3, 'a')
    """
    whole = Cell()
    for cell in cells:
        whole.items += cell.items
        whole.negative += cell.negative
        whole.squared += cell.squared
        whole.topics += cell.topics
    whole.worst = heapq.nlargest(EVIDENCE, (each for cell in cells for each in cell.worst))
    return whole


class Season:
    """The factor of each hour of a cycle, over all entities; 1 until it has seen something else.

    `trust`: so many expected negative posts an hour must have had before its factor is half its
    own.

    >>> season = Season(86_400.0, trust=1.0)
    >>> season.learn(3600.0, 300.0, seen=3.0, level=1.0)
    >>> season.factor(3600.0), season.factor(7200.0)
    (2.0, 1.0)
    """

    def __init__(self, cycle_s: float, trust: float = 20.0, cycles: float = 14.0) -> None:
        self._slots = max(1, round(cycle_s / SLOT_S))
        self._trust, self._cycles = trust, cycles
        self._seen = [0.0] * self._slots
        self._expected = [0.0] * self._slots

    def factor(self, at_s: float) -> float:
        """What to multiply a level by at this time."""
        slot = self._slot(at_s)
        below = self._expected[slot] + self._trust
        return (self._seen[slot] + self._trust) / below if below else 1.0

    def learn(self, at_s: float, bucket_s: float, seen: float, level: float) -> None:
        """All entities together had `seen` in this bucket, and `level` without a season."""
        slot = self._slot(at_s)
        kept = math.exp(-bucket_s / (SLOT_S * self._cycles))
        self._seen[slot] = self._seen[slot] * kept + seen
        self._expected[slot] = self._expected[slot] * kept + level

    def _slot(self, at_s: float) -> int:
        return int(at_s // SLOT_S) % self._slots


@dataclass(slots=True)
class Level:
    """An entity's usual negative posts and posts in a bucket, the season taken out.

    A weighted mean over `memory_s`; `share` is what part of its posts is usually negative.
    """

    memory_s: float
    _negative: float = 0.0
    _squared: float = 0.0
    _items: float = 0.0
    _weight: float = 0.0

    def learn(self, cell: Cell, factor: float, bucket_s: float) -> None:
        """Take a bucket in; `factor` is the season's."""
        kept = math.exp(-bucket_s / self.memory_s)
        self._negative = self._negative * kept + cell.negative
        self._squared = self._squared * kept + cell.squared
        self._items = self._items * kept + cell.items
        self._weight = self._weight * kept + factor

    @property
    def negative(self) -> float:
        """Negative posts in a bucket of an ordinary hour."""
        return self._negative / self._weight if self._weight else 0.0

    @property
    def share(self) -> float:
        """The usual part of negative posts."""
        return self._negative / self._items if self._items else 0.0

    @property
    def grain(self) -> float:
        """What one post adds, on average of what is added: a sum of many small probabilities
        spreads less than a count of the same size.  1 for posts that are surely one or the other.
        """
        return max(self._squared / self._negative, LEAST_GRAIN) if self._negative else 1.0
