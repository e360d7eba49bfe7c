"""The most arithmetic a device does: one dense product as language models have them.

A figure in FLOP/s means little alone; beside this one, measured in the same run on the same
thread, it says how much of the device is used.
"""

from __future__ import annotations

import time

import torch

TOKENS, WIDTH, INNER = 2048, 384, 1536
"""(2048, 384) times (384, 1536): the largest product in a layer of MiniLM.  A GPU, which that
would not fill, gets eight times of each."""
REPETITIONS = 10


def matmul_ceiling(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the best of some products on the current number of threads."""
    scale = 8 if device.startswith("cuda") else 1
    left = torch.randn(TOKENS * scale, WIDTH * scale, device=device, dtype=dtype)
    right = torch.randn(INNER * scale, WIDTH * scale, device=device, dtype=dtype)
    best_s = float("inf")
    with torch.inference_mode():
        for _ in range(REPETITIONS):
            synchronise(device)
            begun = time.perf_counter()
            torch.nn.functional.linear(left, right)
            synchronise(device)
            best_s = min(best_s, time.perf_counter() - begun)
    return 2.0 * TOKENS * WIDTH * INNER * scale**3 / best_s


def synchronise(device: str) -> None:
    """Wait until a GPU has done what it was given."""
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
