"""The release store: whole releases or none, on a directory and on any fsspec URL."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from profiles.errors import ReleaseError, ReleaseRefused
from profiles.registry import ReleaseStore
from profiles.release import FILES, open_release
from tests.unit.builders import EXPECTED, make_items, save_release

pytestmark = pytest.mark.unit


@pytest.fixture(params=["directory", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ReleaseStore]:
    if request.param == "directory":
        yield ReleaseStore(str(tmp_path / "releases"), tmp_path / "cache")
    else:
        root = f"/releases-{uuid.uuid4().hex}"
        yield ReleaseStore(f"memory://{root}", tmp_path / "cache")
        fsspec.filesystem("memory").rm(root, recursive=True)


def publish(store: ReleaseStore, seed: int = 0) -> str:
    building = store.workspace()
    save_release(building, make_items(3), seed)
    return store.publish(building)


def test_what_is_published_can_be_fetched_and_opened(store: ReleaseStore) -> None:
    assert store.names() == []
    release_id = publish(store)
    assert store.names() == [release_id]
    assert open_release(store.fetch(release_id), EXPECTED).release_id == release_id
    assert open_release(store.fetch(release_id), EXPECTED).release_id == release_id


def test_releases_are_listed_oldest_first(store: ReleaseStore) -> None:
    names = [publish(store, seed) for seed in (3, 1, 2, 99_999, 8)]
    assert store.names() == [names[1], names[2], names[0], names[4], names[3]]


def test_publishing_the_same_content_twice_changes_nothing(store: ReleaseStore) -> None:
    assert publish(store) == publish(store)
    assert len(store.names()) == 1


def test_the_workspace_is_gone_after_publishing_and_is_no_release_before(
    store: ReleaseStore,
) -> None:
    building = store.workspace()
    save_release(building, make_items(3))
    assert store.names() == []
    store.publish(building)
    assert not building.exists()


def test_a_removed_release_is_gone_at_once_and_can_be_published_again(store: ReleaseStore) -> None:
    release_id, other = publish(store), publish(store, seed=5)
    store.fetch(release_id)

    store.remove(release_id)
    store.remove(release_id)

    assert store.names() == [other]
    with pytest.raises(ReleaseRefused) as refused:
        store.fetch(release_id)
    assert refused.value.reason == "not-in-store"
    assert publish(store) == release_id
    assert open_release(store.fetch(release_id), EXPECTED).release_id == release_id


def test_nothing_outside_the_store_is_ever_removed(store: ReleaseStore) -> None:
    with pytest.raises(ReleaseError, match="not the name of a release"):
        store.remove("../cache")


def test_a_removal_that_breaks_off_leaves_no_release(remote: ReleaseStore) -> None:
    release_id = publish(remote)
    whole = remote._fs
    remote._fs = Breaking(whole, "rm_file", "head.safetensors")

    with pytest.raises(ReleaseError, match="the line went dead"):
        remote.remove(release_id)

    assert remote.names() == []
    remote._fs = whole
    assert publish(remote) == release_id


def test_cached_releases_that_are_not_needed_are_forgotten(remote: ReleaseStore) -> None:
    first, second = publish(remote), publish(remote, seed=5)
    kept, dropped = remote.fetch(second), remote.fetch(first)

    remote.forget_cached({second})

    assert kept.is_dir()
    assert not dropped.exists()
    assert open_release(remote.fetch(first), EXPECTED).release_id == first


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../cache", "a/b", "r1\x00", "R1", "r00001_x", "/etc", ".building-x"]
)
def test_no_name_leads_out_of_the_store(store: ReleaseStore, name: str) -> None:
    with pytest.raises(ReleaseRefused) as refused:
        store.fetch(name)
    assert refused.value.reason == "bad-name"


def test_a_release_that_is_not_there_is_refused(store: ReleaseStore) -> None:
    publish(store)
    with pytest.raises(ReleaseRefused) as refused:
        store.fetch("r00009-0000000000000000")
    assert refused.value.reason == "not-in-store"


def test_what_has_no_manifest_of_its_own_cannot_be_published(store: ReleaseStore) -> None:
    building = store.workspace()
    with pytest.raises(ReleaseRefused) as refused:
        store.publish(building)
    assert refused.value.reason == "missing-file"
    assert store.names() == []


class Breaking:
    """A file system on which some transfer fails."""

    def __init__(self, whole: object, verb: str, name: str) -> None:
        self._whole = whole
        self._verb = verb
        self._name = name

    def __getattr__(self, verb: str) -> object:
        usual = getattr(self._whole, verb)
        if verb != self._verb:
            return usual

        def transfer(*paths: str) -> object:
            if self._name in (path.rsplit("/", 1)[-1] for path in paths):
                raise OSError("the line went dead")
            return usual(*paths)

        return transfer


@pytest.fixture
def remote(tmp_path: Path) -> Iterator[ReleaseStore]:
    root = f"/releases-{uuid.uuid4().hex}"
    yield ReleaseStore(f"memory://{root}", tmp_path / "cache")
    fsspec.filesystem("memory").rm(root, recursive=True)


@pytest.mark.parametrize("name", ["head.safetensors", "probe.safetensors", "manifest.json"])
def test_an_upload_that_breaks_off_leaves_no_release_and_can_be_repeated(
    remote: ReleaseStore, name: str
) -> None:
    building = remote.workspace()
    save_release(building, make_items(3))
    whole = remote._fs
    remote._fs = Breaking(whole, "put_file", name)
    with pytest.raises(ReleaseError, match="the line went dead"):
        remote.publish(building)
    assert remote.names() == []
    remote._fs = whole
    assert remote.names() == [] != [remote.publish(building)] == remote.names()


@pytest.mark.parametrize("name", ["head.safetensors", "manifest.json"])
def test_a_download_that_breaks_off_leaves_nothing_and_can_be_repeated(
    remote: ReleaseStore, tmp_path: Path, name: str
) -> None:
    release_id = publish(remote)
    whole = remote._fs
    remote._fs = Breaking(whole, "get_file", name)
    with pytest.raises(ReleaseError, match="the line went dead"):
        remote.fetch(release_id)
    assert list((tmp_path / "cache").iterdir()) == []
    remote._fs = whole
    assert open_release(remote.fetch(release_id), EXPECTED).release_id == release_id


@pytest.mark.parametrize("name", FILES)
def test_a_release_that_is_not_whole_in_the_store_is_refused(
    remote: ReleaseStore, tmp_path: Path, name: str
) -> None:
    release_id = publish(remote)
    remote._fs.rm_file(f"{remote._root}/{release_id}/{name}")
    with pytest.raises(ReleaseRefused) as refused:
        remote.fetch(release_id)
    assert refused.value.reason == "not-in-store"
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_release_that_is_there_is_never_written_over(remote: ReleaseStore) -> None:
    """A reader may be in the middle of it."""
    publish(remote)
    remote._fs = Breaking(remote._fs, "put_file", "head.safetensors")
    publish(remote)
    assert len(remote.names()) == 1


def test_a_fetched_release_is_served_from_the_cache(remote: ReleaseStore) -> None:
    release_id = publish(remote)
    remote.fetch(release_id)
    remote._fs = Breaking(remote._fs, "get_file", "manifest.json")
    assert open_release(remote.fetch(release_id), EXPECTED).release_id == release_id


def test_a_damaged_copy_in_the_cache_is_fetched_again(remote: ReleaseStore) -> None:
    release_id = publish(remote)
    head = remote.fetch(release_id) / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1])
    assert open_release(remote.fetch(release_id), EXPECTED).release_id == release_id


def test_a_store_that_cannot_be_opened_is_told_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (str(tmp_path / "file" / "releases"), "nonsense://releases"):
        with pytest.raises(ReleaseError, match=r"store\.releases"):
            ReleaseStore(url, tmp_path / "cache")


def test_a_store_that_vanished_is_a_release_error(tmp_path: Path) -> None:
    store = ReleaseStore(str(tmp_path / "releases"), tmp_path / "cache")
    shutil.rmtree(tmp_path / "releases")
    with pytest.raises(ReleaseError, match="failed"):
        store.names()
