"""SIGKILL at each named point between reading a chunk and committing it: lost 0, doubled 0."""

from __future__ import annotations

import pytest

from stream.oracle.run import run_oracle
from tests.deployment import Deployment, WorkerProcess, make_events, wait_until
from tests.faults.dying_worker import POINTS
from tests.faults.record import Record

pytestmark = pytest.mark.faults

USERS, LONG_USERS = 30, 500
SHORT_POINTS = ("after the write", "after the changelog", "before the commit")


@pytest.mark.timeout(3600)
def test_a_worker_killed_at_any_named_point_loses_and_doubles_nothing(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    points, users = (SHORT_POINTS, USERS) if repeats == 1 else (POINTS, LONG_USERS)
    each = 0
    for turn in range(repeats):
        for at, point in enumerate(points):
            # The store's own machine, or another one that has the changelog alone.
            instance = "ab"[(turn + at) % 2]
            worker = deployment.start_wrapped_worker(
                ("tests.faults.dying_worker", point, str(turn % 3)), instance
            )

            def has_died(worker: WorkerProcess = worker) -> bool:
                nonlocal each
                deployment.send_events(make_events(users, each=1, start=each))
                each += 1
                return worker.process.poll() is not None

            wait_until(f"it died {point}", has_died, within_s=180)
            assert worker.process.returncode == -9, worker.text[-2000:]
    last = deployment.start_worker("a")
    last.wait_ready()
    deployment.wait_committed(users * each, within_s=300)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    assert report.events_applied == users * each
    assert last.stop() == 0
    for point in points:
        record.note(f"kill -9 {point}", repeats, report)
