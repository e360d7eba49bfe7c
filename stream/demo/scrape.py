"""What the demo's processes say about themselves: their /metrics, as one value."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from stream.demo.processes import Child


@dataclass(frozen=True, slots=True)
class Live:
    """How often the workers had an event's item among their first ten, under one release."""

    events: float
    hits: float
    gain: float

    @property
    def hr10(self) -> float:
        return self.hits / self.events if self.events else 0.0

    @property
    def ndcg10(self) -> float:
        return self.gain / self.events if self.events else 0.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One look at all processes.  `swaps`, `serving`: by worker; `quality`: by release."""

    applied: float = 0.0
    recommendations: float = 0.0
    dead: float = 0.0
    profiles: float = 0.0
    swaps: dict[str, int] = field(default_factory=dict)
    serving: dict[str, str] = field(default_factory=dict)
    quality: dict[str, Live] = field(default_factory=dict)
    refused: float = 0.0
    is_learning: bool = False
    rounds: dict[str, int] = field(default_factory=dict)
    learned_events: float = 0.0

    @property
    def fewest_swaps(self) -> int:
        """Swaps of the worker that has the fewest."""
        return min(self.swaps.values(), default=0)


Samples = dict[str, list[tuple[dict[str, str], float]]]


def parse(text: str) -> Samples:
    """Prometheus text as name to (labels, value).

    >>> parse('a_total{x="1"} 2.0\\n')["a_total"]
    [({'x': '1'}, 2.0)]
    """
    found: Samples = defaultdict(list)
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name].append((dict(sample.labels), float(sample.value)))
    return found


def look(workers: Sequence[Child], learner: Child) -> Snapshot:
    """Ask every process."""
    per_worker = {worker.name: parse(worker.metrics()) for worker in workers}
    everyone = list(per_worker.values())
    quality: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
    for place, name in enumerate(("events", "hits", "ndcg")):
        for samples in everyone:
            for labels, value in samples.get(f"driftline_prequential_{name}_total", []):
                quality[labels["release"]][place] += value
    own = parse(learner.metrics())
    return Snapshot(
        applied=_sum(everyone, "driftline_events_applied_total"),
        recommendations=_sum(everyone, "driftline_recommendations_total"),
        dead=_sum(everyone, "driftline_dead_letters_total"),
        profiles=_sum(everyone, "driftline_profiles"),
        swaps={name: int(_sum([s], "driftline_swaps_total")) for name, s in per_worker.items()},
        serving={
            name: labels.get("release_id", "")
            for name, samples in per_worker.items()
            for labels, _ in samples.get("driftline_serving_release_info", [])
        },
        quality={name: Live(*values) for name, values in sorted(quality.items())},
        refused=_sum(everyone, "driftline_releases_refused_total"),
        is_learning=_sum([own], "driftline_learning_round_running") > 0,
        rounds={
            labels["outcome"]: int(value)
            for labels, value in own.get("driftline_learning_rounds_total", [])
        },
        learned_events=_sum([own], "driftline_learner_events_total"),
    )


def _sum(sources: Iterable[Samples], name: str) -> float:
    return sum(value for samples in sources for _, value in samples.get(name, []))
