"""From an event's intended send to its recommendation in a consumer's hands.

One worker on core 1; broker, generator and reader on core 0.  First the highest steady rate that
the worker sustains is searched for, unless `--rate` gives it; then an open loop sends at fractions
of it.  An event is answered by the first recommendation of its user that is made from its own or a
later event.  The latency counts from the *intended* send time, so a stall shows in every event
that it delays; the generator's own lateness is part of it and is told.

The worker runs with `user_interval_s=0`: with the default second between two outputs of one user,
most of the latency of a busy user would be that second, by design.

    make bench-latency [BENCH_ARGS="--items 10000 --fractions 0.1 --seconds 5"]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.capacity import EVERY_EVENT, Capacity, start_serving, sustained_rate
from benchmarks.deployment import (
    BROKER_CORE,
    Deployment,
    broker,
    deployment,
    synthetic_items,
    tiny_language_model,
)
from benchmarks.harness import Result, hush_clients, load_average, pinned, quantiles_ms, report, say
from benchmarks.load import open_loop, synthetic_events
from benchmarks.plots import figure, grouped
from stream.broker import EmbeddedKafka


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--items", default="10000,100000", help="catalogue sizes")
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--fractions", default="0.1,0.5,0.8", help="of the sustained rate")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="events/s taken as that; 0: search for it"
    )
    parser.add_argument("--seconds", type=float, default=20.0, help="of each open loop")
    parser.add_argument("--warm-up", type=float, default=3.0, help="first seconds not counted")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="latency", help="of the result file")
    asked = parser.parse_args()
    hush_clients()
    started_load = load_average()
    found = []
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory, broker() as kafka:
        root = Path(directory)
        base = tiny_language_model(root / "bert", asked.seed)
        with pinned(BROKER_CORE):
            for items in map(int, asked.items.split(",")):
                found.append(_catalogue(kafka, root / f"i{items}", base, items, asked))
    _plot(asked.name, found)
    report(asked.name, asked.seed, vars(asked), started_load, catalogues=found)


def _catalogue(
    kafka: EmbeddedKafka, root: Path, base: Path, items: int, asked: argparse.Namespace
) -> Result:
    """All fractions for one size of catalogue."""
    say(f"catalogue of {items}")
    catalogue, releases = synthetic_items(items), root / "releases"
    capacity = Capacity(asked.rate)
    with deployment(
        kafka, root / "most", f"most-{items}", catalogue, base, EVERY_EVENT, releases
    ) as made:
        release = made.new_release(asked.seed)
        if not asked.rate:
            worker = start_serving(made, release)
            capacity = sustained_rate(made, worker, asked.users, items, asked.seed + 1)
            worker.stop()
            say(f"sustains {capacity.sustained_per_s:,.0f} events/s")
    loads = []
    for fraction in map(float, asked.fractions.split(",")):
        name = f"load-{items}-{round(1000 * fraction)}"
        with deployment(kafka, root / name, name, catalogue, base, EVERY_EVENT, releases) as made:
            start_serving(made, release)
            rate = fraction * capacity.sustained_per_s
            loads.append(_load(made, fraction, rate, items, asked))
    return {"items": items, **capacity.result(), "loads": loads}


def _load(
    made: Deployment, fraction: float, rate: float, items: int, asked: argparse.Namespace
) -> Result:
    count = max(int(rate * (asked.warm_up + asked.seconds)), 1)
    events = synthetic_events(count, asked.users, items, 4, asked.seed)
    before = load_average()
    run = asyncio.run(
        open_loop(made.bootstrap, made.topics.events, made.topics.recommendations, events, rate)
    )
    counted = run.intended_s >= run.intended_s[0] + asked.warm_up
    latencies_s = run.latencies_s[counted]
    answered = np.isfinite(latencies_s)
    load: Result = {
        "fraction": fraction,
        "events_per_s": round(rate, 1),
        "latency_ms": quantiles_ms(latencies_s[answered]),
        "unanswered": int((~answered).sum()),
        "generator_late_ms": quantiles_ms(run.lateness_s[counted]),
        "outputs": run.outputs,
        "mixed": run.mixed,
        "load_average": before,
    }
    say(f"{fraction:.0%} ({rate:,.0f}/s): {load['latency_ms']}, {load['unanswered']} unanswered")
    return load


def _plot(name: str, catalogues: list[Result]) -> None:
    title = "From intended send to readable recommendation (synthetic data)"
    with figure(name, title, columns=len(catalogues)) as drawn:
        for axes, found in zip(drawn, catalogues, strict=True):
            loads = found["loads"]
            groups = [f"{load['fraction']:.0%}\n{load['events_per_s']:,.0f}/s" for load in loads]
            quantiles = ("p50", "p95", "p99", "p99_9")
            heights = {q: [load["latency_ms"].get(q, 0.0) for load in loads] for q in quantiles}
            grouped(axes, groups, heights, "ms")
            axes.set_yscale("log")
            axes.set_title(f"{found['items']:,} items")


if __name__ == "__main__":
    main()
