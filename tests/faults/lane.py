"""The long lane: every fault as often as it takes, in three processes side by side.

    python -m tests.faults.lane       # `make faults`; more words go to pytest, as -k rebalance

Most of a fault's time is waiting: for a session to expire, for a broker that is away, for half an
hour of soak.  So three runs of pytest, each with its own broker and log, share two cores; what
measures latency or needs them both stands where the others mostly wait.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from tests.faults import record

HERE = Path("tests/faults")
LOGS = Path("build/faults")
LANES: dict[str, tuple[str, ...]] = {
    "waiting": (
        "test_soak.py",
        "test_poison_latency.py",
        "test_many_releases.py",
        "test_poison_events.py",
    ),
    "restarts": (
        "test_crash_points.py",
        "test_rebalances.py",
        "test_refusals.py",
        "test_readiness.py",
    ),
    "damage": (
        "test_worker_faults.py",
        "test_suspended_worker.py",
        "test_full_disk.py",
        "test_learner_faults.py",
        "../unit/test_mutated_releases.py",
        "../unit/test_decoder_fuzz.py",
        "../simulation",
    ),
}
NOTHING_CHOSEN = 5
"""What pytest ends with when `-k` leaves it no test."""


def main() -> int:
    """Run the lanes, write the table.  Returns: 1 when one of them failed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    running = {}
    for name, files in LANES.items():
        paths = [str((HERE / file).resolve().relative_to(Path.cwd())) for file in files]
        with (LOGS / f"{name}.log").open("w") as log:
            running[name] = subprocess.Popen(
                [sys.executable, "-m", "pytest", "--long", "--durations=0", *paths, *sys.argv[1:]],
                stdout=log,
                stderr=log,
            )
    began_s, failed = time.monotonic(), 0
    for name, process in running.items():
        code = process.wait()
        failed |= code not in (0, NOTHING_CHOSEN)
        last = (LOGS / f"{name}.log").read_text().splitlines()[-1]
        print(f"{name}: {last} (after {(time.monotonic() - began_s) / 60:.0f} min)", flush=True)
    record.main()
    return failed


if __name__ == "__main__":
    sys.exit(main())
