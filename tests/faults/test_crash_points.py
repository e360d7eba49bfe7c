"""SIGKILL at each named point between reading a chunk and committing it: lost 0, doubled 0."""

from __future__ import annotations

import pytest

from stream.oracle.run import run_oracle
from tests.deployment import Deployment, WorkerProcess, wait_until
from tests.faults.dying_worker import POINTS
from tests.faults.load import event_at
from tests.faults.record import Record

pytestmark = pytest.mark.faults

USERS, LONG_USERS = 30, 5_000
EVENTS, LONG_EVENTS = 60, 500
"""Sent at a time; what makes a worker pass its point is sent again until it has died."""
SHORT_POINTS = ("after the write", "after the changelog", "before the commit")


@pytest.mark.timeout(3600)
def test_a_worker_killed_at_any_named_point_loses_and_doubles_nothing(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    is_short = repeats == 1
    points, users, events = (
        (SHORT_POINTS, USERS, EVENTS) if is_short else (POINTS, LONG_USERS, LONG_EVENTS)
    )
    sent = 0
    for turn in range(repeats):
        for at, point in enumerate(points):
            # The store's own machine, or another one that has the changelog alone.
            instance = "ab"[(turn + at) % 2]
            worker = deployment.start_wrapped_worker(
                ("tests.faults.dying_worker", point, str(turn % 3)), instance
            )
            wait_until("it serves or died", lambda worker=worker: is_past_start(worker), 180)  # type: ignore[misc]
            while worker.process.poll() is None:
                fresh = range(sent, sent + events)
                deployment.send_events([event_at(number, users) for number in fresh])
                sent += events
                worker.ended_within(1.0)
            assert worker.process.returncode == -9, worker.text[-2000:]
    last = deployment.start_quick_worker("a")
    last.wait_ready()
    deployment.wait_committed(sent, within_s=300)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    assert report.events_applied == sent
    assert last.stop() == 0
    for point in points:
        record.note(f"kill -9 {point}", repeats, report)


def is_past_start(worker: WorkerProcess) -> bool:
    return worker.process.poll() is not None or worker.is_ready()
