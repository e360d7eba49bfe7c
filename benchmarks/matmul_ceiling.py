"""The most arithmetic a device does: one dense product as language models have them.

A figure in FLOP/s means little alone; beside this one, measured in the same run on the same
thread, it says how much of the device is used.
"""

from __future__ import annotations

import torch

from benchmarks.clocks import clock_of

TOKENS, WIDTH, INNER = 2048, 384, 1536
"""(2048, 384) times (384, 1536): the largest product in a layer of MiniLM.  A GPU, which that
would not fill, gets eight times of each."""
REPETITIONS = 10


def matmul_ceiling(device: str, dtype: torch.dtype) -> float:
    """FLOP/s of the best of some products on the current number of threads."""
    scale = 8 if device.startswith("cuda") else 1
    left = torch.randn(TOKENS * scale, WIDTH * scale, device=device, dtype=dtype)
    right = torch.randn(INNER * scale, WIDTH * scale, device=device, dtype=dtype)
    clock, best_s = clock_of(device), float("inf")
    with torch.inference_mode():
        for _ in range(REPETITIONS):
            begun = clock()
            torch.nn.functional.linear(left, right)
            best_s = min(best_s, clock() - begun)
    return 2.0 * TOKENS * WIDTH * INNER * scale**3 / best_s
