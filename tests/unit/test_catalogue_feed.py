"""How long an event of an unknown item waits: as long as there is hope, once."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from profiles.catalog import Catalog
from profiles.items import Item
from stream.catalogue_feed import CatalogueFeed
from tests.unit.builders import make_catalog

pytestmark = pytest.mark.unit


class Topic:
    """An items topic that is always read to its end; `looks` counts how often that was asked.

    `arrives_at`: the look at which the item "late" is there.
    """

    def __init__(self, catalog: Catalog, arrives_at: int | None = None) -> None:
        self.looks = 0
        self._catalog, self._arrives_at = catalog, arrives_at

    async def caught_up(self) -> None:
        self.looks += 1
        if self.looks == self._arrives_at:
            self._catalog.put(Item("late", "a late song"))


def feed_of(catalog: Catalog, topic: Topic) -> CatalogueFeed:
    nobody: Any = None  # neither models nor stores are asked here
    path = cast(Any, SimpleNamespace(catalog=catalog))
    return CatalogueFeed(path, cast(Any, topic), nobody, nobody, nobody, nobody, 1_000)


async def test_an_item_that_arrives_ends_the_wait() -> None:
    catalog = make_catalog(3)
    topic = Topic(catalog, arrives_at=3)
    await feed_of(catalog, topic).wait_for({"late", "i1"}, timeout_s=600.0)
    assert topic.looks == 3
    assert "late" in catalog.rows


async def test_an_item_that_never_came_is_waited_for_once_and_then_only_looked_for() -> None:
    catalog = make_catalog(3)
    topic = Topic(catalog)
    feed = feed_of(catalog, topic)
    await feed.wait_for({"nowhere"}, timeout_s=0.12)
    waited = topic.looks
    assert waited > 1
    for _ in range(3):
        await feed.wait_for({"nowhere"}, timeout_s=600.0)
    assert topic.looks == waited + 3


async def test_an_item_in_vain_is_no_reason_to_give_up_another() -> None:
    catalog = make_catalog(3)
    topic = Topic(catalog)
    feed = feed_of(catalog, topic)
    await feed.wait_for({"nowhere"}, timeout_s=0.01)
    later = Topic(catalog, arrives_at=4)
    feed._broadcast = cast(Any, later)
    await feed.wait_for({"nowhere", "late"}, timeout_s=600.0)
    assert later.looks == 4
