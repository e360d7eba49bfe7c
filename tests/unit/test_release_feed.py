"""Which release a worker wants, and that a bad one never takes the place of a good one."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal, cast

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from profiles.catalog import Catalog
from profiles.errors import ModelError
from profiles.items import Item
from profiles.layers import Floats
from profiles.metrics import WorkerMetrics
from profiles.notices import ReleaseNotice
from profiles.registry import ReleaseStore
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.wire import encode
from stream.broadcast import Broadcast
from stream.catalogue_feed import CatalogueFeed
from stream.chunks import Chunk
from stream.event_path import EventPath
from stream.indexing import Indexer
from stream.language_model import LanguageModel
from stream.proofs import Proofs
from stream.publisher import Publisher
from stream.release_feed import ReleaseFeed
from stream.state_thread import StateThread
from tests.unit.builders import (
    ACTIONS,
    EXPECTED,
    LAYOUT,
    PROBE_TEXTS,
    TEXT_DIM,
    make_items,
    make_record,
    save_release,
    unit_rows,
)

pytestmark = pytest.mark.unit


class FakeLanguageModel:
    """Gives the probe texts the vectors that `save_release` wrote, others a row of their own."""

    def __init__(self) -> None:
        self.probe = np.eye(len(PROBE_TEXTS), TEXT_DIM, dtype=np.float32)
        self.error: Exception | None = None
        self.encoded: list[str] = []
        self.proved = 0
        self.during: list[Item] = []
        self.catalog: Catalog | None = None

    async def encode(self, adapter: Path, texts: list[str], *, exact: bool = False) -> Floats:
        if self.error is not None:
            raise self.error
        if texts == PROBE_TEXTS:
            self.proved += 1
            return self.probe
        for item in self.during:  # arrives while this is being encoded
            assert self.catalog is not None
            self.catalog.put(item)
        self.during = []
        self.encoded += texts
        return unit_rows(len(texts), TEXT_DIM)


class Watched(asyncio.Event):
    """Tells when somebody waits for it: the feed then has nothing left to do."""

    def __init__(self) -> None:
        super().__init__()
        self.idle = asyncio.Event()

    async def wait(self) -> Literal[True]:
        self.idle.set()
        return await super().wait()


class Bench:
    """A release feed over a real store directory, with the network and the model faked."""

    def __init__(
        self,
        directory: Path,
        exact_items: int = 1000,
        trusted: Sequence[Ed25519PublicKey] = (),
        store: str = "",
    ) -> None:
        self.catalog = Catalog()
        for item in make_items(6):
            self.catalog.put(item)
        self.metrics = WorkerMetrics(CollectorRegistry())
        codes = {name: at for at, name in enumerate(ACTIONS)}
        self.path = EventPath(LAYOUT, ServingSettings(), codes, self.catalog, self.metrics)
        self.store = ReleaseStore(store or str(directory / "releases"), directory / "cache")
        self.model = FakeLanguageModel()
        self.model.catalog = self.catalog
        self.state = StateThread()
        language_model = cast(LanguageModel, self.model)
        catalogue = CatalogueFeed(
            self.path,
            cast(Broadcast, None),
            language_model,
            cast(Publisher, None),
            self.state,
            self.metrics,
            max_bytes=1000,
        )
        catalogue.ready.set()
        self.swapped: list[str] = []
        self.feed = ReleaseFeed(
            self.path,
            self.store,
            EXPECTED,
            trusted,
            LAYOUT.seen_bytes,
            catalogue,
            Indexer(self.path, self.state, self.metrics, exact_items),
            language_model,
            self.state,
            self.metrics,
            Proofs(directory / "proofs.json"),
            lambda: self.swapped.append(self.path.serving.release_id),
        )

    def publish(self, seed: int, items: int = 6) -> str:
        building = self.store.workspace()
        save_release(building, make_items(items), seed)
        return self.store.publish(building)

    def notice(
        self,
        release_id: str,
        sequence: int,
        status: str = "serving",
        parent: str | None = None,
        share: float = 0.0,
    ) -> None:
        take(
            self.feed,
            [ReleaseNotice(release_id, status, sequence, "store", parent, share=share)],
        )

    def canary(self) -> tuple[str, float] | None:
        canary = self.path.canary
        return None if canary is None else (canary.space.release_id, canary.share)

    async def settled(self) -> None:
        """Follow until nothing more is wanted."""
        self.feed._changed = changed = Watched()
        following = asyncio.create_task(self.feed.follow())
        idle = asyncio.create_task(changed.idle.wait())
        await asyncio.wait({following, idle}, return_when=asyncio.FIRST_COMPLETED)
        for task in (following, idle):
            task.cancel()
        outcomes = await asyncio.gather(following, idle, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, Exception):
                raise outcome

    @property
    def serving(self) -> str | None:
        return None if self.path.space is None else self.path.space.release_id

    def refused(self, reason: str) -> float:
        name = "driftline_releases_refused_total"
        return self.metrics.registry.get_sample_value(name, {"reason": reason}) or 0.0


def take(feed: ReleaseFeed, notices: Sequence[ReleaseNotice | bytes | None]) -> None:
    records = [
        make_record(at, encode(notice) if isinstance(notice, ReleaseNotice) else notice, "r")
        for at, notice in enumerate(notices)
    ]
    feed.take(Chunk("releases", 0, records, len(records)))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.state.close()


# --- proofs --------------------------------------------------------------------------------------


async def test_a_release_that_was_proved_is_not_proved_again_by_a_worker_that_restarts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def restart() -> int:
        bench = Bench(tmp_path)
        bench.notice(name, 1)
        await bench.settled()
        assert bench.serving == name
        bench.state.close()
        return bench.model.proved

    first = Bench(tmp_path)
    name = first.publish(0)
    first.state.close()
    assert [await restart(), await restart()] == [1, 0]
    # Other libraries may load it otherwise; and a file that was cut is no proof.
    monkeypatch.setattr("stream.proofs.version", lambda library: "0.0")
    assert [await restart(), await restart()] == [1, 0]
    (tmp_path / "proofs.json").write_bytes(b'["')
    assert await restart() == 1


async def test_a_release_that_failed_its_proof_is_not_kept_as_proved(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.model.probe = -bench.model.probe
    bench.notice(bench.publish(0), 1)
    await bench.settled()
    assert (bench.serving, bench.refused("probe-cosine")) == (None, 1.0)
    assert not (tmp_path / "proofs.json").exists()
    bench.state.close()


# --- large catalogues ---------------------------------------------------------------------------


async def test_a_large_catalogue_is_indexed_before_it_serves(tmp_path: Path) -> None:
    bench = Bench(tmp_path, exact_items=3)
    bench.notice(bench.publish(0), 1)
    await bench.settled()
    assert bench.path.serving.cells is not None
    assert bench.path.serving.uncovered() == 0
    bench.state.close()


async def test_a_small_catalogue_is_not_indexed(bench: Bench) -> None:
    bench.notice(bench.publish(0), 1)
    await bench.settled()
    assert bench.path.serving.cells is None


# --- what stays on disk -------------------------------------------------------------------------


async def test_of_an_object_store_only_what_serves_and_what_served_before_stays_cached(
    tmp_path: Path,
) -> None:
    bench = Bench(tmp_path, store=f"memory://{tmp_path}/releases")
    names = [bench.publish(seed) for seed in range(3)]
    for sequence, name in enumerate(names):
        bench.notice(name, sequence)
        await bench.settled()

    assert bench.serving == names[2]
    assert {path.name for path in (tmp_path / "cache").iterdir()} == set(names[1:])
    bench.state.close()


# --- what is wanted -----------------------------------------------------------------------------


def wanted(bench: Bench) -> str | None:
    notice = bench.feed.wanted()
    return None if notice is None else notice.release_id


def test_nothing_is_wanted_before_a_release_serves(bench: Bench) -> None:
    assert wanted(bench) is None
    bench.notice("r1", 1, "candidate")
    assert wanted(bench) is None


def test_the_highest_serving_notice_is_wanted(bench: Bench) -> None:
    bench.notice("r2", 5)
    bench.notice("r1", 3)
    bench.notice("r3", 9, "candidate")
    assert wanted(bench) == "r2"


def test_a_rollback_brings_the_release_before_it_back(bench: Bench) -> None:
    bench.notice("r1", 1)
    bench.notice("r2", 2)
    bench.notice("r2", 3, "rolled-back")
    assert wanted(bench) == "r1"
    bench.notice("r1", 4)
    bench.notice("r2", 2)  # an old notice, read late
    assert wanted(bench) == "r1"


def test_unreadable_notices_and_tombstones_are_passed_over(bench: Bench) -> None:
    good = ReleaseNotice("r1", "serving", 1, "store")
    take(bench.feed, [None, b"", b"not json", b"{}", good, b"\xff"])
    assert wanted(bench) == "r1"
    assert bench.refused("malformed") == 2
    assert bench.refused("invalid") == 1


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("board"))


@given(
    st.lists(
        st.tuples(st.sampled_from(["r1", "r2", "r3"]), st.sampled_from(["serving", "retired"])),
        min_size=1,
        max_size=8,
    ),
    st.randoms(use_true_random=False),
)
def test_the_order_in_which_notices_arrive_is_irrelevant_and_so_is_compaction(
    board: Bench, log: list[tuple[str, str]], chance: object
) -> None:
    notices = [ReleaseNotice(name, status, n, "store") for n, (name, status) in enumerate(log)]
    last = {notice.release_id: notice for notice in notices}
    serving = [notice for notice in last.values() if notice.status == "serving"]
    expected = max(serving, key=lambda notice: notice.sequence, default=None)
    shuffled = list(notices)
    chance.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis' own kind of Random
    for seen in (notices, shuffled, list(last.values())):
        board.feed._notices.clear()
        take(board.feed, seen)
        assert board.feed.wanted() == expected


def test_of_two_releases_with_one_sequence_all_workers_choose_the_same(bench: Bench) -> None:
    notices = [ReleaseNotice(name, "serving", 4, "store") for name in ("r1", "r2", "r3")]
    for order in itertools.permutations(notices):
        bench.feed._notices.clear()
        take(bench.feed, order)
        assert wanted(bench) == "r3"


# --- the swap -----------------------------------------------------------------------------------


async def test_a_good_release_serves_with_every_item_encoded(bench: Bench) -> None:
    release_id = bench.publish(0, items=4)
    bench.notice(release_id, 1)
    await bench.settled()
    assert bench.serving == release_id
    assert bench.path.serving.known.all()
    assert bench.model.encoded == [item.full_text() for item in make_items(6)[4:]]
    assert bench.feed.refusal is None


async def test_an_item_that_arrives_during_the_swap_is_encoded_before_the_flip(
    bench: Bench,
) -> None:
    bench.model.during = [Item("late"), Item("i0", "changed meanwhile")]
    bench.notice(bench.publish(0, items=4), 1)
    await bench.settled()
    space = bench.path.serving
    assert len(space.known) == 7
    assert space.known.all()
    assert {"changed meanwhile", bench.catalog.items[6].full_text()} <= set(bench.model.encoded)


async def test_a_bad_release_is_refused_and_the_old_one_serves_on(bench: Bench) -> None:
    good, bad = bench.publish(0), bench.publish(1)
    head = bench.store.fetch(bad) / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1])
    bench.notice(good, 1)
    await bench.settled()
    bench.notice(bad, 2)
    bench.notice("r00009-gone", 3)
    await bench.settled()
    assert bench.serving == good
    assert (bench.refused("hash"), bench.refused("not-in-store")) == (1, 1)
    assert wanted(bench) == good
    # Announced anew, it is looked at anew.
    bench.notice(bad, 4)
    await bench.settled()
    assert (bench.serving, bench.refused("hash")) == (good, 2)


async def test_while_nothing_serves_the_next_best_release_gets_its_chance(bench: Bench) -> None:
    good = bench.publish(0)
    bench.notice(good, 1)
    bench.notice("r00009-gone", 2)
    await bench.settled()
    assert bench.serving == good
    assert "r00009-gone" in (bench.feed.refusal or "")


async def test_an_adapter_that_did_not_take_is_refused(bench: Bench) -> None:
    bench.model.probe = np.roll(bench.model.probe, 1, axis=1)
    bench.notice(bench.publish(0), 1)
    await bench.settled()
    assert bench.serving is None
    assert bench.refused("probe-cosine") == 1


async def test_an_adapter_that_cannot_be_loaded_is_refused(bench: Bench) -> None:
    good = bench.publish(0)
    bench.notice(good, 1)
    await bench.settled()
    bench.model.error = ModelError("adapter does not fit the base")
    bench.notice(bench.publish(1), 2)
    await bench.settled()
    assert bench.serving == good
    assert bench.refused("adapter-load") == 1


async def test_a_rollback_needs_no_load_and_knows_texts_that_changed_since(bench: Bench) -> None:
    first, second = bench.publish(0), bench.publish(1)
    for sequence, release_id in enumerate((first, second)):
        bench.notice(release_id, sequence)
        await bench.settled()
    before: Space | None = bench.path.previous
    changed = Item("i2", "changed while the second one served")
    bench.catalog.put(changed)
    bench.model.encoded.clear()
    bench.notice(second, 5, "rolled-back")
    await bench.settled()
    assert bench.path.space is before
    assert bench.serving == first
    assert changed.full_text() in bench.model.encoded


async def test_a_canary_is_loaded_beside_its_parent_and_ends_as_it_is_decided(
    bench: Bench,
) -> None:
    first, second, third = (bench.publish(seed) for seed in (1, 2, 3))
    bench.notice(second, 2, "canary", parent=first, share=0.2)
    await bench.settled()
    assert (bench.path.space, bench.canary()) == (None, None)  # nothing to stand beside

    bench.notice(first, 1)
    await bench.settled()
    assert bench.path.serving.release_id == first
    assert bench.canary() == (second, 0.2)
    assert bench.metrics.registry.get_sample_value("driftline_canary_share") == 0.2

    bench.notice(second, 3, "refused", parent=first)
    await bench.settled()
    assert (bench.path.serving.release_id, bench.canary()) == (first, None)
    assert bench.metrics.registry.get_sample_value("driftline_canary_share") == 0.0

    bench.notice(third, 4, "canary", parent=first, share=0.3)
    await bench.settled()
    assert bench.path.canary is not None
    space = bench.path.canary.space
    bench.notice(third, 5)
    await bench.settled()
    assert bench.path.space is space  # loaded once
    assert bench.canary() is None
    # Every change of who serves whom has the profiles looked through.
    assert len(bench.swapped) == 5


async def test_a_canary_that_cannot_be_loaded_is_refused_and_told_and_its_users_stay(
    bench: Bench,
) -> None:
    first, second = bench.publish(1), bench.publish(2)
    bench.notice(first, 1)
    head = Path(bench.store.url) / second / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\x01")
    bench.notice(second, 2, "canary", parent=first, share=0.2)
    await bench.settled()
    assert (bench.path.serving.release_id, bench.canary()) == (first, None)
    [(name, reason)] = bench.feed.refused_canaries().items()
    assert name == second
    assert "head.safetensors" in reason
    assert bench.feed.refusal is None  # this worker is ready: a release serves
    bench.notice(second, 3, "refused", parent=first)
    await bench.settled()
    assert bench.feed.refused_canaries() == {}


async def test_a_rollback_in_mid_canary_ends_the_canary(bench: Bench) -> None:
    old, first, second = (bench.publish(seed) for seed in (1, 2, 3))
    bench.notice(old, 1)
    bench.notice(first, 2)
    bench.notice(second, 3, "canary", parent=first, share=0.2)
    await bench.settled()
    assert bench.canary() == (second, 0.2)
    bench.notice(old, 4)
    await bench.settled()
    assert (bench.path.serving.release_id, bench.canary()) == (old, None)


async def test_an_item_that_arrives_during_a_canary_gets_a_vector_in_both_spaces(
    bench: Bench,
) -> None:
    first, second = bench.publish(1), bench.publish(2)
    bench.notice(first, 1)
    bench.notice(second, 2, "canary", parent=first, share=0.2)
    await bench.settled()
    bench.catalog.put(Item("late", "Late"))
    await bench.feed._catalogue.fill_all()
    assert len(bench.path.resident) == 2
    assert all(space.known.all() for space in bench.path.resident)
