"""Events per second of one worker and of two, on a real broker.

With two cores, broker and both workers share them: the figure tells what a second worker adds on
*this* machine, not what it adds on one of its own.  The broker's share is told beside it.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from benchmarks.deployment import (
    BROKER_CORE,
    WORKER_CORE,
    broker,
    deployment,
    synthetic_items,
    tiny_language_model,
    total,
    wait_until,
)
from benchmarks.harness import Result, pinned, say
from benchmarks.load import fill, synthetic_events
from stream.broker import EmbeddedKafka

PARTITIONS = 4


def measure(counts: list[int], events: int, users: int, items: int, seed: int) -> Result:
    """Rate at which a backlog is applied, per number of workers."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory, broker() as kafka:
        base = tiny_language_model(Path(directory) / "bert", seed)
        for count in counts:
            rate = _rate(
                kafka, Path(directory) / f"w{count}", base, count, events, users, items, seed
            )
            rows.append({"workers": count, "events_per_s": round(rate, 1)})
            say(f"workers: {rows[-1]}")
    return {
        "data": "synthetic",
        "cores": "broker on core 0; worker 1 on core 1, worker 2 on core 0 beside the broker",
        "sizes": rows,
        "gain": round(rows[-1]["events_per_s"] / rows[0]["events_per_s"], 3),
    }


def _rate(
    kafka: EmbeddedKafka, root: Path, base: Path, workers: int, events: int, users: int,
    items: int, seed: int,
) -> float:  # fmt: skip
    with deployment(kafka, root, f"workers-{workers}", synthetic_items(items), base, {}) as made:
        with pinned(BROKER_CORE):
            made.send_items()
            made.announce(made.new_release(seed))
        cores = [WORKER_CORE, BROKER_CORE]
        started = [made.start_worker(f"w{at}", cores[at % len(cores)]) for at in range(workers)]
        for worker in started:
            wait_until("worker ready", worker.is_ready)
        time.sleep(3.0)  # a rebalance may follow the last join
        poured = synthetic_events(events, users, items, PARTITIONS, seed)
        began: tuple[float, float] | None = None
        with pinned(BROKER_CORE):
            fill(made.bootstrap, made.topics.events, poured)
        while True:
            applied = sum(
                total(worker.metrics(), "driftline_events_applied_total") for worker in started
            )
            now_s = time.perf_counter()
            if applied and began is None:
                began = (now_s, applied)
            if applied >= events:
                break
            time.sleep(0.05)
        for worker in started:
            worker.stop()
    assert began is not None, "the loop ends only after events were applied"
    return (events - began[1]) / max(now_s - began[0], 1e-3)
