"""Rows of items by their 64-bit keys: a hash table that grows with what it follows.

Open addressing with linear probing, at most half full.  Keys are hashes already, so their lowest
bits say where a search begins.  An item that is added costs one insertion; the sorted array that
this was before had to be sorted anew: of a million items, a tenth of a second of the event path.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from profiles.compiled import compiled

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.intp]

_LEAST = 1024


class KeyIndex:
    """Finds keys of an array that only ever grows at its end.  Not thread-safe."""

    def __init__(self) -> None:
        self._slots: Rows = np.full(_LEAST, -1, np.intp)
        self._known = 0

    def rows_of(self, keys: Keys, wanted: Keys) -> Rows:
        """Where in `keys` each wanted one stands, -1 for one that does not; the first of equals.

        `keys`: as at the last call, or longer.  Shapes: wanted (...) -> (...).
        """
        if len(keys) > self._known:
            self._follow(keys)
        found: Rows = np.empty(wanted.shape, np.intp)
        _find(keys, self._slots, np.ascontiguousarray(wanted).reshape(-1), found.reshape(-1))
        return found

    def _follow(self, keys: Keys) -> None:
        if 2 * len(keys) > len(self._slots):
            room = 1 << (4 * len(keys) - 1).bit_length()
            self._slots, self._known = np.full(room, -1, np.intp), 0
        _insert(keys, self._known, self._slots)
        self._known = len(keys)


@compiled("u8[::1], i8, i8[::1]", writes="slots")
def _insert(keys: Keys, first: int, slots: Rows) -> None:
    last = np.uint64(len(slots) - 1)
    for row in range(first, len(keys)):
        at = keys[row] & last
        while slots[at] >= 0:
            at = (at + np.uint64(1)) & last
        slots[at] = row


@compiled("u8[::1], i8[::1], u8[::1], i8[::1]", writes="found")
def _find(keys: Keys, slots: Rows, wanted: Keys, found: Rows) -> None:
    last = np.uint64(len(slots) - 1)
    for n in range(len(wanted)):
        at = wanted[n] & last
        while slots[at] >= 0 and keys[slots[at]] != wanted[n]:
            at = (at + np.uint64(1)) & last
        found[n] = slots[at]
