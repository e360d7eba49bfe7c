"""No space left: nothing is committed that is not stored, readiness falls, and all comes back."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stream.oracle.run import run_oracle
from tests.deployment import Deployment, make_events, wait_until
from tests.faults.record import Bar, Record
from tests.faults.small_disk import fill, small_disk

pytestmark = pytest.mark.faults

USERS = 200


@pytest.mark.timeout(3600)
def test_a_worker_on_a_full_disk_ends_and_goes_on_when_there_is_room(
    deployment: Deployment, tmp_path: Path, repeats: int, record: Record
) -> None:
    each = 0
    unready_s: list[float] = []
    ended_s: list[float] = []
    with small_disk(tmp_path / "small", mib=24) as disk:
        place = {"DRIFTLINE_STORE__DIRECTORY": str(disk / "data")}
        worker = deployment.start_quick_worker("a", **place)
        for _ in range(repeats):
            worker.wait_ready()
            deployment.send_events(make_events(USERS, each=5, start=each))
            each += 5
            deployment.wait_committed(USERS * each)
            filler = fill(disk)
            began_s = time.monotonic()
            deployment.send_events(make_events(USERS, each=20, start=each))
            each += 20
            wait_until("not ready", lambda worker=worker: not worker.still_serves())  # type: ignore[misc]
            unready_s.append(time.monotonic() - began_s)
            assert worker.process.wait(60) == 5, worker.text[-2000:]
            ended_s.append(time.monotonic() - began_s)
            assert "is the disk full?" in worker.text
            assert "Traceback" not in worker.text
            assert deployment.committed(deployment.topics.events) < USERS * each
            # Restarted too early it ends again, and says why again.
            early = deployment.start_quick_worker("a", **place)
            assert early.process.wait(60) == 5, early.text[-2000:]
            filler.unlink()
            worker = deployment.start_quick_worker("a", **place)
        worker.wait_ready()
        deployment.wait_committed(USERS * each, within_s=120)
        assert worker.stop() == 0
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    assert report.events_applied == USERS * each
    bars = {"not ready, s": Bar(5.0, unready_s)}
    record.note("disk full under a worker", repeats, report, bars, ended_s=max(ended_s))
