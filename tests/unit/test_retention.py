"""What is let go on disk: old releases, cached copies, stores set aside; never what is in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from learner.retention import in_use, remove_old, superfluous
from profiles.board import ReleaseBoard
from profiles.errors import ReleaseError
from profiles.notices import ReleaseNotice
from profiles.registry import ReleaseStore
from stream.partitions import forget_aside
from tests.unit.builders import make_items, save_release

pytestmark = pytest.mark.unit


def notice(release_id: str, status: str, sequence: int) -> ReleaseNotice:
    return ReleaseNotice(release_id, status, sequence, "store")


def publish(store: ReleaseStore, seed: int) -> str:
    building = store.workspace()
    save_release(building, make_items(3), seed)
    return store.publish(building)


def test_the_newest_stay_and_of_the_older_ones_only_what_is_in_use() -> None:
    names = [f"r{number}" for number in range(10)]
    said = ["serving", "serving", "serving", "serving", "refused", "canary", "rolled-back"]
    said += ["shadow", "refused", "refused"]
    board = ReleaseBoard(notice(f"r{at}", status, at) for at, status in enumerate(said))
    board.put(notice("r1", "serving", 10))  # after a rollback

    assert in_use(board) == {"r1", "r2", "r3", "r5", "r7"}
    assert superfluous(names, board, keep=1) == ["r0", "r4", "r6", "r8"]
    assert superfluous(names, board, keep=8) == ["r0"]
    assert superfluous(names, board, keep=10) == []


def test_a_release_that_our_topic_does_not_name_is_neither_counted_nor_removed() -> None:
    board = ReleaseBoard([notice("r1", "refused", 1), notice("r3", "serving", 2)])

    assert superfluous(["r0", "r1", "r2", "r3"], board, keep=1) == ["r1"]


def test_old_releases_leave_the_store_and_the_cache(tmp_path: Path) -> None:
    store = ReleaseStore(f"memory://{tmp_path}/releases", tmp_path / "cache")
    names = [publish(store, seed) for seed in (1, 2, 3, 4)]
    for name in names:
        store.fetch(name)
    board = ReleaseBoard(
        [notice(names[0], "serving", 1)] + [notice(name, "refused", 2) for name in names[1:]]
    )

    remove_old(store, board, keep=1)

    assert store.names() == [names[0], names[3]]
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [names[0]]
    assert store.fetch(names[3]).is_dir()


def test_a_store_that_cannot_be_listed_does_not_stop_the_learner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ReleaseStore(str(tmp_path / "releases"), tmp_path / "cache")

    def fail() -> list[str]:
        raise ReleaseError("no line")

    monkeypatch.setattr(store, "names", fail)

    remove_old(store, ReleaseBoard(), keep=1)


def test_of_stores_set_aside_the_newest_of_the_partition_stay(tmp_path: Path) -> None:
    names = ["partition-1", "partition-1.old-9", "partition-1.damaged-10", "partition-1.old-8"]
    for name in [*names, "partition-11.damaged-1"]:
        (tmp_path / name).mkdir()

    forget_aside(tmp_path, 1, keep=1)

    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"partition-1", "partition-1.damaged-10", "partition-11.damaged-1"}

    forget_aside(tmp_path, 1, keep=0)

    assert {path.name for path in tmp_path.iterdir()} == {"partition-1", "partition-11.damaged-1"}
