"""What a release costs those who are being served: one every few seconds, at half load.

Releases are made ahead of time (another seed is another space of the same texts) and announced one
after another while an open loop sends events at `--load` of the steady rate that the worker
sustains, which is searched for first.  For each swap: from the notice to the flip, until 99% and
until all profiles are in the new space, users rebuilt per second, how long the event loop was held
up, and latency before, during and after.  A few items newer than any release arrive before each
swap: they alone may be encoded by the worker.  In the end outputs and changelog are read for what
must not be there:

    mixed   outputs whose profile and items come from two releases; changelog records that do not
            carry the last release; stored profiles that differ from their own history replayed in
            the release they name
    lost    events that no profile counted, events that no recommendation answered
    recall  first recommendations after each flip against a full re-embedding of the user's past

The language model is a tiny random one: fetching, checking and rebuilding are real, the time to
load a real adapter is not in here (`driftline_swap_seconds{phase="verify"}` of a deployment is).

    make bench-swap [BENCH_ARGS="--swaps 2 --every 5 --rate 500"]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.capacity import (
    EVERY_EVENT,
    Capacity,
    start_serving,
    sustained_rate,
    wait_until_quiet,
)
from benchmarks.deployment import (
    BROKER_CORE,
    Deployment,
    WorkerProcess,
    broker,
    deployment,
    synthetic_items,
    tiny_language_model,
    total,
    wait_until,
)
from benchmarks.harness import Result, hush_clients, load_average, pinned, quantiles_ms, report, say
from benchmarks.load import OpenLoop, fill, open_loop, synthetic_events
from benchmarks.plots import figure
from benchmarks.swap.aftermath import check_records, last_records
from benchmarks.swap.recall import Past, first_outputs, recall_after
from benchmarks.swap.watching import Swap, Watcher, loop_lag, swap_phases
from profiles.items import Item

OVERRIDES = {**EVERY_EVENT, "DRIFTLINE_SERVING__TREND_WEIGHT": "1e-9"}
"""All the work of following a trend and none of its effect: recall compares what profiles alone
would be shown."""
LEAST_SAMPLES = 500
"""A p99 of fewer is not compared."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=10_000, help="with a profile before it starts")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--history", type=int, default=60, help="events per user before it starts")
    parser.add_argument("--load", type=float, default=0.5, help="of the sustained rate")
    parser.add_argument(
        "--rate", type=float, default=0.0, help="events/s during the swaps; 0: by --load"
    )
    parser.add_argument("--swaps", type=int, default=5, help="at least one")
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two releases")
    parser.add_argument("--new-items", type=int, default=20, help="that arrive before each swap")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="swap", help="of the result file")
    asked = parser.parse_args()
    hush_clients()
    started_load = load_average()
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory, broker() as kafka:
        root = Path(directory)
        base = tiny_language_model(root / "bert", asked.seed)
        catalogue, store = synthetic_items(asked.items), root / "releases"
        with (
            pinned(BROKER_CORE),
            deployment(kafka, root / "run", "swap", catalogue, base, OVERRIDES, store) as made,
        ):
            found = _measure(made, asked)
    report(asked.name, asked.seed, vars(asked), started_load, **found)


def _measure(made: Deployment, asked: argparse.Namespace) -> Result:
    say(f"making {asked.swaps + 1} releases of {asked.items} items")
    releases = [made.new_release(asked.seed + at) for at in range(asked.swaps + 1)]
    worker = start_serving(made, releases[0])
    past = synthetic_events(
        asked.users * asked.history, asked.users, asked.items, 4, asked.seed + 1, "p"
    )
    fill(made.bootstrap, made.topics.events, past)
    say(f"applying {len(past)} events of the past")
    wait_until("the past is applied", lambda: _applied(worker) >= len(past), 600.0)
    wait_until_quiet(worker)
    capacity = Capacity(asked.rate / asked.load)
    if not asked.rate:
        capacity = sustained_rate(made, worker, asked.users, asked.items, asked.seed + 1000)
    rate = asked.load * capacity.sustained_per_s
    say(f"sustains {capacity.sustained_per_s:,.0f} events/s; swapping at {rate:,.0f} events/s")
    seconds = asked.every * (asked.swaps + 1)
    events = synthetic_events(int(rate * seconds), asked.users, asked.items, 4, asked.seed + 2)
    known = len(made.items)

    def send_new_items(swap: int) -> None:
        names = range(known + swap * asked.new_items, known + (swap + 1) * asked.new_items)
        made.send(made.topics.items, [Item(f"item-{at}", f"new tale number {at}") for at in names])

    before = worker.metrics()
    with Watcher(made, worker, releases[1:], asked.every, send_new_items) as watcher:
        run = asyncio.run(
            open_loop(
                made.bootstrap,
                made.topics.events,
                made.topics.recommendations,
                events,
                rate,
                drain_s=60.0,
            )
        )
        wait_until("the last sweep ends", lambda: _is_current(worker, releases[-1]), 300.0)
    after = worker.metrics()
    worker.stop()
    swaps = watcher.swaps
    _plot(asked.name, run, swaps)
    say("reading the changelog and the recommendations")
    records = asyncio.run(last_records(made))
    outputs = asyncio.run(first_outputs(made, releases[1:]))
    produced = [past, *capacity.sent, events]
    story = Past.of(*produced)
    return {
        **capacity.result(),
        "rate_per_s": round(rate, 1),
        "swaps": [swap.result() for swap in swaps],
        "swaps_done": total(after, "driftline_swaps_total"),
        "profiles": total(after, "driftline_profiles{"),
        "event_loop_lag": loop_lag(before, after),
        "event_loop_lag_per_swap_ms": [watcher.lag_around(swap) for swap in swaps],
        "stolen_ms_each": [watcher.stolen_ms(swap) for swap in swaps],
        "swap_phases": swap_phases(before, after),
        "latency_ms": _latency_by_phase(run, swaps),
        "recall_at_10": [recall_after(made, name, outputs[name], story) for name in releases[1:]],
        "items_encoded": _encoded(after, before, asked),
        "outputs": {
            "total": run.outputs,
            "mixed": run.mixed,
            "repeated": run.repeated,
            "by_release": run.by_release,
        },
        "lost": {
            "events_not_applied": sum(map(len, produced)) - int(records["events"].sum()),
            "events_not_answered": int(np.isnan(run.answered_s).sum()),
            "dead_letters": total(after, "driftline_dead_letters_total"),
        },
        "changelog": check_records(made, records, releases),
    }


