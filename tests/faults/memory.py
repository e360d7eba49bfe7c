"""What a process holds in memory, looked at again and again while a test goes on."""

from __future__ import annotations

import threading
import time

import psutil

MIB = 2.0**20


class MemoryWatch(threading.Thread):
    """Samples (seconds since the start, resident MiB) of one process until `end`."""

    def __init__(self, pid: int, every_s: float) -> None:
        super().__init__(name="memory", daemon=True)
        self._process = psutil.Process(pid)
        self.every_s = every_s
        self._ended = threading.Event()
        self._began_s = time.monotonic()
        self.samples: list[tuple[float, float]] = []

    def run(self) -> None:
        while not self._ended.wait(self.every_s):
            resident = self._process.memory_info().rss / MIB
            self.samples.append((time.monotonic() - self._began_s, resident))

    def end(self) -> list[tuple[float, float]]:
        """Returns: all samples."""
        self._ended.set()
        self.join()
        return self.samples


def growth(samples: list[tuple[float, float]]) -> float:
    """How much more the last quarter held than the one before it, at most.

    At most, since memory goes up and down with RocksDB's tables in memory, which fill and are
    written out: a quarter must be long enough to see them full.

    >>> growth([(0.0, 1.0), (1.0, 2.0), (2.0, 4.0), (3.0, 5.0)])
    0.25
    """
    held = [mib for _, mib in samples]
    third, last = held[len(held) // 2 : len(held) * 3 // 4], held[len(held) * 3 // 4 :]
    return max(last) / max(third) - 1.0
