"""What a person blocked is shown to nobody: in no ranking, by no exploration, after no swap."""

from __future__ import annotations

import numpy as np
import pytest

from profiles.answers import Filters, Recommendation, Request
from profiles.catalog import Catalog
from profiles.items import Item
from profiles.notices import PolicyOrder
from profiles.policies import PolicyBoard
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records, empty_records
from profiles.wire import decode_json, encode
from stream.api.read_model import ReadModel
from stream.messages import Cause
from stream.outputs import Recommender
from tests.unit.builders import LAYOUT, make_catalog, make_record, make_space, unit_rows
from tests.unit.test_api import SETTINGS, TOPICS, recommendation

pytestmark = pytest.mark.unit

NOBODY: frozenset[str] = frozenset()
USERS = 40
ITEMS = 30


def shown(catalog: Catalog, records: Records, space: Space, settings: ServingSettings) -> set[str]:
    """Every item that anybody gets, by events and by requests."""
    recommender = Recommender(catalog, settings)
    users = [f"u{number}" for number in range(len(records))]
    causes = [Cause("event", name, "t", 0, at) for at, name in enumerate(users)]
    payloads = recommender.for_events(records, users, causes, space, 0.0)
    for at, user in enumerate(users):
        asked = Request("r", user, 8, Filters(exclude_seen=False))
        payloads.append(
            recommender.for_request(records[at : at + 1], asked, causes[at], space, 0.0)
        )
    answers = [decode_json(payload, Recommendation) for payload in payloads]
    return {item.item_id for answer in answers for item in answer.items}


@pytest.mark.parametrize("exploration", ["off", "epsilon", "boltzmann"])
@pytest.mark.parametrize("is_new", [False, True], ids=["known users", "users without a profile"])
def test_a_blocked_item_is_in_no_recommendation_of_any_kind_or_release(
    exploration: str, is_new: bool
) -> None:
    catalog = make_catalog(ITEMS)
    settings = ServingSettings.model_validate(
        {"k": 8, "exploration": exploration, "exploration_epsilon": 0.9, "exclude_seen": False}
    )
    spaces = [make_space(catalog, seed) for seed in (0, 1)]
    records = empty_records(LAYOUT, USERS)
    if not is_new:
        records["profile"], records["events"] = unit_rows(USERS, LAYOUT.dim), 5
    records["release"] = spaces[0].key
    free = shown(catalog, records, spaces[0], settings)
    target, tag = sorted(free)[0], catalog.items[1].tags[0]
    tagged = {item.item_id for item in catalog.items if tag in item.tags}
    assert free & tagged
    assert not free <= tagged | {target}

    catalog.block(frozenset({target}), frozenset({tag}))
    for space in spaces:  # also of a release that comes after the order
        records["release"] = space.key
        seen = shown(catalog, records, space, settings)
        assert seen
        assert not seen & ({target} | tagged)
    catalog.block(NOBODY, NOBODY)
    records["release"] = spaces[0].key
    assert shown(catalog, records, spaces[0], settings) == free


def test_an_order_holds_for_items_that_come_later_and_lifting_it_sells_nothing_withdrawn() -> None:
    catalog = make_catalog(3)
    assert catalog.block(frozenset({"late", "i0"}), frozenset({"weapons"})) == 1
    catalog.put(Item("late"))
    catalog.put(Item("knife", tags=["weapons"]))
    catalog.put(Item("i1", tags=["weapons"]))  # gets the tag
    catalog.withdraw("i2")
    assert catalog.available.tolist() == [False] * 5
    catalog.put(Item("i1"))  # loses it
    assert catalog.available[1]
    catalog.block(NOBODY, NOBODY)
    assert catalog.available.tolist() == [True, True, False, True, True]
    assert np.flatnonzero(~catalog.available).tolist() == [catalog.rows["i2"]]


def test_the_last_order_of_a_name_holds_and_what_cannot_be_read_lifts_nothing() -> None:
    board = PolicyBoard()
    for order in (
        PolicyOrder("item", "i1", True, "recalled"),
        PolicyOrder("freeze", "releases", True, "incident"),
    ):
        board.put_payload(order.name.encode(), encode(order))
    for payload in (None, b"", b"{", b'{"kind":"item","target":"i1"}', b'{"kind":"x"}'):
        board.put_payload(b"item:i1", payload)
    assert board.bars("i1", [])
    assert board.freeze is not None
    board.put(PolicyOrder("item", "i1", False))
    assert not board.bars("i1", [])


def test_the_api_leaves_out_what_was_blocked_after_the_recommendation_was_made() -> None:
    model = ReadModel(SETTINGS)
    model.take(
        TOPICS.items,
        [make_record(0, encode(Item(name, tags=[tag])), name) for name, tag in (("i1", "war"),)],
    )
    made = recommendation("ann", "e1")
    model.take(TOPICS.recommendations, [make_record(0, encode(made), "ann")])
    assert model.recommendation("ann") == made
    order = PolicyOrder("tag", "war", True)
    model.take(TOPICS.policies, [make_record(0, encode(order), order.name)])
    # Nothing is left of it: a worker is asked instead.
    assert model.recommendation("ann") is None