def _encoded(
    after: dict[str, float], before: dict[str, float], asked: argparse.Namespace
) -> Result:
    """Items the worker encoded itself.  Each new one once on arrival and once per later release."""
    name = "driftline_items_encoded_total"
    swaps = range(1, asked.swaps + 1)
    return {
        "by_worker": after.get(name, 0.0) - before.get(name, 0.0),
        "newer_than_their_release": asked.new_items * (len(swaps) + sum(swaps)),
        "in_the_releases": asked.items * len(swaps),
    }


def _applied(worker: WorkerProcess) -> float:
    return total(worker.metrics(), "driftline_events_applied_total")


def _is_current(worker: WorkerProcess, release_id: str) -> bool:
    samples = worker.metrics()
    serves = any(release_id in name for name in samples if "serving_release_info" in name)
    return serves and not samples.get("driftline_profiles_stale", 1.0)


def _latency_by_phase(run: OpenLoop, swaps: list[Swap]) -> Result:
    """Before the first notice; while some profile is not in the new space, also swap by swap;
    after and between; and by how much each swap raised p99 over the stretch before it."""
    sent_s = run.intended_s
    within = [
        (sent_s >= swap.announced_s) & (sent_s <= (swap.rebuilt_s or np.inf)) for swap in swaps
    ]
    during = np.any([np.zeros(len(sent_s), dtype=np.bool_), *within], axis=0)
    first_s = swaps[0].announced_s if swaps else np.inf
    phases = {
        "before": sent_s < first_s,
        "during": during,
        "after": (sent_s >= first_s) & ~during,
    }
    answered = np.isfinite(run.latencies_s)
    found: Result = {
        name: quantiles_ms(run.latencies_s[where & answered]) for name, where in phases.items()
    }
    found["during_each"] = [quantiles_ms(run.latencies_s[one & answered]) for one in within]
    p99s = [found[name].get("p99") for name in ("before", "during")]
    if None not in p99s:
        found["p99_increase_ms"] = round(p99s[1] - p99s[0], 2)
    # Each swap against the stretch just before it: a disturbance from outside spoils one pair.
    ends = [float(sent_s[0]), *(swap.rebuilt_s or np.inf for swap in swaps)]
    each = []
    for own, end_s, swap in zip(found["during_each"], ends, swaps, strict=False):
        stretch = (sent_s > end_s) & (sent_s < swap.announced_s)
        before = quantiles_ms(run.latencies_s[stretch & answered])
        if min(own["samples"], before["samples"]) >= LEAST_SAMPLES:
            each.append(round(own["p99"] - before["p99"], 2))
    found["p99_increase_each_ms"] = each
    if each:
        found["p99_increase_median_ms"] = round(float(np.median(each)), 2)
    found["generator_late"] = quantiles_ms(run.lateness_s)
    return found


def _plot(name: str, run: OpenLoop, swaps: list[Swap]) -> None:
    """p50 and p99 of every half second, with the time each swap took shaded."""
    answered = np.isfinite(run.latencies_s)
    start_s = float(run.intended_s[0])
    slots = ((run.intended_s - start_s) / 0.5).astype(np.int64)
    title = "Latency of events while releases are swapped in (synthetic data)"
    with figure(name, title) as (axes,):
        for share, label in ((0.5, "p50"), (0.99, "p99")):
            heights = [
                1000.0 * float(np.quantile(run.latencies_s[answered & (slots == slot)], share))
                for slot in np.unique(slots[answered])
            ]
            axes.plot(np.unique(slots[answered]) * 0.5, heights, label=label)
        for at, swap in enumerate(swaps):
            end_s = swap.rebuilt_s or float(run.intended_s[-1])
            axes.axvspan(
                swap.announced_s - start_s,
                end_s - start_s,
                alpha=0.25,
                color="grey",
                label=None if at else "notice to last profile rebuilt",
            )
        axes.set_yscale("log")
        axes.set_xlabel("seconds")
        axes.set_ylabel("event to recommendation, ms")
        axes.legend()


if __name__ == "__main__":
    main()
