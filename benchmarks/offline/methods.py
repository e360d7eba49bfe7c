"""Which methods there are, where each runs, and what a method is.

Imports nothing heavy: a method's own module is imported by `play` in the process that runs it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol

from benchmarks.offline.exchange import Settings, Task
from benchmarks.offline.histories import Ints
from benchmarks.offline.search import Space


class Method(Protocol):
    """A recommender under comparison."""

    space: Space
    first: Settings

    def evaluate(
        self, task: Task, settings: Settings, seed: int, cpu_s: float
    ) -> tuple[float, Settings]:
        """Fit on the validation stage's rows and rank what it asks: (NDCG@10, settings)."""

    def play(self, task: Task, settings: Settings, seed: int, cpu_s: float) -> Ints:
        """Ranks of the test's asked rows, stage after stage.  `cpu_s` bounds each fit."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a method lives.  `is_random`: its result depends on a seed, so it runs with several."""

    module: str
    is_ours: bool = False
    is_random: bool = False


METHODS = {
    "popular": Entry("benchmarks.offline.peers.popularity"),
    "popular_7_days": Entry("benchmarks.offline.peers.popularity"),
    "item_knn": Entry("benchmarks.offline.peers.neighbours"),
    "ease": Entry("benchmarks.offline.peers.neighbours"),
    "text_neighbours": Entry("benchmarks.offline.peers.neighbours"),
    "als": Entry("benchmarks.offline.peers.factors", is_random=True),
    "bpr": Entry("benchmarks.offline.peers.factors", is_random=True),
    "sasrec": Entry("benchmarks.offline.peers.sequential", is_random=True),
    "bert4rec": Entry("benchmarks.offline.peers.sequential", is_random=True),
    "driftline": Entry("benchmarks.offline.ours", is_ours=True, is_random=True),
    "driftline_frozen_text": Entry("benchmarks.offline.ours", is_ours=True, is_random=True),
}
"""Every module has `METHODS`, a mapping of these names to `Method`."""

PEER_MODULES = {
    "rectools": ("item_knn", "ease", "sasrec", "bert4rec"),
    "implicit": ("item_knn", "als", "bpr"),
}
"""What the peers' environment must be able to import, and who needs it."""


def load_method(name: str) -> Method:
    """Import a method's module and take the method out of it."""
    method: Method = importlib.import_module(METHODS[name].module).METHODS[name]
    return method
