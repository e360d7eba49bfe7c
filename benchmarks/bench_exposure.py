"""What counting exposure costs a batch of recommendations, beside making the recommendations.

One batch is 128 users' ten items, as `Recommender` makes them at once; synthetic profiles, items.
`note` counts them, `report` draws the figures (every five seconds), `recommend` is the whole of
ranking, reasons and encoding with the counting in it.

    make bench-exposure [BENCH_ARGS="--items 2000"]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
from prometheus_client import CollectorRegistry

from benchmarks.harness import load_average, median_and_range, report
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.state import empty_records
from stream.exposure import Exposure
from stream.messages import Cause
from stream.outputs import Recommender
from tests.unit.builders import LAYOUT, make_catalog, make_space, unit_rows

USERS, K = 128, 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="exposure", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    rng = np.random.default_rng(asked.seed)
    catalog = make_catalog(asked.items)
    space, metrics = make_space(catalog), WorkerMetrics(CollectorRegistry())
    settings = ServingSettings(k=K, exclude_seen=False)
    exposure = Exposure(catalog, settings, metrics)
    rows = rng.integers(asked.items, size=(USERS, K))
    records = empty_records(LAYOUT, USERS)
    records["profile"], records["release"] = unit_rows(USERS, LAYOUT.dim), space.key
    recommender = Recommender(catalog, settings, exposure=exposure)
    causes = [Cause("event", "e", "t", 0, at) for at in range(USERS)]
    names = [f"u{at}" for at in range(USERS)]
    exposure.note(rows, space, 1000.0)
    figures = {
        "note": lambda: exposure.note(rows, space, 1000.0),
        "report": lambda: exposure._report(space),
        "recommend": lambda: recommender.for_events(records, names, causes, space, 1000.0),
    }
    found = {name: [_us(each) for _ in range(asked.repetitions)] for name, each in figures.items()}
    share = float(np.median(found["note"]) / np.median(found["recommend"]))
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        us_per_batch={name: median_and_range(runs) for name, runs in found.items()},
        share_of_recommending=round(share, 5),
        us_per_recommendation=round(float(np.median(found["note"])) / USERS, 4),
    )


def _us(work: Callable[[], object]) -> float:
    """Microseconds of one call: the mean of as many as fill a twentieth of a second."""
    calls, began_s = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - began_s) < 0.05:
        work()
        calls += 1
    return 1e6 * passed_s / calls


if __name__ == "__main__":
    main()
