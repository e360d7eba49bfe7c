"""From measured rates to machines: the table in docs/scaling.md, computed from the result files.

    python -m benchmarks.scaling_table [--set events_per_user_per_day=20]

Measured figures come from benchmarks/results (latency, throughput, scale, swap, learner); all else
is an assumption with a name, a unit and a reason, and `--set` changes it.  The table is written
between two markers, so that figures and text cannot drift apart.  Prices are inputs, not quotes.

What surprised us: the workers are the cheap part.  Every event rewrites its user's whole profile on
the changelog, three times for the replicas, so Kafka's brokers and the traffic between zones cost
more than the arithmetic.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, ROOT
from benchmarks.scaling_assumptions import Assumptions, reasons
from profiles.answers import Reason, Recommendation, ScoredItem
from profiles.wire import encode

DOCUMENT = ROOT / "docs" / "scaling.md"
BEGIN, END = "<!-- scaling:begin -->", "<!-- scaling:end -->"
SIZES = (1_000_000, 100_000_000, 1_000_000_000)
ITEMS = 10_000
SECONDS_PER_DAY = 86_400.0
HOURS_PER_MONTH = 730.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What the result files say.  Rates are of one core, bytes of one record."""

    sustained_per_s: float
    applied_per_s: float
    event_bytes: float
    store_bytes_per_user: float
    record_bytes: float
    restored_per_s: float
    rebuilt_per_s: float
    learner_read_per_s: float
    language_examples_per_s: float
    recommendation_bytes: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What a number of users comes to.  Bytes and US dollars; `limits` are shares of what the
    parts that cannot be multiplied can bear, the largest first."""

    users: int
    mean_per_s: float
    peak_per_s: float
    workers: int
    partitions: int
    brokers: int
    cores: int
    memory_gib: float
    worker_disk_gib: float
    broker_disk_gib: float
    peak_in_mb_per_s: float
    zone_traffic_gib_per_month: float
    restore_s: float
    sweep_s: float
    dollars_per_month: dict[str, float]
    limits: dict[str, float]


class ResultMissing(Exception):
    """A result file, or a figure in it, that the table needs is not there."""


def read_measured(folder: Path) -> Measured:
    """Collect the figures.  Raises: ResultMissing, naming the benchmark to run."""

    # Any: results are trees of numbers and texts.
    def figure(name: str, *path: str | int) -> Any:
        try:
            found = json.loads((folder / f"{name}.json").read_text())
            for key in path:
                found = found[key]
        except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
            place = ".".join(map(str, path))
            raise ResultMissing(f"{name}.json lacks {place}: run `make bench-{name}`") from error
        return found

    catalogues = {one["items"]: one for one in figure("latency", "catalogues")}
    if ITEMS not in catalogues:
        raise ResultMissing(f"latency.json has no catalogue of {ITEMS} items")
    memory = {
        name: figure("scale", "parts", "memory", "sizes", -1, name) for name in ("events", "fill_s")
    }
    swaps = [one["users_rebuilt_per_s"] for one in figure("swap", "swaps") if one["finished"]]
    if not swaps:
        raise ResultMissing("swap.json has no finished swap: run `make bench-swap`")
    return Measured(
        sustained_per_s=catalogues[ITEMS]["sustained_per_s"],
        applied_per_s=figure("throughput", "events_per_s", "driftline", "median"),
        event_bytes=figure("throughput", "event_bytes"),
        store_bytes_per_user=figure("scale", "parts", "users", "sizes", -1, "disk_bytes_per_user"),
        record_bytes=figure("scale", "parts", "users", "record_bytes"),
        restored_per_s=1e5 / figure("scale", "parts", "restore", "sizes", -1, "seconds_per_100k"),
        rebuilt_per_s=statistics.median(swaps),
        learner_read_per_s=memory["events"] / memory["fill_s"],
        language_examples_per_s=figure(
            "learner", "devices", "cpu", "examples_per_s", "ours", "median"
        ),
        recommendation_bytes=len(encode(_recommendation())),
    )


def plan(users: int, measured: Measured, assumed: Assumptions) -> Plan:
    """Size a deployment.  Every step is one line, so that a reader can redo it by hand."""
    a, m = assumed, measured
    mean_per_s = users * a.events_per_user_per_day / SECONDS_PER_DAY
    peak_per_s = mean_per_s * a.peak_factor
    spare = a.zones / (a.zones - 1)  # one zone may be lost at the peak
    workers = max(math.ceil(peak_per_s * spare / (m.sustained_per_s * a.load)), int(a.zones))
    partitions = 2 ** math.ceil(math.log2(a.partitions_per_worker * workers))

    out_bytes = m.record_bytes + m.recommendation_bytes * a.recommendations_per_event
    in_bytes = m.event_bytes + out_bytes
    peak_in_mb_per_s = peak_per_s * in_bytes / 1e6
    changelog = users * m.record_bytes * (1 + a.uncompacted_share)
    answers = users * m.recommendation_bytes * (1 + a.uncompacted_share)
    log = mean_per_s * SECONDS_PER_DAY * a.event_retention_days * m.event_bytes
    broker_disk = (changelog + answers + log) * a.replication
    brokers = max(
        math.ceil(peak_in_mb_per_s * a.replication * spare / a.broker_mb_per_s),
        math.ceil(broker_disk / (a.broker_disk_gib * 2**30)),
        int(a.zones),
    )
    worker_disk = users * m.store_bytes_per_user * (1 + a.compaction_headroom)
    cores = math.ceil(workers + brokers * a.broker_cores + a.learner_cores)
    memory_gib = workers * a.worker_gib + brokers * a.broker_gib + a.learner_cores * a.worker_gib
    # Producers and consumers meet their partition's leader in another zone two times of three; a
    # replica in every other zone gets everything once.  Events are read twice, answers once.
    read_bytes = 2 * m.event_bytes + m.recommendation_bytes * a.recommendations_per_event
    away = (a.zones - 1) / a.zones
    crossing = (in_bytes + read_bytes) * away + in_bytes * (a.replication - 1)
    zone_gib = mean_per_s * crossing * HOURS_PER_MONTH * 3600 / 2**30
    users_per_worker = users / workers
    sweep_s = users_per_worker / m.rebuilt_per_s
    limits = {
        "one learner reads every event": mean_per_s / m.learner_read_per_s,
        "partitions in one Kafka cluster": 6 * partitions * a.replication / a.cluster_replicas,
        "profiles rebuilt before the next release": sweep_s / a.release_interval_s,
    }
    return Plan(
        users=users,
        mean_per_s=mean_per_s,
        peak_per_s=peak_per_s,
        workers=workers,
        partitions=partitions,
        brokers=brokers,
        cores=cores,
        memory_gib=memory_gib,
        worker_disk_gib=worker_disk / 2**30,
        broker_disk_gib=broker_disk / 2**30,
        peak_in_mb_per_s=peak_in_mb_per_s,
        zone_traffic_gib_per_month=zone_gib,
        restore_s=users_per_worker / m.restored_per_s,
        sweep_s=sweep_s,
        dollars_per_month={
            "cores": cores * a.core_hour_usd * HOURS_PER_MONTH,
            "memory": memory_gib * a.gib_hour_usd * HOURS_PER_MONTH,
            "disk": (worker_disk + broker_disk) / 2**30 * a.disk_gib_month_usd,
            "traffic between zones": zone_gib * a.zone_gib_usd,
        },
        limits=dict(sorted(limits.items(), key=lambda limit: -limit[1])),
    )


def render(measured: Measured, assumed: Assumptions, folder: str) -> str:
    """The part of the document between the markers."""
    plans = [plan(users, measured, assumed) for users in SIZES]
    rows: list[tuple[str, list[str]]] = [
        ("events/s, mean", [f"{p.mean_per_s:,.0f}" for p in plans]),
        ("events/s, peak", [f"{p.peak_per_s:,.0f}" for p in plans]),
        ("workers (one core each)", [f"{p.workers:,}" for p in plans]),
        ("partitions of each topic", [f"{p.partitions:,}" for p in plans]),
        ("brokers", [f"{p.brokers:,}" for p in plans]),
        ("cores in all", [f"{p.cores:,}" for p in plans]),
        ("memory in all", [f"{p.memory_gib:,.0f} GiB" for p in plans]),
        ("disk of the workers", [f"{p.worker_disk_gib:,.0f} GiB" for p in plans]),
        ("disk of the brokers", [f"{p.broker_disk_gib:,.0f} GiB" for p in plans]),
        ("produced at the peak", [f"{p.peak_in_mb_per_s:,.1f} MB/s" for p in plans]),
        (
            "between zones, a month",
            [f"{p.zone_traffic_gib_per_month:,.0f} GiB" for p in plans],
        ),
        ("a worker's store made anew", [f"{p.restore_s:,.0f} s" for p in plans]),
        ("sweep after a release", [f"{p.sweep_s:,.0f} s" for p in plans]),
        *(
            (f"{name}, a month", [f"${p.dollars_per_month[name]:,.0f}" for p in plans])
            for name in plans[0].dollars_per_month
        ),
        (
            "**money, a month**",
            [f"**${sum(p.dollars_per_month.values()):,.0f}**" for p in plans],
        ),
        (
            "of it, for 1,000 users",
            [f"${1e3 * sum(p.dollars_per_month.values()) / p.users:,.3f}" for p in plans],
        ),
        (
            "language steps of a CPU core reach",
            [f"{_reach(p, measured):.1%} of the events" for p in plans],
        ),
        ("**first bottleneck**", [_bottleneck(p) for p in plans]),
    ]
    lines = [
        "### Measured",
        *_table(
            ["figure", "value"],
            [[name.replace("_", " "), f"{value:,.1f}"] for name, value in _fields(measured)],
        ),
        "",
        f"From `{folder}`; the machine, load and date stand in each file.",
        "",
        "### Assumed",
        *_table(
            ["assumption", "value", "why"],
            [[f"`{name}`", f"{value:,g}", reasons()[name]] for name, value in _fields(assumed)],
        ),
        "",
        "### What it comes to",
        *_table(["", *(f"{users:,} users" for users in SIZES)], [[n, *v] for n, v in rows]),
    ]
    return "\n".join(lines)


def put_between(text: str, made: str) -> str:
    """The document with what stands between the markers replaced.

    >>> put_between(f"a {BEGIN} old {END} b", "new") == f"a {BEGIN}\\nnew\\n{END} b"
    True
    """
    if text.count(BEGIN) != 1 or text.count(END) != 1:
        raise ValueError(f"the document must hold {BEGIN} and {END} once each")
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{made}\n{END}{rest.split(END)[1]}"


def _bottleneck(made: Plan) -> str:
    name, share = next(iter(made.limits.items()))
    return f"{name}: {share:.0%} of what it bears"


def _reach(made: Plan, measured: Measured) -> float:
    return min(measured.language_examples_per_s / made.mean_per_s, 1.0)


def _fields(values: Measured | Assumptions) -> list[tuple[str, float]]:
    return list(dataclasses.asdict(values).items())


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    return ["| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]]


def _recommendation() -> Recommendation:
    """Ten items with two reasons each, as the default settings give them."""
    reasons_given = [
        Reason("history", 0.123, item_id="item-123456", title="an item's title, of some words"),
        Reason("tag", 0.123, item_id="item-123456", tag="some tag"),
    ]
    items = [
        ScoredItem("item-123456", 1.2345678, "an item's title, of some words", reasons_given)
    ] * 10
    return Recommendation(
        "0" * 32, "user-123456789", items, "r00001-0123456789abcdef", "r00001-0123456789abcdef",
        100, "event", "e-0123456789abcdef", 100, 10**9, 1.7e9, 1.7e9,
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--document", type=Path, default=DOCUMENT)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="another assumption"
    )
    asked = parser.parse_args()
    try:
        assumed = Assumptions.with_changes(asked.set)
        measured = read_measured(asked.results)
    except (ValueError, ResultMissing) as error:
        raise SystemExit(str(error)) from error
    made = render(measured, assumed, "benchmarks/results")
    asked.document.write_text(put_between(asked.document.read_text(), made))
    print(f"wrote {asked.document}")


if __name__ == "__main__":
    main()
