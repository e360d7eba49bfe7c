"""What a release costs those who are being served: one every few seconds, under steady load.

Releases are made ahead of time (another seed is another space of the same texts) and announced one
after another while an open loop sends events.  For each swap: from the notice to the flip, until
every profile is in the new space, how long the event loop was held up, and latency percentiles
before, during and after.  At the end outputs and changelog are read for what must not be there:

    mixed   outputs whose profile and items come from two releases; changelog records that do not
            carry the last release; stored profiles that differ from their own history replayed in
            the release they name
    lost    events that no profile counted, events that no recommendation answered

The language model is a tiny random one: fetching, checking and rebuilding are real, the time to
load a real adapter is not in here (`driftline_swap_seconds{phase="verify"}` of a deployment is).

    make bench-swap [BENCH_ARGS="--swaps 2 --every 5 --rate 500"]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

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
from learner.bootstrap import expected_release
from profiles.catalog import Catalog
from profiles.rebuild import replay_history
from profiles.release import open_release
from profiles.space import Space
from profiles.state import RecordLayout, Records, split_tails

SETTINGS = {"DRIFTLINE_SERVING__USER_INTERVAL_S": "0"}
POLL_S = 0.05
LAG = "driftline_event_loop_lag_seconds"
CLOSE = 1e-3
"""Largest difference between a stored profile and its history replayed: float32 rounding."""


@dataclass(slots=True)
class Swap:
    """One release on its way.  Times are Unix seconds, as the watcher saw them."""

    release_id: str
    announced_s: float
    flipped_s: float | None = None
    rebuilt_s: float | None = None
    by_path: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Look:
    """One look at /metrics."""

    at_s: float
    samples: Mapping[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--users", type=int, default=20_000, help="with a profile before it starts")
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--history", type=int, default=10, help="events per user before it starts")
    parser.add_argument("--rate", type=float, default=1000.0, help="events/s during the swaps")
    parser.add_argument("--swaps", type=int, default=5, help="at least one")
    parser.add_argument("--every", type=float, default=15.0, help="seconds between two releases")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="swap", help="of the result file")
    asked = parser.parse_args()
    hush_clients()
    started_load = load_average()
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory, broker() as kafka:
        root = Path(directory)
        base = tiny_language_model(root / "bert", asked.seed)
        catalogue = synthetic_items(asked.items)
        with (
            pinned(BROKER_CORE),
            deployment(kafka, root / "run", "swap", catalogue, base, SETTINGS) as made,
        ):
            found = _measure(made, asked)
    report(asked.name, asked.seed, vars(asked), started_load, **found)


def _measure(made: Deployment, asked: argparse.Namespace) -> Result:
    say(f"making {asked.swaps + 1} releases of {asked.items} items")
    releases = [made.new_release(asked.seed + at) for at in range(asked.swaps + 1)]
    made.send_items()
    made.announce(releases[0])
    worker = made.start_worker()
    wait_until("worker ready", worker.is_ready)
    past = synthetic_events(
        asked.users * asked.history, asked.users, asked.items, 4, asked.seed + 1, "p"
    )
    fill(made.bootstrap, made.topics.events, past)
    say(f"applying {len(past)} events of the past")
    wait_until("the past is applied", lambda: _applied(worker) >= len(past), 600.0)
    _wait_until_quiet(worker)
    seconds = asked.every * (asked.swaps + 1)
    events = synthetic_events(
        int(asked.rate * seconds), asked.users, asked.items, 4, asked.seed + 2
    )
    swaps: list[Swap] = []
    looks: list[Look] = []
    over = threading.Event()
    watcher = threading.Thread(
        target=_watch, args=(made, worker, releases[1:], asked.every, swaps, looks, over)
    )
    before = worker.metrics()
    watcher.start()
    try:
        run = asyncio.run(
            open_loop(
                made.bootstrap,
                made.topics.events,
                made.topics.recommendations,
                events,
                asked.rate,
                drain_s=60.0,
            )
        )
        wait_until("the last sweep ends", lambda: _is_current(worker, releases[-1]), 300.0)
    finally:
        over.set()
        watcher.join()
    after = worker.metrics()
    worker.stop()
    say("reading the changelog")
    kept = asyncio.run(_changelog(made))
    return {
        "swaps": [_swap_result(swap) for swap in swaps],
        "swaps_done": total(after, "driftline_swaps_total"),
        "profiles": total(after, "driftline_profiles{"),
        "event_loop_lag": _lag(before, after),
        "event_loop_lag_per_swap_ms": [_lag_around(swap, looks) for swap in swaps],
        "latency_ms": _latency_by_phase(run, swaps),
        "swap_phases_mean_s": _phases(before, after),
        "outputs": {
            "total": run.outputs,
            "mixed": run.mixed,
            "repeated": run.repeated,
            "by_release": run.by_release,
        },
        "lost": {
            "events_not_applied": len(past) + len(events) - kept["events"],
            "events_not_answered": int(np.isnan(run.answered_s).sum()),
            "dead_letters": total(after, "driftline_dead_letters_total"),
        },
        "changelog": _check_changelog(made, kept["records"], releases),
    }


def _applied(worker: WorkerProcess) -> float:
    return total(worker.metrics(), "driftline_events_applied_total")


def _wait_until_quiet(worker: WorkerProcess) -> None:
    """The recommendations owed for the past are out."""
    made, since_s = -1.0, time.monotonic()

    def rests() -> bool:
        nonlocal made, since_s
        now = total(worker.metrics(), "driftline_recommendations_total")
        if now != made:
            made, since_s = now, time.monotonic()
        return time.monotonic() - since_s > 2.0

    wait_until("owed recommendations are out", rests, 600.0)


def _is_current(worker: WorkerProcess, release_id: str) -> bool:
    samples = worker.metrics()
    serves = any(release_id in name for name in samples if "serving_release_info" in name)
    return serves and not samples.get("driftline_profiles_stale", 1.0)


def _watch(
    made: Deployment,
    worker: WorkerProcess,
    releases: list[str],
    every_s: float,
    swaps: list[Swap],
    looks: list[Look],
    over: threading.Event,
) -> None:
    """Announce a release when its time has come, and look at the worker all the while."""
    next_s = time.time() + every_s
    waiting = list(releases)
    rebuilt_before: dict[str, float] = {}
    while not over.is_set():
        samples = worker.metrics()
        now_s = time.time()
        looks.append(Look(now_s, samples))
        swap = swaps[-1] if swaps else None
        if swap is not None and swap.rebuilt_s is None:
            info = f'driftline_serving_release_info{{release_id="{swap.release_id}"}}'
            if swap.flipped_s is None and info in samples:
                swap.flipped_s = now_s
            # The gauge rises just after the flip is told: one more look, then zero is the end.
            elif swap.flipped_s is not None and not samples.get("driftline_profiles_stale", 1.0):
                swap.rebuilt_s = now_s
                swap.by_path = {
                    path: count - rebuilt_before.get(path, 0.0)
                    for path, count in _rebuilt(samples).items()
                }
        if waiting and now_s >= next_s and (swap is None or swap.rebuilt_s is not None):
            rebuilt_before = _rebuilt(samples)
            release_id = waiting.pop(0)
            swaps.append(Swap(release_id, made.announce(release_id)))
            next_s += every_s
        time.sleep(POLL_S)


def _rebuilt(samples: Mapping[str, float]) -> dict[str, float]:
    return {
        path: samples.get(f'driftline_profiles_rebuilt_total{{path="{path}"}}', 0.0)
        for path in ("touch", "sweep")
    }


def _swap_result(swap: Swap) -> Result:
    if swap.flipped_s is None or swap.rebuilt_s is None:
        return {"release": swap.release_id, "finished": False}
    rebuild_s = max(swap.rebuilt_s - swap.flipped_s, POLL_S)
    users = sum(swap.by_path.values())
    return {
        "release": swap.release_id,
        "finished": True,
        "notice_to_flip_s": round(swap.flipped_s - swap.announced_s, 3),
        "notice_to_all_profiles_s": round(swap.rebuilt_s - swap.announced_s, 3),
        "rebuild_s": round(rebuild_s, 3),
        "users_rebuilt": swap.by_path,
        "users_rebuilt_per_s": round(users / rebuild_s, 1),
    }


def _lag(before: Mapping[str, float], after: Mapping[str, float]) -> Result:
    """How late the loop woke, as buckets: how many within each bound, and the worst bound hit."""
    start = f'{LAG}_bucket{{le="'
    counts = {
        name[len(start) :].rstrip('"}'): value - before.get(name, 0.0)
        for name, value in after.items()
        if name.startswith(start)
    }
    looks = counts.get("+Inf", 0.0)
    within = [bound for bound, count in counts.items() if count >= looks]
    worst = min(within, key=float) if within else "unknown"
    seconds = after.get(f"{LAG}_sum", 0.0) - before.get(f"{LAG}_sum", 0.0)
    return {
        "looks": looks,
        "mean_ms": round(1000.0 * seconds / max(looks, 1.0), 3),
        "worst_at_most_s": worst,
        "cumulative": counts,
    }


def _lag_around(swap: Swap, looks: list[Look]) -> Result:
    end_s = swap.rebuilt_s or looks[-1].at_s
    during = [look for look in looks if swap.announced_s - POLL_S <= look.at_s <= end_s]
    if len(during) < 2:
        return {}
    lag = _lag(during[0].samples, during[-1].samples)
    return {"mean_ms": lag["mean_ms"], "worst_at_most_s": lag["worst_at_most_s"]}


def _latency_by_phase(run: OpenLoop, swaps: list[Swap]) -> Result:
    """Before the first notice; while some profile is not in the new space; after and between."""
    sent_s = run.intended_s
    during = np.zeros(len(sent_s), dtype=np.bool_)
    for swap in swaps:
        during |= (sent_s >= swap.announced_s) & (sent_s <= (swap.rebuilt_s or np.inf))
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
    found["generator_late"] = quantiles_ms(run.lateness_s)
    return found


def _phases(before: Mapping[str, float], after: Mapping[str, float]) -> Result:
    def grown(name: str) -> float:
        return after.get(name, 0.0) - before.get(name, 0.0)

    found: Result = {}
    for phase in ("fetch", "verify", "load", "flip"):
        stem = "driftline_swap_seconds"
        times = grown(f'{stem}_count{{phase="{phase}"}}')
        if times:
            found[phase] = round(grown(f'{stem}_sum{{phase="{phase}"}}') / times, 4)
    return found


async def _changelog(made: Deployment) -> Result:
    """Every user's last changelog record, and the events that they count."""
    settings = made.settings
    layout = _layout(made)
    consumer = AIOKafkaConsumer(bootstrap_servers=made.bootstrap, enable_auto_commit=False)
    await consumer.start()
    last: dict[bytes, bytes] = {}
    try:
        numbers = range(settings.topics.partitions)
        places = [TopicPartition(made.topics.profiles, number) for number in numbers]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        for place in places:
            while await consumer.position(place) < ends[place]:
                fetched = await consumer.getmany(place, timeout_ms=500)
                for record in fetched.get(place, []):
                    last[record.key] = record.value
    finally:
        await consumer.stop()
    records, _ = split_tails(layout, list(last.values()))
    return {"records": records, "events": int(records["events"].sum())}


