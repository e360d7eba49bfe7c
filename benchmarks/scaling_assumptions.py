"""What the scaling table assumes: everything that our benchmarks do not measure, with its reason.

Prices are round figures in the range of large clouds' list prices for general-purpose machines on
demand, taken as inputs: replace them by yours.  Nothing here was asked of a vendor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


def _assume(value: float, why: str) -> float:
    assumed: float = field(default=value, metadata={"why": why})
    return assumed


@dataclass(frozen=True, slots=True)
class Assumptions:
    """Inputs of the table.  A name carries its unit; `reasons` says why each is what it is."""

    events_per_user_per_day: float = _assume(6, "a third of all users is active, 18 events each")
    peak_factor: float = _assume(3, "the busiest minute of a day over its mean")
    recommendations_per_event: float = _assume(1, "the most: each event gets its own answer")
    load: float = _assume(0.5, "of the sustained rate at the peak: where the latency bar is set")
    zones: float = _assume(3, "one of them may be lost at the peak")
    partitions_per_worker: float = _assume(2, "a count never changes in place: room to grow")
    replication: float = _assume(3, "of every topic")
    event_retention_days: float = _assume(28, "of the events topic, as it is created")
    uncompacted_share: float = _assume(0.5, "of compacted topics: what compaction has not met yet")
    compaction_headroom: float = _assume(0.5, "free space that RocksDB needs to compact")
    broker_mb_per_s: float = _assume(60, "written by one broker, replicas included; not measured")
    broker_disk_gib: float = _assume(4096, "of one broker")
    broker_cores: float = _assume(4, "of one broker")
    broker_gib: float = _assume(16, "of one broker, mostly page cache")
    cluster_replicas: float = _assume(200_000, "partition replicas that one KRaft cluster holds")
    worker_gib: float = _assume(2, "a worker with its language-model process and 10,000 items")
    learner_cores: float = _assume(4, "one learner beside the workers")
    release_interval_s: float = _assume(3600, "`learner.round_interval_s`")
    core_hour_usd: float = _assume(0.04, "price")
    gib_hour_usd: float = _assume(0.005, "price of memory")
    disk_gib_month_usd: float = _assume(0.10, "price of solid-state disk")
    zone_gib_usd: float = _assume(0.02, "price of traffic between zones, both directions")

    @classmethod
    def with_changes(cls, changes: Sequence[str]) -> Assumptions:
        """The defaults, but for some ``name=value``.  Raises: ValueError for an unknown name.

        >>> Assumptions.with_changes(["peak_factor=5"]).peak_factor
        5.0
        """
        given: dict[str, float] = {}
        for change in changes:
            name, _, value = change.partition("=")
            if name not in reasons():
                raise ValueError(f"no assumption is called {name!r}; there are {list(reasons())}")
            given[name] = float(value)
        return dataclasses.replace(cls(), **given)


def reasons() -> Mapping[str, str]:
    """Why each assumption is what it is, by name."""
    return {one.name: str(one.metadata["why"]) for one in dataclasses.fields(Assumptions)}
