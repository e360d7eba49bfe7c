"""What outlives a process, faked: the log, the disk, the clock.

The log keeps what Kafka keeps: records with offsets, what was committed, and of a compacted topic
the last record of each key.  A disk keeps whole write batches, as RocksDB does; a power cut takes
the last ones that were not flushed.  `DictStore` has the protocol of `PartitionStore` and stands
on such a disk; `RocksDisk` puts the real one under the same schedules.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, cast

from profiles.errors import StoreCorruptError
from profiles.store import PartitionStore, Watermark
from stream.oracle.records import Raw
from tests.unit.builders import NOW_S

Image = tuple[dict[bytes, bytes], Watermark]


@dataclass(slots=True)
class Topic:
    """One partition of one topic.  `writers` tells who appended each record."""

    records: list[Raw] = field(default_factory=list)
    writers: dict[int, str] = field(default_factory=dict)
    end: int = 0
    committed: int = 0

    def append(
        self,
        key: bytes | None,
        value: bytes | None,
        writer: str = "",
        headers: tuple[tuple[str, bytes], ...] = (),
        timestamp_ms: int = int(NOW_S * 1000),
    ) -> int:
        """Returns: the offset of the record."""
        offset = self.end
        self.records.append(Raw(0, offset, timestamp_ms, key, value, headers))
        self.writers[offset] = writer
        self.end += 1
        return offset

    def since(self, offset: int, count: int | None = None) -> list[Raw]:
        """Records from an offset on."""
        found = [record for record in self.records if record.offset >= offset]
        return found if count is None else found[:count]

    def compact(self, before: int) -> None:
        """Keep the last record of each key; those from `before` on are the active segment."""
        last = {record.key: record.offset for record in self.records}
        self.records = [
            record
            for record in self.records
            if record.offset >= before or last[record.key] == record.offset
        ]


class Disk(Protocol):
    """Where a worker's store lies.  A store that was left open by a crash can be opened again."""

    def open(self) -> PartitionStore: ...

    def cut_power(self, batches: int) -> None: ...

    def lose(self) -> None: ...

    def remove(self) -> None: ...


@dataclass(slots=True)
class DictDisk:
    """Images of the store, one after each write batch; the first is what was flushed."""

    images: list[Image] = field(default_factory=lambda: [({}, Watermark())])

    def open(self) -> PartitionStore:
        return cast(PartitionStore, DictStore(self))

    def cut_power(self, batches: int) -> None:
        """Lose so many write batches, as far as they were not flushed."""
        self.images = self.images[: max(1, len(self.images) - batches)]

    def lose(self) -> None:
        """Damaged: quarantined, and begun anew."""
        self.images = [({}, Watermark())]

    def remove(self) -> None:
        """Nothing to delete."""


class DictStore:
    """`PartitionStore` without RocksDB: what it promises, and no more."""

    def __init__(self, disk: DictDisk) -> None:
        self._disk = disk

    @property
    def watermark(self) -> Watermark:
        return self._disk.images[-1][1]

    def get_many(self, users: Sequence[bytes]) -> list[bytes | None]:
        held = self._disk.images[-1][0]
        return [held.get(user) for user in users]

    def write(
        self,
        users: Sequence[bytes],
        payloads: Sequence[bytes | None],
        watermark: Watermark,
        fences: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        assert not fences, "a simulated worker erases without them"
        held = dict(self._disk.images[-1][0])
        for user, payload in zip(users, payloads, strict=True):
            if payload is None:
                held.pop(user, None)
            else:
                held[user] = payload
        self._disk.images.append((held, watermark))

    def scan(self, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        held = self._disk.images[-1][0]
        for user in sorted(held):
            if after is None or user > after:
                yield user, held[user]

    def check(self) -> int:
        count = len(self._disk.images[-1][0])
        if count != self.watermark.count:
            raise StoreCorruptError(f"{count} profiles, the watermark says {self.watermark.count}")
        return count

    def flush(self) -> None:
        del self._disk.images[:-1]

    def close(self) -> None:
        self.flush()


def _copy(before: Path, after: Path) -> None:
    """The files as a crash would leave them.

    The store is open, and its own compaction may make and delete files under our hands: then it is
    copied anew, since a crash leaves the files of one moment.
    """
    for _ in range(20):
        # OSError: a file that was listed is gone.
        with contextlib.suppress(OSError):
            files = _files(before)
            shutil.copytree(before, after, ignore=shutil.ignore_patterns("LOCK"))
            if _files(before) == files:
                return
        shutil.rmtree(after, ignore_errors=True)
    raise AssertionError("the store's files do not keep still")


def _files(store: Path) -> dict[str, tuple[int, int]]:
    """Size and time of change of each, by name."""
    found = {path.name: path.stat() for path in store.iterdir()}
    return {name: (about.st_size, about.st_mtime_ns) for name, about in found.items()}


class RocksDisk:
    """A real store.  A crash leaves its files as they are: they are copied while it is open."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="driftline-simulated-"))
        self._turn = 0
        self._open: PartitionStore | None = None

    def open(self) -> PartitionStore:
        before = self._root / str(self._turn)
        self._turn += 1
        after = self._root / str(self._turn)
        if before.exists():
            _copy(before, after)
        self._let_go()
        self._open = PartitionStore(after)
        return self._open

    def cut_power(self, batches: int) -> None:
        """What a power cut takes cannot be had without one: nothing."""

    def lose(self) -> None:
        self._let_go()
        shutil.rmtree(self._root / str(self._turn), ignore_errors=True)

    def remove(self) -> None:
        """Close and delete everything."""
        self._let_go()
        shutil.rmtree(self._root)

    def _let_go(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None
