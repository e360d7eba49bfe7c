"""The clock that arithmetic is timed by: a processor's own on a CPU, the wall's on a GPU."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch


def clock_of(device: str) -> Callable[[], float]:
    """Seconds of processor time on a CPU, where one thread computes: a ratio then survives a
    machine that others use too.  On a GPU, the wall's, once it has done what it was given."""
    if not device.startswith("cuda"):
        return time.process_time

    def now() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return now
