"""A uniform sample of an endless stream of examples, in RocksDB, bounded in bytes.

Vitter's Algorithm R (1985): the first k examples fill k slots; the i-th after that replaces a
random slot with probability k / i.  At any time each example ever offered is in the sample with
the same probability.  k is the byte bound over the largest size an example may have.

The class only writes into the caller's batch, so that a slot, its index entry and the random
state reach the disk together with whatever else the caller changes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np

USER = struct.Struct("<Q")
SLOT = struct.Struct(">I")
OVERHEAD_BYTES = 64
"""Keys and index entry of one example."""
READ_SLOTS = 256


class Store(Protocol):
    """What is needed of `learner.disk.Disk`."""

    def get(self, key: bytes) -> bytes | None: ...
    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]: ...
    def scan(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class Batch(Protocol):
    """What is needed of rocksdict's `WriteBatch`."""

    def put(self, key: bytes, value: bytes) -> None: ...
    def delete(self, key: bytes) -> None: ...


class Reservoir:
    """One named sample.  An example is bytes that begin with its user's pseudonym (8 bytes).

    Args:
        name: one byte, the prefix of its slots' keys.
        capacity_bytes, largest_example: give the number of slots.
        state: what `state()` returned before, or None.
    """

    def __init__(
        self,
        name: bytes,
        db: Store,
        capacity_bytes: int,
        largest_example: int,
        seed: int,
        state: dict[str, Any] | None = None,  # Any: numpy's own form of a generator's state
    ) -> None:
        self.name = name
        self.slots = max(capacity_bytes // (largest_example + OVERHEAD_BYTES), 1)
        self._db = db
        self._generator = np.random.PCG64(seed)
        self._rng = np.random.Generator(self._generator)
        self.offered = 0
        self.held = 0
        self._pending: dict[int, bytes | None] = {}
        self._old_slots = self.slots
        if state is not None:
            self.offered, self.held = int(state["offered"]), int(state["held"])
            self._old_slots = int(state["slots"])
            self._generator.state = state["generator"]

    def state(self) -> dict[str, Any]:
        """Counters and random state, JSON-ready; saved in the same batch as the slots."""
        return {
            "offered": self.offered,
            "held": self.held,
            "slots": self.slots,
            "generator": self._generator.state,
        }

    def offer(self, batch: Batch, example: bytes) -> None:
        """Take or leave one example."""
        self.offered += 1
        slot = self.offered - 1
        if slot >= self.slots:
            slot = int(self._rng.integers(self.offered))
            if slot >= self.slots:
                return
        self._clear(batch, slot)
        batch.put(self._key(slot), example)
        batch.put(self._index_key(example[:8], slot), b"")
        self._pending[slot] = example
        self.held += 1

    def remove(self, batch: Batch, slot: int) -> bytes | None:
        """Empty one slot.  Returns: what was in it."""
        old = self._clear(batch, slot)
        self._pending[slot] = None
        return old

    def slots_of(self, user: int) -> list[int]:
        """Where a user's examples are."""
        prefix = b"x" + USER.pack(user) + self.name
        return [SLOT.unpack(key[len(prefix) :])[0] for key, _ in self._db.scan(prefix)]

    def trim(self, batch: Batch) -> None:
        """Empty the slots that a lowered byte bound leaves outside."""
        for slot in range(self.slots, min(self._old_slots, self.offered)):
            self.remove(batch, slot)

    def written(self) -> None:
        """The caller's batch is on disk."""
        self._pending.clear()

    def sample(self, count: int, rng: np.random.Generator) -> list[bytes]:
        """Up to `count` examples, drawn uniformly without replacement."""
        used = min(self.offered, self.slots)
        chosen = rng.permutation(used)[:count]
        return self.read(np.sort(chosen).tolist())

    def read(self, slots: Sequence[int]) -> list[bytes]:
        """What is in some slots, in their order; empty ones are left out."""
        return [example for example in self._read(slots) if example]

    def all(self) -> Iterator[tuple[int, bytes]]:
        """Every example with its slot, in order, `READ_SLOTS` in memory at a time."""
        used = min(self.offered, self.slots)
        for start in range(0, used, READ_SLOTS):
            slots = range(start, min(start + READ_SLOTS, used))
            for slot, example in zip(slots, self._read(slots), strict=True):
                if example:
                    yield slot, example

    def _read(self, slots: Sequence[int]) -> list[bytes | None]:
        return self._db.get_many([self._key(slot) for slot in slots])

    def _clear(self, batch: Batch, slot: int) -> bytes | None:
        known = slot in self._pending
        old = self._pending[slot] if known else self._db.get(self._key(slot))
        if old is not None:
            batch.delete(self._key(slot))
            batch.delete(self._index_key(old[:8], slot))
            self.held -= 1
        return old

    def _key(self, slot: int) -> bytes:
        return self.name + SLOT.pack(slot)

    def _index_key(self, user: bytes, slot: int) -> bytes:
        return b"x" + user + self.name + SLOT.pack(slot)
