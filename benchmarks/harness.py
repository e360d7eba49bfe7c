"""What every benchmark shares: the machine in words, cores to run on, medians, and the report.

A benchmark ends with `report`: a JSON file in benchmarks/results, the machine, the seed and, as
the very last line on stdout, the same JSON on one line.  Progress goes to stderr.

What surprised us: affinity is inherited at fork by every thread and child, so pinning the caller
around a start is enough, also for a JVM, whose threads could not be caught afterwards.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99_9": 0.999, "max": 1.0}

# Any below: results are trees of numbers and texts that go straight into JSON.
Result = dict[str, Any]


def say(text: str) -> None:
    """Progress, for whoever watches."""
    print(f"[{time.strftime('%H:%M:%S')}] {text}", file=sys.stderr, flush=True)


def hush_clients() -> None:
    """Kafka's clients warn of every retry while a new topic finds its leader."""
    for name in ("aiokafka", "kafka"):
        logging.getLogger(name).setLevel(logging.ERROR)


def machine() -> Result:
    """What the figures were taken on."""
    cpu = platform.processor() or "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                cpu = line.split(":", 1)[1].strip()
                break
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_bytes / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "commit": _commit(),
    }


def _commit() -> str:
    def git(*command: str) -> str:
        done = subprocess.run(
            ["git", *command], cwd=ROOT, capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        return git("rev-parse", "--short", "HEAD") + ("+changes" if git("status", "-s") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load_average() -> float:
    """Runnable processes over the last minute: above 1 before a run, others disturb it."""
    return round(os.getloadavg()[0], 2)


def stolen_s() -> float:
    """Seconds, of all cores together since the start, in which the host of a virtual machine ran
    something else in its place: what stands still then is not ours.  0 where no system says so.
    """
    with contextlib.suppress(OSError, IndexError):
        whole = Path("/proc/stat").read_text().split("\n", 1)[0].split()
        return int(whole[8]) / os.sysconf("SC_CLK_TCK")
    return 0.0


_STOLEN_BEFORE_S = stolen_s()


def pinned(core: int) -> contextlib.AbstractContextManager[None]:
    """Processes started inside run on this core alone; nothing happens on a smaller machine."""
    return _on_cores({core} if core < (os.cpu_count() or 1) else os.sched_getaffinity(0))


def on_all_cores() -> contextlib.AbstractContextManager[None]:
    """Processes started inside run wherever the system likes, though the caller is pinned."""
    return _on_cores(set(range(os.cpu_count() or 1)))


@contextlib.contextmanager
def _on_cores(cores: set[int]) -> Iterator[None]:
    before = os.sched_getaffinity(0)
    with contextlib.suppress(OSError):  # a container may forbid some of them
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def median_and_range(values: Sequence[float]) -> Result:
    """Median, least and most of some repetitions.

    >>> median_and_range([3.0, 1.0, 2.0])
    {'median': 2.0, 'min': 1.0, 'max': 3.0, 'runs': [3.0, 1.0, 2.0]}
    """
    return {
        "median": round(statistics.median(values), 3),
        "min": round(min(values), 3),
        "max": round(max(values), 3),
        "runs": [round(value, 3) for value in values],
    }


def quantiles_ms(latencies_s: npt.NDArray[np.float64]) -> Result:
    """Latency percentiles in milliseconds, and of how many.

    >>> quantiles_ms(np.array([0.001, 0.003]))["max"]
    3.0
    """
    if not len(latencies_s):
        return {"samples": 0}
    # The observation itself, never a value between two: with few samples p99.9 is the maximum.
    at = np.quantile(latencies_s, list(QUANTILES.values()), method="higher")
    named = zip(QUANTILES, (at * 1000.0).tolist(), strict=True)
    return {"samples": len(latencies_s), **{name: round(value, 2) for name, value in named}}


OF_THIS_MACHINE = ("path", "work", "prefix", "runs")
"""Arguments that say where things lie here, nothing about the result, and are not told in it."""


def report(
    name: str, seed: int, arguments: Mapping[str, Any], started_load: float, **found: Any
) -> None:
    """Write benchmarks/results/<name>.json and print machine, seed and, last, one JSON line."""
    result = {
        "benchmark": name,
        "data": "synthetic",
        "machine": machine(),
        "seed": seed,
        "arguments": {
            key: _plain(value) for key, value in arguments.items() if key not in OF_THIS_MACHINE
        },
        "load_average": {"before": started_load, "after": load_average()},
        "stolen_s": round(stolen_s() - _STOLEN_BEFORE_S, 2),
        "finished_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        **found,
    }
    RESULTS.mkdir(parents=True, exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=2) + "\n")
    print("machine:", json.dumps(result["machine"]))
    print("seed:", seed)
    print(json.dumps(result), flush=True)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
