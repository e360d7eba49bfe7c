"""What a partition's store makes of the changelog: as if every record had come by itself."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.errors import StoreCorruptError
from profiles.state import empty_records, encode_records
from profiles.store import PartitionStore, Watermark
from stream.restore import absorb
from tests.unit.builders import LAYOUT

pytestmark = pytest.mark.unit

Place = tuple[int, int, int]  # topic, offset, revision
Change = tuple[bytes, bytes | None]


def profile(topic: int, offset: int, revision: int, mark: int = 0) -> bytes:
    record = empty_records(LAYOUT, 1)
    record["topic"], record["offset"], record["revision"] = topic, offset, revision
    record["emit_offset"] = mark
    return encode_records(LAYOUT, record)[0]


class Model:
    """The same with a dictionary: the further of two profiles stays, a tombstone ends them."""

    def __init__(self) -> None:
        self.profiles: dict[bytes, tuple[Place, bytes]] = {}

    def put(self, user: bytes, place: Place | None, payload: bytes | None) -> None:
        if place is None or payload is None:
            self.profiles.pop(user, None)
            return
        held = self.profiles.get(user)
        if held is not None and held[0] > place:
            return
        self.profiles[user] = (place, payload)


USERS = (b"ann", b"bob", b"cleo")
users = st.sampled_from(USERS)
places = st.tuples(st.just(1), st.integers(0, 3), st.integers(0, 2))


@pytest.fixture(scope="module")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PartitionStore]:
    opened = PartitionStore(tmp_path_factory.mktemp("restore") / "partition-0")
    yield opened
    opened.close()


@settings(max_examples=150)
@given(
    st.dictionaries(users, places),
    st.lists(st.tuples(users, st.none() | places), max_size=12),
    st.lists(st.integers(0, 12), max_size=3).map(sorted),
)
def test_a_store_ends_as_if_each_changelog_record_had_come_alone(
    shared_store: PartitionStore,
    local: dict[bytes, Place],
    log: list[tuple[bytes, Place | None]],
    cuts: list[int],
) -> None:
    model = Model()
    changes: list[Change] = []
    for user, place in local.items():
        model.put(user, place, profile(*place, mark=99))
    for mark, (user, step) in enumerate(log):
        payload = None if step is None else profile(*step, mark=mark)
        changes.append((user, payload))
        model.put(user, step, payload)

    shared_store.write(list(USERS), [None] * len(USERS), Watermark())
    started = [profile(*place, mark=99) for place in local.values()]
    shared_store.write(list(local), started, Watermark(applied={"events": 4}, count=len(local)))
    for start, end in zip([0, *cuts], [*cuts, len(changes)], strict=True):
        absorb(shared_store, LAYOUT, changes[start:end], position=end)
    held = dict(shared_store.scan())
    assert held == {user: payload for user, (_, payload) in model.profiles.items()}
    assert shared_store.check() == shared_store.watermark.count == len(held)
    assert shared_store.watermark.applied == {"events": 4}


@pytest.fixture
def store(tmp_path: Path) -> PartitionStore:
    return PartitionStore(tmp_path / "partition-0")


def held(store: PartitionStore, local: bytes | None, log: Sequence[bytes | None]) -> bytes | None:
    """What stands in the store after a local profile met the changelog."""
    store.write([b"ann"], [local], Watermark(count=int(local is not None)))
    absorb(store, LAYOUT, [(b"ann", payload) for payload in log], position=len(log))
    assert store.watermark.changelog == len(log)
    assert store.check() == store.watermark.count
    (payload,) = store.get_many([b"ann"])
    store.close()
    return payload


def test_a_local_profile_that_is_ahead_is_kept(store: PartitionStore) -> None:
    ahead = profile(1, 9, 3)
    assert held(store, ahead, [profile(1, 7, 2)]) == ahead


def test_a_local_profile_that_is_behind_is_replaced(store: PartitionStore) -> None:
    further = profile(1, 9, 3)
    assert held(store, profile(1, 7, 2), [further]) == further


def test_a_profile_of_another_topic_is_replaced_whatever_its_offset(store: PartitionStore) -> None:
    anew = profile(2, 0, 1)
    assert held(store, profile(1, 900, 300), [anew]) == anew


def test_a_rebuilt_profile_replaces_the_one_of_the_same_offset(store: PartitionStore) -> None:
    rebuilt = profile(1, 7, 3)
    assert held(store, profile(1, 7, 2), [rebuilt]) == rebuilt


def test_a_late_write_of_a_suspended_worker_does_not_win(store: PartitionStore) -> None:
    further = profile(1, 9, 3)
    assert held(store, None, [profile(1, 7, 2), further, profile(1, 8, 2)]) == further


def test_a_tombstone_deletes_even_what_is_ahead(store: PartitionStore) -> None:
    assert held(store, profile(1, 99, 9), [profile(1, 7, 2), None]) is None


def test_what_was_erased_does_not_return_because_the_user_did(store: PartitionStore) -> None:
    anew = profile(1, 8, 1)
    assert held(store, profile(1, 99, 9), [None, anew]) == anew


def test_tombstones_of_strangers_count_nothing(store: PartitionStore) -> None:
    assert held(store, None, [None, None]) is None


def test_a_changelog_of_other_sizes_is_damage(store: PartitionStore) -> None:
    with pytest.raises(StoreCorruptError, match="topic prefix"):
        held(store, None, [b"short"])
    store.close()
