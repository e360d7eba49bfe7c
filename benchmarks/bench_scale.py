"""How cost grows: with users, items, history, workers, and the learner's buffer; and restores.

    users      event path and disk, 10^3 to 10^6 users          in one process
    items      exact ranking and cells, 10^3 to 10^6 items      in one process
    history    rebuild and disk, 10 to 400 events               in one process
    memory     the learner's buffer, 16 MiB to 1 GiB            a process per size
    restore    changelog to store                               a real broker
    workers    one and two                                      a real broker

In-process parts leave out the broker where it adds the same to every size.  Exponents are slopes
between logarithms; a whole cost that grows worse than linearly is listed under `defects`.  Parts
may run at different times (`--only`): each carries its own machine, load and date, and the file
keeps the parts that were not run.

    make bench-scale [BENCH_ARGS="--only items"] [BENCH_ARGS=--smoke]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

from benchmarks.harness import RESULTS, Result, hush_clients, load_average, machine, report, say
from benchmarks.scale import history, items, learner_memory, restoring, users, workers
from benchmarks.scale.drawing import draw
from benchmarks.scale.growth import LINEAR
from profiles.config import load_settings

MIB = 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="parts to run, separated by commas")
    parser.add_argument("--smoke", action="store_true", help="small sizes, about two minutes")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="scale", help="of the result file")
    asked = parser.parse_args()
    hush_clients()
    started_load = load_average()
    settings, seed, small = load_settings(), asked.seed, asked.smoke
    dim = settings.model.dim
    decades = [1_000, 10_000, 100_000] if small else [1_000, 10_000, 100_000, 1_000_000]
    buffers = [16 * MIB, 64 * MIB] if small else [16 * MIB, 64 * MIB, 256 * MIB, 1024 * MIB]
    todo: dict[str, Callable[[], Result]] = {
        "users": lambda: users.measure(
            [1_000, 10_000] if small else decades, 5_000 if small else 20_000, settings, seed
        ),
        "items": lambda: items.measure(decades, 64 if small else 256, dim, seed),
        "history": lambda: history.measure([10, 25, 50, 75, 100, 200, 400], settings, seed),
        "memory": lambda: learner_memory.measure(buffers, seed),
        "restore": lambda: restoring.measure(
            [5_000, 20_000] if small else [10_000, 30_000, 100_000, 300_000], settings, seed
        ),
        "workers": lambda: workers.measure(
            [1, 2], 20_000 if small else 200_000, 100_000, 10_000, seed
        ),
    }
    parts = _kept(asked.name) if asked.only else {}
    for name in asked.only.split(",") if asked.only else todo:
        say(f"part: {name}")
        before, began = load_average(), time.perf_counter()
        found = todo[name]()
        parts[name] = {
            **found,
            "load_average_before": before,
            "seconds": round(time.perf_counter() - began, 1),
            "machine": machine(),
            "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
    draw(asked.name, parts)
    report(asked.name, seed, vars(asked), started_load, parts=parts, defects=defects(parts))


def defects(parts: Result) -> list[str]:
    """Costs that grow worse than linearly.

    A cost per event, or memory, is not to grow at all: its whole grows with one more.
    """
    found: list[tuple[str, float | None]] = []
    per_unit = {
        "users": {"exponent_event": 1.0, "exponent_disk": 0.0},
        "history": {"exponent_rebuild": 0.0, "exponent_disk": 0.0},
        "restore": {"exponent": 0.0},
        "memory": {"exponent_held": 0.0, "exponent_planning": 0.0},
    }
    for part, names in per_unit.items():
        for name, extra in names.items():
            slope = parts.get(part, {}).get(name)
            found.append((f"{part}.{name}", None if slope is None else slope + extra))
    for kind, rows in parts.get("items", {}).get("kinds", {}).items():
        for name in ("exponent_exact", "exponent_cells", "exponent_build"):
            found.append((f"items.{kind}.{name}", rows[name]))
    return [f"{name}: {slope:.2f}" for name, slope in found if slope is not None and slope > LINEAR]


def _kept(name: str) -> Result:
    """Parts of an earlier run."""
    path = RESULTS / f"{name}.json"
    parts: Result = json.loads(path.read_text())["parts"] if path.exists() else {}
    return parts


if __name__ == "__main__":
    main()
