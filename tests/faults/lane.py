"""The long lane: every fault as often as it takes, three files of tests at a time.

    python -m tests.faults.lane       # `make faults`; more words go to pytest, as -k rebalance

Most of a fault's time is waiting: for a session to expire, for a broker that is away, for half an
hour of soak.  So three runs of pytest share two cores, each of one file with a broker and a log of
its own; whichever ends takes the next file.  The list begins with what takes longest, so that they
end together, and what is judged in seconds is not all under way at once.
"""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from tests.faults import record

HERE = Path("tests/faults")
LOGS = Path("build/faults")
FILES = (
    "test_soak.py",
    "test_worker_faults.py",
    "test_crash_points.py",
    "../simulation",
    "test_rebalances.py",
    "test_refusals.py",
    "test_suspended_worker.py",
    "test_learner_faults.py",
    "test_poison_latency.py",
    "test_many_releases.py",
    "test_full_disk.py",
    "test_readiness.py",
    "test_poison_events.py",
    "../unit/test_decoder_fuzz.py",
    "../unit/test_mutated_releases.py",
)
SIDE_BY_SIDE = 3
NOTHING_CHOSEN = 5
"""What pytest ends with when `-k` leaves it no test."""
BAR_MINUTES = 60.0


def main() -> int:
    """Run the files, write the table.  Returns: 1 when one of them failed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    waiting: queue.SimpleQueue[str] = queue.SimpleQueue()
    for file in FILES:
        waiting.put(file)
    words, codes, began_s = sys.argv[1:], list[int](), time.monotonic()

    def work_off() -> None:
        while True:
            try:
                file = waiting.get_nowait()
            except queue.Empty:
                return
            codes.append(_run(file, words, began_s))

    threads = [threading.Thread(target=work_off) for _ in range(SIDE_BY_SIDE)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failed = any(code not in (0, NOTHING_CHOSEN) for code in codes)
    if not words and not failed:
        minutes = (time.monotonic() - began_s) / 60.0
        bars = {"minutes": record.Bar(BAR_MINUTES, [minutes])}
        record.Record(is_kept=True).note("all of this table, in one run", 1, bars=bars)
    record.main()
    return int(failed)


def _run(file: str, words: Sequence[str], began_s: float) -> int:
    """One file of tests.  Returns: pytest's exit code."""
    path = (HERE / file).resolve().relative_to(Path.cwd())
    with (LOGS / f"{path.stem}.log").open("w+") as log:
        code = subprocess.run(
            [sys.executable, "-m", "pytest", "--long", "--durations=0", str(path), *words],
            stdout=log,
            stderr=log,
            check=False,
        ).returncode
        log.seek(0)
        last = log.read().splitlines()[-1]
    print(f"{path.stem}: {last} ({(time.monotonic() - began_s) / 60:.0f} min)", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
