"""A partition is closed until its changelog was read: when it opens, and when it comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from profiles.metrics import WorkerMetrics
from profiles.settings.kafka import BrokerSettings
from profiles.settings.serving import StoreSettings
from profiles.store import PartitionStore
from profiles.topics import Topics
from stream import partitions as module
from stream.partitions import Partitions
from stream.restore import TOMBSTONES_KEPT_S
from stream.source import Source
from stream.state_thread import StateThread
from tests.unit.builders import LAYOUT

pytestmark = pytest.mark.unit

TOPICS = Topics.under("test")


@dataclass
class Changelog:
    """Stands in for the reading of the topic: the test says how far it goes, and when."""

    end: int = 0
    may_end: asyncio.Event = field(default_factory=asyncio.Event)
    began: asyncio.Event = field(default_factory=asyncio.Event)
    begun: int = 0

    # Any: the arguments of `restore`, of which the store is wanted.
    async def restore(self, store: PartitionStore, *rest: Any) -> int:
        self.begun += 1
        self.began.set()
        end = self.end
        await self.may_end.wait()
        store.write([], [], msgspec.structs.replace(store.watermark, changelog=end))
        return end


@dataclass
class Bench:
    partitions: Partitions
    changelog: Changelog
    opened: list[Source]
    failures: list[BaseException]

    async def opening_settled(self) -> None:
        """Let every opening go on as far as it can."""
        self.changelog.may_end.set()
        await asyncio.gather(*self.partitions._opening.values())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    changelog, opened, failures = Changelog(), list[Source](), list[BaseException]()
    monkeypatch.setattr(module, "restore", changelog.restore)
    state = StateThread()
    partitions = Partitions(
        tmp_path,
        StoreSettings(),
        LAYOUT,
        BrokerSettings(),
        TOPICS,
        {TOPICS.events: "id"},
        state,
        WorkerMetrics(CollectorRegistry()),
        failures.append,
        opened.append,
    )
    yield Bench(partitions, changelog, opened, failures)
    state.close()


async def test_a_partition_is_closed_until_its_changelog_was_read(bench: Bench) -> None:
    bench.changelog.end = 7
    await bench.partitions.assign([0, 1])
    assert bench.partitions.joined
    assert bench.partitions.opening == [0, 1]
    assert bench.partitions.get(0) is None
    await bench.opening_settled()
    assert [source.changelog_end for source in bench.opened] == [7, 7]
    await bench.partitions.close()
    assert bench.partitions.sources() == []


async def test_a_partition_that_comes_straight_back_is_read_again_before_it_opens(
    bench: Bench,
) -> None:
    """While this worker was suspended, another may have had it."""
    await bench.partitions.assign([0, 1])
    await bench.opening_settled()
    before = bench.partitions.get(0)
    assert before is not None
    bench.changelog.may_end.clear()
    bench.changelog.end = 9
    await bench.partitions.assign([0])
    assert bench.partitions.get(0) is None
    assert before.closed  # nothing is swept, flushed or declared meanwhile
    await bench.opening_settled()
    after = bench.partitions.get(0)
    assert after is before
    assert (after.closed, after.changelog_end) == (False, 9)
    assert bench.partitions.get(1) is None
    await bench.partitions.close()


async def test_what_is_being_restored_at_a_rebalance_begins_anew(bench: Bench) -> None:
    """It may be reading up to an end from before another worker had the partition."""
    await bench.partitions.assign([0])
    await bench.changelog.began.wait()
    bench.changelog.end = 5
    await bench.partitions.assign([0])
    await bench.opening_settled()
    assert bench.changelog.begun == 2
    assert [source.changelog_end for source in bench.opened] == [5]
    await bench.partitions.close()


async def test_a_store_that_was_away_for_too_long_is_begun_anew(bench: Bench) -> None:
    """It may have missed tombstones that compaction has dropped since."""
    await bench.partitions.assign([0])
    await bench.opening_settled()
    kept = bench.partitions.get(0)
    assert kept is not None
    old = msgspec.structs.replace(kept.store.watermark, saved_at=1.0, count=1)
    kept.store.write([b"ann"], [b"profile"], old)
    assert TOMBSTONES_KEPT_S > 1.0
    await bench.partitions.assign([0])
    await bench.opening_settled()
    fresh = bench.partitions.get(0)
    assert fresh is not None
    assert fresh is not kept
    assert fresh.store.get_many([b"ann"]) == [None]
    await bench.partitions.close()
    assert bench.failures == []


async def test_who_waits_for_a_partition_gets_it_when_it_opens(bench: Bench) -> None:
    await bench.partitions.assign([0])
    waiting = asyncio.create_task(bench.partitions.opened(0))
    await bench.changelog.began.wait()
    assert not waiting.done()
    await bench.opening_settled()
    assert await waiting is bench.partitions.get(0) is not None


async def test_who_waits_for_a_partition_that_is_taken_away_gets_none(bench: Bench) -> None:
    await bench.partitions.assign([0])
    waiting = asyncio.create_task(bench.partitions.opened(0))
    await bench.changelog.began.wait()
    await bench.partitions.assign([])
    assert await waiting is None
    assert await bench.partitions.opened(5) is None
