"""The catalogue and the space over it: rows that stay, vectors that are never of another text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import catalog as catalogs
from profiles.catalog import Catalog
from profiles.head import embed_items
from profiles.items import Item
from profiles.lowest import Picked
from profiles.release import ItemTable
from profiles.space import Space
from profiles.state import bloom_slots
from profiles.wire import key64
from tests.unit.builders import (
    DIM,
    LAYOUT,
    TEXT_DIM,
    make_catalog,
    make_items,
    make_release,
    make_space,
    unit_rows,
)

pytestmark = pytest.mark.unit


def text_key(item: Item) -> np.uint64:
    return np.uint64(key64(item.full_text()))


# --- the catalogue ------------------------------------------------------------------------------


def test_an_item_keeps_its_row_whatever_becomes_of_it(catalog: Catalog) -> None:
    assert catalog.put(Item("i3", "Another title")) == (3, True)
    catalog.withdraw("i4")
    assert catalog.put(Item("new")) == (20, True)
    assert catalog.rows["i4"] == 4
    assert catalog.rows_of(catalog.keys).tolist() == list(range(21))


def test_the_same_text_again_needs_no_encoding(catalog: Catalog) -> None:
    same = Item("i3", "Title 3", tags=["song"], attributes={"year": 1999}, available=False)
    assert catalog.put(same) == (3, False)
    assert catalog.items[3].attributes == {"year": 1999}
    assert not catalog.available[3]


def test_a_withdrawn_item_is_not_available_until_it_is_put_again(catalog: Catalog) -> None:
    catalog.withdraw("i3")
    catalog.withdraw("never heard of")
    assert catalog.available.tolist() == [n != 3 for n in range(20)]
    catalog.put(catalog.items[3])
    assert catalog.available.all()


def test_a_removed_tag_no_longer_selects_the_item(catalog: Catalog) -> None:
    assert np.flatnonzero(catalog.with_tags(["tale"])).tolist() == list(range(0, 20, 2))
    catalog.put(Item("i2", tags=["poem"]))
    assert 2 not in np.flatnonzero(catalog.with_tags(["tale"]))
    assert np.flatnonzero(catalog.with_tags(["poem"])).tolist() == [2]
    both = np.flatnonzero(catalog.with_tags(["poem", "song"])).tolist()
    assert both == sorted([2, *range(1, 20, 2)])
    catalog.put(Item("i2", tags=["tale"]))
    assert catalog.with_tags(["tale"])[2]
    assert not catalog.with_tags(["unheard of"]).any()
    assert not catalog.with_tags([]).any()


@given(
    st.lists(
        st.tuples(st.integers(0, 9), st.lists(st.sampled_from("abcdef"), max_size=3)), max_size=30
    ),
    st.integers(1, 4),
)
def test_items_of_a_tag_are_told_as_they_are_whenever_it_is_asked(
    puts: list[tuple[int, list[str]]], kept: int
) -> None:
    catalog = Catalog()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogs, "KEPT_MASKS", kept)
        for n, (item, tags) in enumerate(puts):
            catalog.put(Item(f"i{item}", tags=tags))
            for tag in "abcdefg"[n % 3 :: 2]:
                expected = [tag in each.tags for each in catalog.items]
                assert catalog.with_tags([tag]).tolist() == expected
        assert len(catalog._masks) <= kept


def test_items_of_a_tag_are_told_when_the_catalogue_has_outgrown_what_was_kept() -> None:
    catalog = make_catalog(4)
    for size in (4, 1_024, 1_025, 3_000):
        for item in make_items(size)[len(catalog) :]:
            catalog.put(item)
        expected = ["tale" in item.tags for item in catalog.items]
        assert catalog.with_tags(["tale"]).tolist() == expected


def test_a_catalogue_that_is_produced_again_and_again_takes_no_more_memory() -> None:
    catalog = make_catalog(4)
    for _ in range(3):
        for item in make_items(4):
            catalog.put(item)
    assert sum(len(rows) for rows in catalog._tagged.values()) == 4


@given(st.lists(st.integers(1, 40), max_size=30), st.lists(st.integers(0, 50), max_size=10))
def test_rows_are_found_by_key_and_unknown_keys_have_none(put: list[int], asked: list[int]) -> None:
    catalog = Catalog()
    rows: dict[int, int] = {}
    for number in put:
        rows.setdefault(number, len(rows))
        catalog.put(Item(f"i{number}"))
    keys = np.array([[key64(f"i{number}") for number in asked]] * 2, np.uint64)
    assert catalog.rows_of(keys).tolist() == [[rows.get(number, -1) for number in asked]] * 2


def test_rows_are_found_after_more_items_came(catalog: Catalog) -> None:
    keys = np.array([key64("late"), 0], np.uint64)
    assert catalog.rows_of(keys).tolist() == [-1, -1]
    catalog.put(Item("late"))
    assert catalog.rows_of(keys).tolist() == [20, -1]


# --- the space ----------------------------------------------------------------------------------


def test_a_space_takes_the_releases_vectors_for_unchanged_texts() -> None:
    catalog = make_catalog(6)
    release = make_release(list(reversed(catalog.items)))
    space = Space(release, catalog, LAYOUT.seen_bytes)
    assert not len(space.missing())
    np.testing.assert_array_equal(space.vectors, release.items.vectors[::-1])
    np.testing.assert_array_equal(space.bias, release.items.bias[::-1])
    np.testing.assert_array_equal(space.slots, bloom_slots(catalog.keys, LAYOUT.seen_bytes))


def test_items_newer_than_the_release_or_with_another_text_are_missing() -> None:
    catalog = make_catalog(4)
    release = make_release(catalog.items)
    catalog.put(Item("i1", "changed since the release"))
    catalog.put(Item("new"))
    assert Space(release, catalog, LAYOUT.seen_bytes).missing().tolist() == [1, 4]


def test_new_items_are_their_text_alone_and_get_the_new_item_bias() -> None:
    catalog = make_catalog(2)
    space = make_space(catalog)
    new = Item("new", "text")
    catalog.put(new)
    assert space.extend().tolist() == [2]
    texts = unit_rows(1, TEXT_DIM)
    space.set_text_vectors(np.array([2]), texts, np.array([text_key(new)]))
    nothing = np.zeros((1, DIM), np.float32)
    expected = embed_items(space.head, texts, nothing, np.zeros(1, np.float32))
    np.testing.assert_array_equal(space.vectors[2:], expected)
    assert space.bias[2] == space.head.new_item_bias[0]
    assert space.known.all()


def test_a_changed_text_keeps_what_the_release_learned_of_the_item() -> None:
    catalog = make_catalog(3)
    space = make_space(catalog)
    table = space.release.items
    changed = Item("i1", "another title")
    catalog.put(changed)
    space.forget_text(1)
    assert space.missing().tolist() == [1]
    texts = unit_rows(1, TEXT_DIM)
    space.set_text_vectors(np.array([1]), texts, np.array([text_key(changed)]))
    expected = embed_items(space.head, texts, table.ids[1:2], table.counts[1:2])
    np.testing.assert_array_equal(space.vectors[1:2], expected)
    assert space.bias[1] == table.bias[1]


def test_a_text_that_changes_back_needs_no_encoding() -> None:
    catalog = make_catalog(3)
    space = make_space(catalog)
    before = catalog.items[1]
    for item in (Item("i1", "for a moment"), before):
        catalog.put(item)
        space.forget_text(1)
    assert not len(space.missing())
    np.testing.assert_array_equal(space.vectors, space.release.items.vectors)


def test_a_space_that_nobody_told_of_a_changed_text_finds_out_when_it_extends() -> None:
    """The previous space and the one under preparation hear of no single change."""
    catalog = make_catalog(3)
    space = make_space(catalog)
    catalog.put(Item("i1", "changed while another release serves"))
    assert space.extend().tolist() == [1]
    catalog.put(make_items(3)[1])
    assert not len(space.extend())


def test_vectors_of_a_text_that_changed_while_it_was_encoded_are_ignored() -> None:
    catalog = make_catalog(2)
    space = make_space(catalog)
    first, second = Item("new", "first text"), Item("newer", "text")
    for item in (first, second):
        catalog.put(item)
    rows, keys = space.extend(), catalog.text_keys[2:].copy()
    catalog.put(Item("new", "second text"))
    space.set_text_vectors(rows, unit_rows(2, TEXT_DIM), keys)
    assert space.missing().tolist() == [2]


def test_a_release_without_items_leaves_everything_to_the_language_model() -> None:
    catalog = make_catalog(3)
    space = Space(make_release([]), catalog, LAYOUT.seen_bytes)
    assert space.missing().tolist() == [0, 1, 2]
    space.set_text_vectors(space.missing(), unit_rows(3, TEXT_DIM), catalog.text_keys.copy())
    assert space.known.all()
    assert (space.bias == space.head.new_item_bias[0]).all()


def test_a_space_over_an_empty_catalogue_grows_with_it() -> None:
    catalog = Catalog()
    items = make_items(5)
    space = Space(make_release(items), catalog, LAYOUT.seen_bytes)
    assert not len(space.extend())
    for item in items:
        catalog.put(item)
        assert not len(space.extend())
    np.testing.assert_array_equal(space.vectors, space.release.items.vectors)


def test_growth_past_the_first_allocation_keeps_every_vector_in_its_row() -> None:
    items = make_items(2500)
    release = make_release(items)
    catalog = Catalog()
    space = Space(release, catalog, LAYOUT.seen_bytes)
    for number, item in enumerate(items):
        catalog.put(item)
        if number % 700 == 0:
            space.extend()
    space.extend()
    np.testing.assert_array_equal(space.vectors, release.items.vectors)
    np.testing.assert_array_equal(space.bias, release.items.bias)
    assert space.known.all()
    assert len(catalog.keys) == len(catalog.available) == len(catalog.text_keys) == 2500
    assert catalog.rows_of(catalog.keys[[0, 1023, 1024, 2499]]).tolist() == [0, 1023, 1024, 2499]


@given(st.lists(st.sampled_from(["come", "change", "forget", "read"]), max_size=30))
def test_vectors_lying_the_other_way_are_the_same_whatever_becomes_of_the_items(
    steps: list[str],
) -> None:
    catalog = make_catalog(3)
    space = make_space(catalog)
    for number, step in enumerate(steps):
        row = number % len(catalog)
        if step == "come":
            catalog.put(Item(f"new {number}", "text"))
        elif step == "change":
            catalog.put(Item(catalog.items[row].item_id, f"text {number}"))
        elif step == "forget":
            space.forget_text(row)
        rows = space.extend()
        if step == "read" and len(rows):
            texts = unit_rows(len(rows), TEXT_DIM, number)
            space.set_text_vectors(rows, texts, catalog.text_keys[rows].copy())
        known = space.known
        np.testing.assert_array_equal(space.columns[:-1, known], space.vectors[known].T)
        np.testing.assert_array_equal(space.columns[-1], np.where(known, space.bias, -np.inf))


def test_nothing_in_a_space_comes_from_another_release() -> None:
    catalog = make_catalog(5)
    one, other = make_space(catalog, seed=1), make_space(catalog, seed=2)
    assert one.key != other.key
    assert not np.isclose(one.vectors, other.vectors).any()
    assert isinstance(one.release.items, ItemTable)


def test_a_space_that_is_filled_a_part_at_a_time_is_the_same_in_the_end() -> None:
    items = make_items(2500)
    release, catalog = make_release(items), Catalog()
    for item in items[:2000]:
        catalog.put(item)
    space = Space(release, catalog, LAYOUT.seen_bytes, empty=True)
    assert len(space.vectors) == 0
    parts = 1
    while space.take_in(300):
        parts += 1
        if parts == 3:
            for item in items[2000:]:
                catalog.put(item)
    whole = Space(release, catalog, LAYOUT.seen_bytes)
    assert parts == 9
    for name in ("vectors", "columns", "bias", "counts", "slots", "known"):
        np.testing.assert_array_equal(getattr(space, name), getattr(whole, name))
    rows, keys = np.arange(2500), catalog.keys
    mine, theirs = space.picked(rows, keys), whole.picked(rows, keys)
    assert isinstance(mine, Picked)
    assert isinstance(theirs, Picked)
    np.testing.assert_allclose(mine.mixed, theirs.mixed, atol=1e-5)


def test_a_new_item_does_not_move_the_space() -> None:
    catalog = make_catalog(40)
    space = make_space(catalog)
    columns = space.columns
    catalog.put(make_items(41)[40])
    space.extend()
    assert np.shares_memory(columns, space.columns)
