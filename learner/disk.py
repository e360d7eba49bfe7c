"""RocksDB with bytes in and bytes out, opened so that damage is not silent.

A thin typed edge over rocksdict, whose own types say "anything".  The write-ahead log is read
with `tolerate_corrupted_tail_records`: the default mode lost keys silently after a bit flip.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rocksdict import (
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    DBRecoveryMode,
    Options,
    Rdict,
    WriteBatch,
)

from learner.reservoir import Batch
from profiles.errors import StoreError

WRITE_BUFFER_BYTES = 8 * 2**20
WAL_BYTES = 32 * 2**20
BLOCK_CACHE_BYTES = 16 * 2**20
"""Blocks read, the tables' indices among them: outside it, those would grow with the data."""


def new_batch() -> WriteBatch:
    """An empty batch for bytes keys and values."""
    return WriteBatch(raw_mode=True)


class Disk:
    """One RocksDB directory, held open by one process.

    Raises: StoreError when it cannot be opened or written; rocksdict raises bare `Exception` for
    whatever RocksDB says, hence the wide nets.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._is_broken = False
        # Any: rocksdict's values are typed as anything it could ever store.
        self._db: Any = self._open()

    def _open(self) -> Rdict:
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
        options.set_write_buffer_size(WRITE_BUFFER_BYTES)
        options.set_max_total_wal_size(WAL_BYTES)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(Cache(BLOCK_CACHE_BYTES))
        blocks.set_cache_index_and_filter_blocks(True)
        options.set_block_based_table_factory(blocks)
        directory = self._directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            return Rdict(str(directory), options)
        except Exception as error:
            raise StoreError(
                f"replay buffer {str(directory)!r} cannot be opened: {error}; only one learner may "
                "hold it, and it must be a directory that this user may write"
            ) from error

    def get(self, key: bytes) -> bytes | None:
        """One value."""
        found: bytes | None = self._db.get(key)
        return found

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys."""
        if not keys:
            return []
        found: list[bytes | None] = self._db.get(list(keys))
        return found

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """Entries whose key begins with `prefix`, in order, from `start` on."""
        for key, value in self._db.items(from_key=start or prefix):
            if not key.startswith(prefix):
                return
            yield key, value

    def new_batch(self) -> Batch:
        """An empty batch for `write`."""
        return new_batch()

    def write(self, batch: Batch) -> None:
        """All of a batch or nothing."""
        try:
            self._db.write(batch)
        except Exception as error:
            self._is_broken = True
            raise StoreError(
                f"replay buffer {str(self._directory)!r} cannot be written: {error}; free some "
                "disk space and start the learner again"
            ) from error

    def purge(self) -> None:
        """Make deletions physical.

        Flushed and compacted down to the lowest level, which RocksDB leaves alone unless forced;
        then opened anew, since the old manifest still names the erased keys as file bounds.
        """
        forced = CompactOptions()
        forced.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        self._db.flush()
        self._db.compact_range(None, None, forced)
        self._db.close()
        self._db = self._open()

    def close(self) -> None:
        """Flush and let go of the directory.

        After a failed write RocksDB refuses to flush, with the same complaint in other words: it
        must not hide the first.
        """
        try:
            self._db.close()
        except Exception as error:
            if not self._is_broken:
                raise StoreError(
                    f"replay buffer {str(self._directory)!r} cannot be closed: {error}; is the "
                    "disk full?"
                ) from error
