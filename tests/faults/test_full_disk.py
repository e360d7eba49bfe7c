"""No space left under the store: nothing is committed that is not stored, and all comes back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from stream.oracle.run import run_oracle
from tests.deployment import Deployment, make_events
from tests.faults.record import Record

pytestmark = pytest.mark.faults

USERS = 200
DISK_BYTES = 24 * 2**20


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own.  Only root may mount one."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a tmpfs")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


@pytest.mark.timeout(3600)
def test_a_worker_on_a_full_disk_ends_and_goes_on_when_there_is_room(
    deployment: Deployment, small_disk: Path, repeats: int, record: Record
) -> None:
    elsewhere = {"DRIFTLINE_STORE__DIRECTORY": str(small_disk / "data")}
    filler = small_disk / "filler"
    each = 0
    for _ in range(repeats):
        worker = deployment.start_worker("a", **elsewhere)
        worker.wait_ready()
        deployment.send_events(make_events(USERS, each=5, start=each))
        each += 5
        deployment.wait_committed(USERS * each)
        fill(filler)
        deployment.send_events(make_events(USERS, each=20, start=each))
        each += 20
        assert worker.process.wait(90) == 5, worker.text[-2000:]
        assert "is the disk full?" in worker.text
        assert "Traceback" not in worker.text
        assert deployment.committed(deployment.topics.events) < USERS * each
        filler.unlink()
        again = deployment.start_worker("a", **elsewhere)
        again.wait_ready()
        deployment.wait_committed(USERS * each, within_s=120)
        assert again.stop() == 0
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    assert report.events_applied == USERS * each
    record.note("disk full under the store", repeats, report)


def fill(file: Path) -> None:
    """Write until nothing more goes in."""
    with file.open("wb", buffering=0) as handle:
        for block in (2**20, 2**12, 1):
            try:
                while True:
                    handle.write(b"\0" * block)
            except OSError:
                continue
