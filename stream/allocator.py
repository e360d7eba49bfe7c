"""Keep the memory that numpy frees, instead of giving it back to the system and asking again.

A chunk makes arrays of a megabyte that live for microseconds.  By default glibc returns such
blocks to the kernel at once, and the next array pays for its pages again, one fault each: the
arithmetic of a chunk takes 1.8 times as long.  The price is that a worker's resident memory stays
at its peak.

And look for cycles seldom, for the same reason.
"""

from __future__ import annotations

import ctypes
import gc

# Names and numbers of malloc.h; 32 MiB is the most that glibc accepts as M_MMAP_THRESHOLD.
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
KEPT_BYTES = 512 * 2**20
MAPPED_BYTES = 32 * 2**20


def keep_freed_memory() -> bool:
    """Tell the allocator; False where it cannot be told (a C library other than glibc)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES) and mallopt(M_TRIM_THRESHOLD, KEPT_BYTES))


def collect_seldom() -> None:
    """Look for cycles less often.

    A chunk makes thousands of objects that die with it; looking for cycles among them at every
    700th costs a seventh of the event path.
    """
    gc.set_threshold(50_000, 20, 100)
