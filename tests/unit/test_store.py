"""One partition's profiles on disk: all or nothing, in order, and never quietly damaged."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from profiles.errors import StoreCorruptError, StoreError
from profiles.store import PartitionStore, Watermark

pytestmark = pytest.mark.unit


@pytest.fixture
def store(tmp_path: Path) -> Iterator[PartitionStore]:
    opened = PartitionStore(tmp_path / "deep" / "partition-0")
    yield opened
    opened.close()


def put(store: PartitionStore, users: dict[bytes, bytes | None], count: int, end: int = 0) -> None:
    watermark = msgspec.structs.replace(store.watermark, count=count, applied={"events": end})
    store.write(list(users), list(users.values()), watermark)


def copied(store: PartitionStore, tmp_path: Path) -> PartitionStore:
    """The store as a killed process leaves it: its files as they are, never closed."""
    crashed = tmp_path / "crashed"
    shutil.copytree(store.directory, crashed, ignore=shutil.ignore_patterns("LOCK"))
    return PartitionStore(crashed)


def test_a_new_store_is_empty(store: PartitionStore) -> None:
    assert store.watermark == Watermark()
    assert store.get_many([]) == []
    assert store.get_many([b"nobody"]) == [None]
    assert list(store.scan()) == []
    assert store.check() == 0


def test_profiles_and_watermark_outlive_a_crash_together(
    store: PartitionStore, tmp_path: Path
) -> None:
    put(store, {b"ann": b"1", b"bob": b"2"}, count=2, end=7)
    put(store, {b"ann": b"3", b"bob": None}, count=1, end=9)
    after = copied(store, tmp_path)
    assert after.get_many([b"bob", b"ann"]) == [None, b"3"]
    assert after.watermark == Watermark(applied={"events": 9}, count=1)
    assert after.check() == 1
    after.close()


def test_a_closed_store_opens_as_it_was(store: PartitionStore) -> None:
    put(store, {b"ann": b"1"}, count=1, end=3)
    store.close()
    again = PartitionStore(store.directory)
    assert (again.get_many([b"ann"]), again.watermark.applied) == ([b"1"], {"events": 3})
    again.close()


def test_a_write_that_does_not_pair_up_writes_nothing(store: PartitionStore) -> None:
    with pytest.raises(ValueError, match="shorter"):
        store.write([b"ann", b"bob"], [b"1"], Watermark(count=1))
    assert store.get_many([b"ann"]) == [None]
    assert store.watermark == Watermark()


def test_a_scan_goes_in_order_and_resumes_after_a_user(store: PartitionStore) -> None:
    users = [b"\x01", b"ann", b"ann\x00", b"anna", b"bob", b"\xc3\xa9t\xc3\xa9", b"\xff\xff"]
    put(store, {user: user for user in reversed(users)}, count=len(users))
    store.flush()
    put(store, {b"zoe": b"zoe"}, count=len(users) + 1)  # one in memory, the others in a table
    everyone = sorted([*users, b"zoe"])
    assert [user for user, _ in store.scan()] == everyone
    assert all(user == payload for user, payload in store.scan())
    for at, user in enumerate(everyone):
        assert [left for left, _ in store.scan(after=user)] == everyone[at + 1 :]
    assert next(user for user, _ in store.scan(after=b"b")) == b"bob"


def test_a_missing_profile_is_noticed_by_the_count(store: PartitionStore) -> None:
    put(store, {b"ann": b"1", b"bob": b"2"}, count=3)
    with pytest.raises(StoreCorruptError, match="holds 2 profiles, its watermark says 3"):
        store.check()


def test_a_second_worker_on_one_directory_is_told_what_to_do(store: PartitionStore) -> None:
    with pytest.raises(StoreError, match=r"another worker.*store\.directory") as refused:
        PartitionStore(store.directory)
    assert not isinstance(refused.value, StoreCorruptError)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be opened"):
        PartitionStore(tmp_path / "file" / "partition-0")


def test_a_watermark_that_is_no_watermark_is_damage(store: PartitionStore) -> None:
    store._db.put(b"\x00watermark", b"\xc1nonsense")
    store.close()
    with pytest.raises(StoreCorruptError, match="watermark"):
        PartitionStore(store.directory)


def test_a_damaged_store_can_be_set_aside_and_made_anew(store: PartitionStore) -> None:
    store._db.put(b"\x00watermark", b"\xc1nonsense")
    store.close()
    with pytest.raises(StoreCorruptError):
        PartitionStore(store.directory)
    store.directory.rename(store.directory.with_name("aside"))
    fresh = PartitionStore(store.directory)
    assert fresh.check() == 0
    fresh.close()


@pytest.mark.parametrize("place", [0.02, 0.3, 0.6, 0.9])
def test_a_flipped_bit_in_a_table_is_never_passed_over(store: PartitionStore, place: float) -> None:
    users = {b"user-%03d" % n: bytes([n % 251]) * 400 for n in range(300)}
    put(store, dict(users), count=len(users))
    store.flush()
    store.close()
    (table,) = store.directory.glob("*.sst")
    payload = bytearray(table.read_bytes())
    payload[int(len(payload) * place)] ^= 0x10
    table.write_bytes(payload)

    def read_everything() -> None:
        damaged = PartitionStore(store.directory)
        try:
            assert damaged.get_many(list(users)) == list(users.values())
            damaged.check()
        finally:
            damaged.close()

    with pytest.raises(StoreCorruptError, match=r"damage|holds|Corruption|checksum"):
        read_everything()


def test_a_closed_store_refuses_with_a_store_error(store: PartitionStore) -> None:
    store.close()
    for use in (
        lambda: store.get_many([b"ann"]),
        lambda: store.write([], [], Watermark()),
        lambda: list(store.scan()),
    ):
        with pytest.raises(StoreError):
            use()
