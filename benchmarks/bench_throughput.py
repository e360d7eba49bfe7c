"""How many events per second one core can take: ours with everything it does, and peers.

One real Kafka on core 0, every consumer alone on core 1, the same synthetic JSON events for all.
Each repetition pours them into new topics and runs every contender once, in an order that moves
on by one each time; figures are medians over repetitions.

    driftline         the whole event path, default settings, from the first applied event to the
                      last; `answered` is the rate until every owed recommendation is out, too
    driftline_every   the same with no backlog hold and no interval: every batch answered at once
    the others        benchmarks/throughput/contenders.py

A worker that is behind catches up before it recommends (`backlog_hold_s`); so read `driftline`
and `answered` together.

    make bench-throughput [BENCH_ARGS="--events 20000 --repetitions 1 --only driftline"]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.structs import TopicPartition

from benchmarks.deployment import (
    WORKER_CORE,
    Deployment,
    WorkerProcess,
    broker,
    deployment,
    synthetic_items,
    tiny_language_model,
    total,
    wait_until,
)
from benchmarks.harness import (
    ROOT,
    Result,
    hush_clients,
    load_average,
    median_and_range,
    pinned,
    report,
    say,
)
from benchmarks.load import Answer, Events, fill, synthetic_events
from benchmarks.peer_environment import THROUGHPUT
from benchmarks.throughput import profiler
from benchmarks.throughput.contenders import CONTENDERS, NEEDS
from stream.broker import EmbeddedKafka

OURS: dict[str, dict[str, str]] = {
    "driftline": {},
    "driftline_every": {
        "DRIFTLINE_SERVING__USER_INTERVAL_S": "0",
        "DRIFTLINE_SERVING__BACKLOG_RECORDS": "1000000000",
    },
}
POLL_S = 0.05
QUIET_S = 2.0
"""Owed recommendations are out when their count rests this long; then the topic is read."""
PEER_TIMEOUT_S = 180.0
"""A peer that has not finished by then (Faust was once seen to hang) is told in `timed_out`."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of."""

    kafka: EmbeddedKafka
    root: Path
    base: Path
    events: Events
    items: int
    profile: bool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", default="", help="contenders to run, separated by commas")
    parser.add_argument("--profile", action="store_true", help="py-spy on our worker, one more run")
    parser.add_argument("--name", default="throughput", help="of the result file")
    asked = parser.parse_args()
    hush_clients()
    started_load = load_average()
    unavailable = THROUGHPUT.prepare(NEEDS)
    names = [name for name in [*OURS, *CONTENDERS] if name not in unavailable]
    if asked.only:
        names = [name for name in names if name in asked.only.split(",")]
    say(f"making {asked.events} events, {asked.users} users, {asked.items} items")
    events = synthetic_events(asked.events, asked.users, asked.items, 4, asked.seed)
    runs: dict[str, list[Result]] = {name: [] for name in names}
    profile: Result | None = None
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory, broker() as kafka:
        root = Path(directory)
        base = tiny_language_model(root / "bert", asked.seed)
        plan = Plan(kafka, root, base, events, asked.items, False)
        with deployment(
            kafka,
            root / "setup",
            "setup",
            synthetic_items(asked.items),
            base,
            {},
            root / "releases",
        ) as made:
            release = made.new_release(asked.seed)
        floors: list[dict[str, float]] = []
        timed_out: list[str] = []
        for repetition in range(asked.repetitions):
            turn = repetition % max(len(names), 1)
            _repeat(plan, f"r{repetition}", names[turn:] + names[:turn], release, runs, timed_out)
            floors.append(_floor(plan, release, repetition, asked.users, asked.seed))
        if asked.profile:
            profiled: dict[str, list[Result]] = {"driftline": []}
            spied = Plan(kafka, root, base, events, asked.items, True)
            _repeat(spied, "spied", ["driftline"], release, profiled, timed_out)
            profile = profiled["driftline"][0].get("profile")
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        event_bytes=round(sum(map(len, events.values)) / len(events), 1),
        events_per_s={
            name: median_and_range([run["rate"] for run in done])
            for name, done in runs.items()
            if done
        },
        ratios=_ratios(runs),
        ours=_ours(runs),
        floor_per_s={
            part: median_and_range([floor[part] for floor in floors]) for part in floors[0]
        }
        if floors
        else {},
        unavailable=unavailable,
        timed_out=timed_out,
        runs=runs,
        profile=profile,
        peers=THROUGHPUT.installed(),
    )


def _repeat(
    plan: Plan,
    prefix: str,
    names: list[str],
    release: str,
    runs: dict[str, list[Result]],
    timed_out: list[str],
) -> None:
    """Every contender once, each on topics of its own."""
    releases = plan.root / "releases"
    for name in names:
        before = load_average()
        with deployment(
            plan.kafka,
            plan.root / f"{prefix}-{name}",
            f"{prefix}-{name.replace('_', '-')}",
            synthetic_items(plan.items),
            plan.base,
            OURS.get(name, {}),
            releases,
        ) as made:
            fill(made.bootstrap, made.topics.events, plan.events)
            is_ours = name in OURS
            run = _run_ours(plan, made, release) if is_ours else _run_peer(plan, made, name)
        if run is None:
            say(f"{prefix} {name}: not finished after {PEER_TIMEOUT_S:.0f} s")
            timed_out.append(f"{prefix} {name}")
            continue
        run["load_average"] = before
        runs[name].append(run)
        say(f"{prefix} {name}: {run['rate']:,.0f} events/s (load {before})")


