"""Regressions in minutes: small runs of the benchmarks, their ratios against the committed ones.

Ratios only, never times: both sides of each were measured in one run on one machine, so they can be
compared with another day's and, roughly, with another machine's.  A small run is not a full one in
small: so they are compared with `results/smoke.json`, which `--accept` writes from a run like this,
and not with the full results.

Exit status 1 when a figure is worse than the committed one by more than `--tolerance`, or a count
of wrongs is not nil.

    make bench-smoke [BENCH_ARGS="--only swap --tolerance 0.5"]
    make bench-smoke BENCH_ARGS=--accept      # after a change that is meant to move them
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from benchmarks.harness import RESULTS, ROOT, Result, load_average, report, say

Better = Literal["higher", "lower", "nil"]


@dataclass(frozen=True, slots=True)
class Smoke:
    """One small run.  `watched` maps the place of a figure in its result to what is better."""

    arguments: str
    watched: Mapping[str, Better]


SMOKES: Mapping[str, Smoke] = {
    "throughput": Smoke(
        "--events 40000 --users 20000 --repetitions 3 "
        "--only driftline,faust_empty,faust_table,quix",
        {
            "ratios.faust_empty.median": "higher",
            "ratios.faust_table.median": "higher",
            "ratios.quix.median": "higher",
            "ours.driftline.users_unanswered.max": "nil",
        },
    ),
    "swap": Smoke(
        "--users 2000 --items 2000 --history 80 --swaps 2 --every 5",
        {
            "recall_at_10.0.mean": "higher",
            "recall_at_10.1.mean": "higher",
            "outputs.mixed": "nil",
            "lost.events_not_applied": "nil",
            "lost.events_not_answered": "nil",
            "changelog.of_another_release": "nil",
            "changelog.unlike_their_history": "nil",
        },
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--only", default="", help="benchmarks to run, separated by commas")
    parser.add_argument("--tolerance", type=float, default=0.3, help="relative worsening forgiven")
    parser.add_argument("--accept", action="store_true", help="commit to this run's figures")
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    started_load = load_average()
    names = asked.only.split(",") if asked.only else list(SMOKES)
    if unknown := set(names) - set(SMOKES):
        parser.error(f"no such smoke run: {', '.join(sorted(unknown))} (have: {', '.join(SMOKES)})")
    committed = _committed()
    found: dict[str, dict[str, float]] = {}
    worse: list[str] = []
    for name in names:
        say(f"smoke: {name}")
        result = _run(name, SMOKES[name].arguments, asked.seed)
        found[name] = {place: figure_at(result, place) for place in SMOKES[name].watched}
        for place, better in SMOKES[name].watched.items():
            was = committed.get(name, {}).get(place)
            is_worse = is_regression(found[name][place], was, better, asked.tolerance)
            if is_worse:
                worse.append(f"{name}: {place}")
            print(
                f"{name:<12}{place:<40}{found[name][place]:>10.4g}"
                f"{'-' if was is None else format(was, '.4g'):>10}  "
                f"{'WORSE' if is_worse else 'ok'}"
            )
    if asked.accept:
        report(
            "smoke",
            asked.seed,
            vars(asked),
            started_load,
            figures={**committed, **found},
        )
    if worse and not asked.accept:
        raise SystemExit("worse than committed: " + "; ".join(worse))


def is_regression(now: float, was: float | None, better: Better, tolerance: float) -> bool:
    """Whether a figure got worse by more than the tolerance.  A count of wrongs must be nil.

    >>> is_regression(1.9, 3.0, "higher", 0.3), is_regression(2.2, 3.0, "higher", 0.3)
    (True, False)
    >>> is_regression(1.0, None, "nil", 0.3), is_regression(1.0, None, "higher", 0.3)
    (True, False)
    """
    if better == "nil":
        return now != 0
    if was is None:
        return False
    # "not as good as" rather than "worse than": a NaN is a regression.
    if better == "higher":
        return not now >= was * (1.0 - tolerance)
    return not now <= was * (1.0 + tolerance)


def figure_at(result: Any, place: str) -> float:
    """A number deep in a result, by its place.

    >>> figure_at({"swaps": [{"ms": 4}]}, "swaps.0.ms")
    4.0
    """
    # Any: a result is a tree of numbers and texts, as JSON holds it.
    for key in place.split("."):
        result = result[int(key)] if isinstance(result, list) else result[key]
    return float(result)


def _committed() -> dict[str, dict[str, float]]:
    file = RESULTS / "smoke.json"
    if not file.is_file():
        return {}
    figures: dict[str, dict[str, float]] = json.loads(file.read_text())["figures"]
    return figures


def _run(name: str, arguments: str, seed: int) -> Result:
    command = [sys.executable, "-m", f"benchmarks.bench_{name}", *arguments.split()]
    result_name = f"smoke-{name}"
    done = subprocess.run(
        [*command, "--seed", str(seed), "--name", result_name],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    # Only the comparison is kept: the full result has the name without "smoke".
    for left in RESULTS.glob(f"{result_name}[._]*"):
        left.unlink()
    if done.returncode:
        raise SystemExit(f"{name} failed (exit status {done.returncode}); its error stands above")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    main()
