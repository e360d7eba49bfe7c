"""Memory of a learner's buffer, and of planning a round, against the buffer's byte bound.

One process per size (`python -m benchmarks.scale.learner_memory BYTES SEED`), so that nothing is
left from the one before.  Training itself reads batches of a fixed size from the plan.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from benchmarks.harness import ROOT, Result, say
from benchmarks.scale.growth import exponent
from learner.records import EVENT, Row
from learner.replay import ReplayBuffer
from learner.rounds import plan_round
from profiles.config import load_settings
from profiles.head import HeadShape
from profiles.manifest import Manifest
from profiles.wire import key64

FRESH_EVENTS = 20_000
FRESH_EACH = 20
USER_EVENTS = 200
ROUNDS = 4
LENGTH = 50


def measure(sizes: list[int], seed: int) -> Result:
    """Resident memory above an idle interpreter, MiB, per buffer bound."""
    rows = []
    for size in sizes:
        command = [sys.executable, "-m", "benchmarks.scale.learner_memory", str(size), str(seed)]
        done = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
        say(f"learner memory: {rows[-1]}")
    return {
        "events": "synthetic",
        "fresh_events": FRESH_EVENTS,
        "sizes": rows,
        "exponent_held": exponent(sizes, [row["held_mib"] for row in rows]),
        "exponent_planning": exponent(sizes, [row["planning_mib"] for row in rows]),
    }


def _resident_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class _Peak:
    """The most resident memory while it runs, looked at every 5 ms."""

    def __enter__(self) -> _Peak:
        self.mib, self._done = _resident_mib(), threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.mib = max(self.mib, _resident_mib())

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()


def main() -> None:
    bound, seed = int(sys.argv[1]), int(sys.argv[2])
    settings = load_settings(learner={"buffer_bytes": bound})
    actions = sorted(settings.actions)
    before = _resident_mib()
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory:
        started = time.perf_counter()
        buffer = ReplayBuffer(
            Path(directory) / "buffer",
            buffer_bytes=bound,
            sequence_length=LENGTH,
            seed=seed,
            actions=actions,
        )
        _fill(buffer, bound)
        held = _resident_mib()
        shape = HeadShape(64, 1, 128, 384, len(actions))
        parent = Manifest(1, 1, None, 0.0, "none", "", "mean", 8, 8, shape, actions, [], {}, {}, [])
        with _Peak() as peak:
            plan = plan_round(buffer, parent, settings, "count", {})
        row = {
            "buffer_bytes": bound,
            "events": buffer.next_order - 1,
            "filled_bytes": buffer.size_bytes,
            "held_mib": round(held - before, 1),
            "planning_mib": round(peak.mib - held, 1),
            "plan_mib": round((len(plan.fresh) + len(plan.past)) / 2**20, 1),
            "exam_mib": round(sum(map(len, plan.exams.values())) / 2**20, 1),
            "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1),
            "fill_s": round(time.perf_counter() - started, 1),
        }
        buffer.close()
    print(json.dumps(row))


def _fill(buffer: ReplayBuffer, bound: int) -> None:
    """Histories up to their half of the bound in four rounds, whose events become examples; then
    one round's fresh events."""
    users = int(bound * 0.45) // (USER_EVENTS * EVENT.itemsize)
    for period in range(1, ROUNDS + 1):
        first = buffer.next_order
        for user in range((period - 1) * users // ROUNDS, period * users // ROUNDS):
            _ingest(buffer, user, USER_EVENTS)
        border = first + int(0.8 * (buffer.next_order - first))
        buffer.finish_round(buffer.next_order, (float(border), border), period)
    for user in range(FRESH_EVENTS // FRESH_EACH):
        _ingest(buffer, 1_000_000_000 + user, FRESH_EACH)


def _ingest(buffer: ReplayBuffer, user: int, count: int) -> None:
    start = buffer.next_order
    rows = [
        Row(0, start + n, key64(f"user {user}"), n + 1, 0, 0.0, float(start + n), start + n)
        for n in range(count)
    ]
    buffer.ingest("events", rows, {0: start + count})


if __name__ == "__main__":
    main()
