"""One run of one contender: ours as a worker process, a peer as a process of its own, the floor.

Each takes a topic that is already full and gives the rate at which it got through it, and how much
processor time that took: on a machine that others use, the second is the steadier figure.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.deployment import WORKER_CORE, Deployment, WorkerProcess, total, wait_until
from benchmarks.harness import ROOT, Result, pinned
from benchmarks.load import Answer, Events
from benchmarks.peer_environment import THROUGHPUT
from benchmarks.reading import read_topic
from benchmarks.throughput import profiler
from stream.broker import EmbeddedKafka

POLL_S = 0.1
"""How often the worker is asked for its counts: each answer costs it a millisecond or two."""
QUIET_S = 2.0
"""Owed recommendations are out when their count rests this long; then the topic is read."""
PEER_TIMEOUT_S = 180.0
"""A peer that has not finished by then is told in `timed_out`."""
PROFILE_S = 3


@dataclass(frozen=True, slots=True)
class Plan:
    """What a run is made of."""

    kafka: EmbeddedKafka
    root: Path
    base: Path
    events: Events
    items: int
    profile: bool


def run_ours(plan: Plan, made: Deployment, release: str) -> Result:
    """Our worker, from its first applied event to the last, and until all is answered."""
    made.send_items()
    made.announce(release)
    worker = made.start_worker()
    count = len(plan.events)
    began: tuple[float, float, float] | None = None
    threads_before: dict[int, float] = {}
    spy: Any = None
    stacks = made.root / "stacks.txt"
    while True:
        samples = worker.metrics()
        now_s = time.perf_counter()
        applied = total(samples, "driftline_events_applied_total")
        if applied and began is None:
            began = (now_s, applied, _cpu_s(worker.process.pid))
            threads_before = _thread_cpu_s(worker.process.pid)
        if plan.profile and spy is None and applied > 0.1 * count:
            spy = profiler.start(worker.process.pid, PROFILE_S, stacks)
        if applied >= count:
            break
        time.sleep(POLL_S)
    assert began is not None, "the loop ends only after events were applied"
    applied_s, cpu_s = now_s - began[0], _cpu_s(worker.process.pid) - began[2]
    threads_s = {
        thread: used_s - threads_before.get(thread, 0.0)
        for thread, used_s in _thread_cpu_s(worker.process.pid).items()
    }
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
        "cpu_us_per_event": 1e6 * cpu_s / fresh,
        "thread_us_per_event": _named(worker.process.pid, threads_s, cpu_s, fresh),
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
        found["profile"] = profiler.top(stacks, threads_s)
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
    causes: dict[bytes, str] = {}
    async for record in read_topic(made, made.topics.recommendations):
        causes[record.key or b""] = decoder.decode(record.value or b"").cause_id
    return sum(causes.get(user) != cause for user, cause in last.items())


def _cpu_s(pid: int) -> float:
    """Processor seconds that a process has used, its children not counted."""
    return _ticks_s(Path(f"/proc/{pid}/stat"))


def _thread_cpu_s(pid: int) -> dict[int, float]:
    """The same of each thread that lives, by its number."""
    used_s = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):  # it has just ended
            used_s[int(task.name)] = _ticks_s(task / "stat")
    return used_s


def _ticks_s(stat: Path) -> float:
    fields = stat.read_text().rsplit(") ", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _named(pid: int, threads_s: dict[int, float], cpu_s: float, events: float) -> Result:
    """Microseconds per event of the threads that matter; Python 3.11 does not tell their names."""
    loop_s = threads_s[pid]
    others_s = sorted(used_s for thread, used_s in threads_s.items() if thread != pid)[:-3:-1]
    names = ("event loop", "state thread", "fetching", "the rest")
    parts_s = (loop_s, *others_s, cpu_s - loop_s - sum(others_s))
    return {name: round(1e6 * s / events, 2) for name, s in zip(names, parts_s, strict=True)}


def run_peer(plan: Plan, made: Deployment, name: str) -> Result | None:
    """A peer in its own interpreter; None when it did not finish in time."""
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


def run_floor(plan: Plan, release: str, repetition: int, users: int, seed: int) -> dict[str, float]:
    """Our parts alone, in events per second each."""
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
