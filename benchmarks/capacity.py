"""The highest steady pace that one worker keeps up with: what "50% load" is half of.

An open loop sends at a fixed rate for a few seconds.  The rate is sustained when events sent near
the end are still answered soon: above it every second adds to the lag.  Rates are doubled until one
is not sustained, then the gap is halved.  The worker, its settings and its profiles are those of
the load that follows.

What surprised us: the rate at which a backlog is answered says little.  In a burst one
recommendation answers several events of its user; at a steady pace nearly every event gets its own.
With 1,000 users half of the burst's rate was too much.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from benchmarks.deployment import Deployment, WorkerProcess, total, wait_until
from benchmarks.harness import Result, say
from benchmarks.load import Events, open_loop, synthetic_events

EVERY_EVENT = {"DRIFTLINE_SERVING__USER_INTERVAL_S": "0"}
"""No least time between two outputs of one user: otherwise that second is most of the latency."""
SETTLE_S = 3.0
FIRST_RATE = 500.0
STEP_S = 4.0
STEPS = 14
"""At most so many: with the waits between them about a minute and a half."""
PRECISION = 1.1
"""The search ends when the lowest rate that was too high is within this factor."""
WITHIN_S = 0.25
"""Half of the events of a step's last quarter are answered within this, or its rate is too high."""


@dataclass(slots=True)
class Capacity:
    """What a search found: events per second, its steps in order, and all it sent."""

    sustained_per_s: float
    steps: list[Result] = field(default_factory=list)
    sent: list[Events] = field(default_factory=list)

    def result(self) -> Result:
        """For the report."""
        return {"sustained_per_s": round(self.sustained_per_s, 1), "search": self.steps}


def start_serving(made: Deployment, release: str) -> WorkerProcess:
    """A worker that serves a release, at rest."""
    made.send_items()
    made.announce(release)
    worker = made.start_worker()
    wait_until("worker ready", worker.is_ready)
    time.sleep(SETTLE_S)
    return worker


def wait_until_quiet(worker: WorkerProcess) -> None:
    """No recommendation is made any more: what was owed is out."""
    made, since_s = -1.0, time.monotonic()

    def rests() -> bool:
        nonlocal made, since_s
        now = total(worker.metrics(), "driftline_recommendations_total")
        if now != made:
            made, since_s = now, time.monotonic()
        return time.monotonic() - since_s > 2.0

    wait_until("owed recommendations are out", rests, 600.0)


def sustained_rate(
    made: Deployment, worker: WorkerProcess, users: int, items: int, seed: int
) -> Capacity:
    """Search with uniformly drawn events.  `made` must have the setting EVERY_EVENT."""
    found = Capacity(0.0)
    names = (f"s{chr(ord('a') + number)}" for number in itertools.count())

    def sustains(rate: float) -> bool:
        count = int(rate * STEP_S)
        step = synthetic_events(count, users, items, 4, seed + len(found.sent), next(names))
        found.sent.append(step)
        run = asyncio.run(
            open_loop(
                made.bootstrap, made.topics.events, made.topics.recommendations, step, rate, 60.0
            )
        )
        late = np.nan_to_num(run.latencies_s[-count // 4 :], nan=math.inf)
        lag_s = float(np.median(late))
        found.steps.append({"per_s": round(rate, 1), "lag_s": round(lag_s, 4)})
        say(f"{rate:,.0f} events/s: half of the last ones answered within {1000 * lag_s:.0f} ms")
        wait_until_quiet(worker)
        return lag_s <= WITHIN_S

    found.sustained_per_s = highest(sustains, FIRST_RATE, PRECISION, STEPS)
    return found


def highest(sustains: Callable[[float], bool], first: float, precision: float, steps: int) -> float:
    """The highest rate known to be sustained, after `steps` looks at most.

    Doubles from `first` while it can (or halves while it must), then halves the gap, in ratios.

    >>> round(highest(lambda rate: rate <= 3000.0, first=1000.0, precision=1.2, steps=9))
    2828
    """
    low, high, rate = 0.0, math.inf, first
    for _ in range(steps):
        if sustains(rate):
            low = rate
        else:
            high = rate
        if high <= low * precision:
            break
        if low and high < math.inf:
            rate = math.sqrt(low * high)
        else:
            rate = 2.0 * low if low else high / 2.0
    return low
