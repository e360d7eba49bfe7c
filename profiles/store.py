"""One partition's profiles on this machine's disk, in RocksDB.

A batch of changed profiles and the partition's watermark go into one `WriteBatch`, so that after
a crash either both are there or neither.  The changelog topic is the durable copy: a damaged
store is set aside and rebuilt from it.

What surprised us: with RocksDB's default WAL recovery, one flipped bit loses the tail in silence,
and an iteration over a damaged table ends early without an error.  Hence the recovery mode below,
and `count`, kept in the watermark and compared at every full scan.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import cast

import msgspec
from rocksdict import (
    BlockBasedOptions,
    BottommostLevelCompaction,
    Cache,
    CompactOptions,
    DbClosedError,
    DBCompressionType,
    DBRecoveryMode,
    Options,
    Rdict,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from profiles.errors import StoreCorruptError, StoreError

WATERMARK_KEY = b"\x00watermark"
USER_PREFIX = b"u"
_AFTER_USERS = b"v"
DEFAULT_MEMORY = 256 * 2**20
FENCE_PREFIX = b"e"
_AFTER_FENCES = b"f"


class Watermark(msgspec.Struct, frozen=True):
    """How far a partition has come.

    `applied` maps an input topic to the first offset not yet applied; `topic_ids` the identity
    of that topic (a topic made anew under an old name starts again at offset 0); `changelog` is
    the first changelog offset not yet restored; `count` the number of profiles; `saved_at` when
    it was written, Unix seconds.
    """

    applied: dict[str, int] = {}
    topic_ids: dict[str, str] = {}
    changelog: int = 0
    count: int = 0
    saved_at: float = 0.0


class StoreMemory:
    """What RocksDB may hold in memory for all stores of a process, however many they are.

    Half for tables that are not on disk yet, which are written out before they outgrow it; half
    for blocks read, with the tables' indices and Bloom filters.
    """

    def __init__(self, size: int) -> None:
        self.tables = WriteBufferManager(size // 2, False)
        self.blocks = Cache(size // 2)


@functools.cache
def shared_memory(size: int = DEFAULT_MEMORY) -> StoreMemory:
    """The same for every store of the process that asks for so much."""
    return StoreMemory(size)


class PartitionStore:
    """Profiles of one partition.  Not thread-safe: one thread owns it.

    Raises: StoreError when the directory cannot be opened or written, StoreCorruptError when what
    lies there is damaged.
    """

    def __init__(
        self, directory: Path, sync_writes: bool = False, memory: StoreMemory | None = None
    ) -> None:
        self.directory = directory
        self._memory = memory or shared_memory()
        self._write_options = WriteOptions()
        self._write_options.sync = sync_writes
        self._db = self._open()
        self.watermark = self._read_watermark()

    def _open(self) -> Rdict:
        directory = self.directory
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_wal_recovery_mode(DBRecoveryMode.tolerate_corrupted_tail_records())
        options.set_paranoid_checks(True)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_write_buffer_size(64 * 2**20)
        options.set_write_buffer_manager(self._memory.tables)
        blocks = BlockBasedOptions()
        blocks.set_block_cache(self._memory.blocks)
        blocks.set_cache_index_and_filter_blocks(True)
        # A new user is looked up once in every table that could hold her.
        blocks.set_bloom_filter(10, False)
        options.set_block_based_table_factory(blocks)
        options.set_keep_log_file_num(2)
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            return Rdict(str(directory), options)
        except Exception as error:  # rocksdict raises bare Exception
            if _is_damage(error):
                raise StoreCorruptError(f"store {directory} is damaged: {error}") from error
            raise StoreError(
                f"store {directory} cannot be opened: {error}; is another worker using "
                "store.directory, or may this user not write there?"
            ) from error

    def get_many(self, users: Sequence[bytes]) -> list[bytes | None]:
        """Stored payloads, None for a user who has none."""
        if not users:
            return []
        try:
            # rocksdict types a multi-get as it does a single one.
            found = self._db.get([USER_PREFIX + user for user in users])
        except Exception as error:
            raise _broken(self.directory, "read", error) from error
        return cast("list[bytes | None]", found)

    def write(
        self,
        users: Sequence[bytes],
        payloads: Sequence[bytes | None],
        watermark: Watermark,
        fences: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        """Store profiles (None deletes), fences and the watermark, all or nothing."""
        batch = WriteBatch(raw_mode=True)
        for key, fence in fences:
            batch.put(FENCE_PREFIX + key, fence)
        for user, payload in zip(users, payloads, strict=True):
            if payload is None:
                batch.delete(USER_PREFIX + user)
            else:
                batch.put(USER_PREFIX + user, payload)
        batch.put(WATERMARK_KEY, msgspec.msgpack.encode(watermark))
        try:
            self._db.write(batch, self._write_options)
        except Exception as error:
            raise _broken(self.directory, "write", error) from error
        self.watermark = watermark

    def scan(self, after: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        """(user, payload) in key order, from the first user after `after`."""
        start = USER_PREFIX if after is None else USER_PREFIX + after + b"\x00"
        return self._scan(start, _AFTER_USERS)

    def fences(self) -> Iterator[tuple[bytes, bytes]]:
        """Keys and values of erased users' fences."""
        return self._scan(FENCE_PREFIX, _AFTER_FENCES)

    def _scan(self, start: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        options = ReadOptions()
        options.set_iterate_upper_bound(end)
        try:
            for key, payload in self._db.items(from_key=start, read_opt=options):
                yield cast(bytes, key)[1:], payload
        except Exception as error:
            raise _broken(self.directory, "scan", error) from error

    def check(self) -> int:
        """Read everything once.

        Returns: the number of profiles.  Raises: StoreCorruptError when it is not the count that
        the watermark names: an iteration over a damaged table ends early in silence.
        """
        count = sum(1 for _ in self.scan())
        if count != self.watermark.count:
            raise StoreCorruptError(
                f"store {self.directory} holds {count} profiles, its watermark says "
                f"{self.watermark.count}; it will be rebuilt from the changelog"
            )
        return count

    def flush(self) -> None:
        """Write the memory table to disk (bounds recovery time after a crash)."""
        try:
            self._db.flush()
        except Exception as error:
            raise _broken(self.directory, "flush", error) from error

    def compact(self) -> None:
        """Rewrite everything at its lowest level: what a store comes to in time, at once."""
        forced = CompactOptions()
        forced.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        self._db.compact_range(None, None, forced)

    def purge(self, users: Sequence[bytes]) -> None:
        """Make deletions of these users physical: no file holds what was written of them.

        Only tables in whose range they lie are rewritten.  Opened anew, since the old manifest
        names deleted keys as bounds of its tables.
        """
        forced = CompactOptions()
        forced.set_bottommost_level_compaction(BottommostLevelCompaction.force())
        try:
            self._db.flush()
            for user in users:
                self._db.compact_range(USER_PREFIX + user, USER_PREFIX + user + b"\x00", forced)
            self._db.close()
        except Exception as error:
            raise _broken(self.directory, "purge", error) from error
        self._db = self._open()

    def condemn(self) -> None:
        """Note that what lies here is not to be believed: the next `check` finds it damaged."""
        self.write([], [], msgspec.structs.replace(self.watermark, count=-1))

    def close(self) -> None:
        """Release the directory.  Closing twice is closing once."""
        try:
            self._db.close()
        except DbClosedError:
            return
        except Exception as error:
            raise _broken(self.directory, "close", error) from error

    def _read_watermark(self) -> Watermark:
        try:
            payload = self._db.get(WATERMARK_KEY)
            return (
                Watermark() if payload is None else msgspec.msgpack.decode(payload, type=Watermark)
            )
        except Exception as error:
            raise StoreCorruptError(f"store {self.directory}: watermark: {error}") from error


def _is_damage(error: Exception) -> bool:
    return any(word in str(error) for word in ("Corruption", "checksum", "Bad table magic"))


def _broken(directory: Path, verb: str, error: Exception) -> StoreError:
    if _is_damage(error):
        return StoreCorruptError(f"store {directory}: {verb} found damage: {error}")
    return StoreError(f"store {directory}: {verb} failed: {error}; is the disk full?")