def _run_ours(plan: Plan, made: Deployment, release: str) -> Result:
    made.send_items()
    made.announce(release)
    worker = made.start_worker()
    count = len(plan.events)
    began: tuple[float, float] | None = None
    spy: Any = None
    stacks = made.root / "stacks.txt"
    while True:
        samples = worker.metrics()
        now_s = time.perf_counter()
        applied = total(samples, "driftline_events_applied_total")
        if applied and began is None:
            began = (now_s, applied)
        if plan.profile and spy is None and applied > 0.1 * count:
            spy = profiler.start(worker.process.pid, 5, stacks)
        if applied >= count:
            break
        time.sleep(POLL_S)
    assert began is not None, "the loop ends only after events were applied"
    applied_s = now_s - began[0]
    answered_s = _until_answered(worker, began[0])
    samples = worker.metrics()
    if spy is not None:
        spy.wait()
    unanswered = asyncio.run(_unanswered(made, plan.events))
    worker.stop()
    fresh = count - began[1]
    found: Result = {
        "rate": fresh / applied_s,
        "seconds": applied_s,
        "answered_seconds": answered_s,
        "answered_rate": fresh / answered_s,
        "recommendations": total(samples, "driftline_recommendations_total"),
        "users_unanswered": unanswered,
        "dead_letters": total(samples, "driftline_dead_letters_total"),
        "batch_seconds": {
            phase: samples.get(f'driftline_batch_seconds_sum{{phase="{phase}"}}', 0.0)
            for phase in ("apply", "publish")
        },
        "mean_batch_events": samples["driftline_batch_events_sum"]
        / samples["driftline_batch_events_count"],
    }
    if stacks.exists():
        found["profile"] = profiler.top(stacks)
    return found


def _until_answered(worker: WorkerProcess, began_s: float) -> float:
    """Seconds from the first applied event until the last recommendation was made."""
    made, changed_s = -1.0, time.perf_counter()

    def rests() -> bool:
        nonlocal made, changed_s
        now = total(worker.metrics(), "driftline_recommendations_total")
        if now != made:
            made, changed_s = now, time.perf_counter()
        return time.perf_counter() - changed_s > QUIET_S

    wait_until("owed recommendations are out", rests, 600.0)
    return changed_s - began_s


async def _unanswered(made: Deployment, events: Events) -> int:
    """Users whose last recommendation is not for their last event: should be none."""
    last = {key: f"e{at}" for at, key in enumerate(events.keys)}
    decoder = msgspec.json.Decoder(Answer)
    consumer = AIOKafkaConsumer(bootstrap_servers=made.bootstrap, enable_auto_commit=False)
    await consumer.start()
    try:
        places = [TopicPartition(made.topics.recommendations, number) for number in range(4)]
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        ends = await consumer.end_offsets(places)
        causes: dict[bytes, str] = {}
        for place in places:
            while await consumer.position(place) < ends[place]:
                for record in (await consumer.getmany(place, timeout_ms=500)).get(place, []):
                    causes[record.key] = decoder.decode(record.value).cause_id
        return sum(causes.get(user) != cause for user, cause in last.items())
    finally:
        await consumer.stop()


def _run_peer(plan: Plan, made: Deployment, name: str) -> Result | None:
    command = [
        str(THROUGHPUT.python),
        "-m",
        "benchmarks.throughput.contenders",
        name,
        made.bootstrap,
        made.topics.events,
        str(len(plan.events)),
        str(made.root),
    ]
    with pinned(WORKER_CORE):
        try:
            done = subprocess.run(
                command,
                cwd=ROOT,
                capture_output=True,
                text=True,
                timeout=PEER_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return None
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-4000:]}")
    counted: Result = json.loads(done.stdout.splitlines()[-1])
    if not counted["seconds"]:
        raise SystemExit(f"{name} took every event at once: give more --events")
    # Where a framework stores its state later than it counts, both rates are told.
    late = counted.get("durable_seconds")
    durable = {"durable_rate": counted["events"] / late} if late else {}
    return {"rate": counted["events"] / counted["seconds"], **durable, **counted}


def _floor(plan: Plan, release: str, repetition: int, users: int, seed: int) -> dict[str, float]:
    numbers = [str(number) for number in (len(plan.events), users, plan.items, seed)]
    places = [str(plan.root / "releases" / release), str(plan.root / f"floor-{repetition}")]
    environment = {
        "PATH": "/usr/bin:/bin",
        "OPENBLAS_NUM_THREADS": "1",
        "DRIFTLINE_MODEL__BASE": str(plan.base),
    }
    with pinned(WORKER_CORE):
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.throughput.floor", *numbers, *places],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise SystemExit(f"the floor failed:\n{done.stderr[-4000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def _ratios(runs: dict[str, list[Result]]) -> Result:
    """Ours over each peer, repetition by repetition."""
    ours = runs.get("driftline") or []
    return {
        name: median_and_range(
            [mine["rate"] / peer["rate"] for mine, peer in zip(ours, done, strict=True)]
        )
        for name, done in runs.items()
        if name not in OURS and ours and len(done) == len(ours)
    }


def _ours(runs: dict[str, list[Result]]) -> Result:
    figures = ("answered_rate", "answered_seconds", "recommendations", "users_unanswered")
    return {
        name: {figure: median_and_range([run[figure] for run in runs[name]]) for figure in figures}
        for name in OURS
        if runs.get(name)
    }


if __name__ == "__main__":
    main()
