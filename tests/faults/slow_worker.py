"""A worker that is slow on purpose: storing a profile takes it a set time.

    python -m tests.faults.slow_worker SECONDS worker --instance a

So what it sustains is known beforehand, and is little: a soak at four fifths of it leaves the
machine to others, and "80% load" means the same on every machine.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

from profiles.store import PartitionStore
from tests.faults.quick_worker import run


def slow_down(each_s: float) -> None:
    """Make every write wait so long for each of its profiles."""
    write: Callable[..., None] = PartitionStore.write
    pace = threading.Event()

    def slow(self: PartitionStore, users: Sequence[bytes], *rest: Any) -> None:
        write(self, users, *rest)
        pace.wait(each_s * len(users))

    PartitionStore.write = slow  # type: ignore[method-assign,assignment]


if __name__ == "__main__":
    slow_down(float(sys.argv[1]))
    run(sys.argv[2:])
