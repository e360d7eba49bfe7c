"""The most events a second that one worker answers: what "50% load" is half of.

Measured in a deployment where nothing is held back: every batch is answered at once, so the rate
includes scoring and outputs and can be sustained.
"""

from __future__ import annotations

import time

from benchmarks.deployment import Deployment, WorkerProcess, total, wait_until
from benchmarks.load import Events, fill

EVERY_EVENT = {"DRIFTLINE_SERVING__USER_INTERVAL_S": "0"}
"""No least time between two outputs of one user: otherwise that second is most of the latency."""
NEVER_HOLD = {"DRIFTLINE_SERVING__BACKLOG_RECORDS": "1000000000"}
SETTLE_S = 3.0


def start_serving(made: Deployment, release: str) -> WorkerProcess:
    """A worker that serves a release, at rest."""
    made.send_items()
    made.announce(release)
    worker = made.start_worker()
    wait_until("worker ready", worker.is_ready)
    time.sleep(SETTLE_S)
    return worker


def most_answered(made: Deployment, release: str, events: Events) -> float:
    """Events per second that are applied and answered when all of them wait at once.

    `made` must have the settings EVERY_EVENT | NEVER_HOLD.
    """
    worker = start_serving(made, release)
    fill(made.bootstrap, made.topics.events, events)
    began: tuple[float, float] | None = None
    while True:
        samples = worker.metrics()
        now_s, applied = time.perf_counter(), total(samples, "driftline_events_applied_total")
        if applied and began is None:
            began = (now_s, applied)
        if applied >= len(events):
            break
        time.sleep(0.02)
    worker.stop()
    assert began is not None, "the loop ends only after events were applied"
    return (len(events) - began[1]) / max(now_s - began[0], 1e-3)