def _layout(made: Deployment) -> RecordLayout:
    model, kept = made.settings.model, made.settings.profile
    return RecordLayout(model.dim, model.layers, kept.history, kept.recent_ids, kept.seen_bytes)


def _check_changelog(made: Deployment, records: Records, releases: list[str]) -> Result:
    """Whether every stored profile is of the last release: in name, and in fact.

    In fact: its remembered events, replayed in that release, make the same profile.  That is exact
    only for users whose whole past is remembered.  The release before the last is the control:
    replayed in it, profiles must come out otherwise, or the check would prove nothing.
    """
    catalog = Catalog()
    for item in made.items:
        catalog.put(item)
    expected, seen_bytes = expected_release(made.settings), made.settings.profile.seen_bytes
    before, last = (
        Space(open_release(made.store.fetch(name), expected), catalog, seen_bytes)
        for name in releases[-2:]
    )
    whole = records[records["events"] <= made.settings.profile.history]
    difference, control = _differences(whole, last, catalog), _differences(whole, before, catalog)
    return {
        "profiles": len(records),
        "of_another_release": int((records["release"] != last.key).sum()),
        "replayed": len(whole),
        "unlike_their_history": int((difference > CLOSE).sum()),
        "largest_difference": float(difference.max(initial=0.0)),
        "control_unlike_in_release_before": int((control > CLOSE).sum()),
    }


def _differences(records: Records, space: Space, catalog: Catalog) -> npt.NDArray[np.float32]:
    """How far each profile is from its history replayed in a space.  Shapes: (B,) -> (B,)."""
    differences = [np.zeros(0, np.float32)]
    for start in range(0, len(records), 1000):
        part = records[start : start + 1000]
        _, profile = replay_history(part, space, catalog)
        differences.append(np.abs(profile - part["profile"]).max(axis=1))
    return np.concatenate(differences)


if __name__ == "__main__":
    main()
