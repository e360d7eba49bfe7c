"""Ranking: exact, without what was seen or is not allowed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import space as spaces
from profiles.catalog import Catalog, Rows
from profiles.choosing import BLOCK
from profiles.scoring import queries, recommend, score_all, top_k, unseen_ranks
from profiles.space import Space
from profiles.state import Records, bloom_slots, empty_records, mark_seen, was_seen
from tests.unit.builders import (
    LAYOUT,
    make_catalog,
    make_items,
    make_release,
    make_space,
    random_records,
)

pytestmark = pytest.mark.unit

CATALOG = make_catalog(60)
SPACE = make_space(CATALOG)
EVERYTHING = np.ones(60, np.bool_)
Bools = npt.NDArray[np.bool_]


def make_sorted_space() -> Space:
    """One whose rows are all sorted for `unseen_ranks`, few as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spaces, "LEAST_UNSORTED", 0)
        space = make_space(CATALOG)
        assert len(space.rows_by_first_slot()[0]) == 60
    return space


SPACES = SPACE, make_sorted_space()

widths = st.one_of(
    st.integers(0, 80),
    st.sampled_from([BLOCK * n + extra for n in (1, 2, 7, 20, 41) for extra in (-1, 0, 1)]),
)


def make_records(users: int, seed: int = 0) -> Records:
    records = empty_records(LAYOUT, users)
    records["release"] = SPACE.key
    records["profile"] = np.random.default_rng(seed).normal(size=(users, LAYOUT.dim))
    return records


@given(st.integers(0, 3), widths, st.integers(0, 30), st.integers(0, 99), st.booleans())
def test_top_k_is_what_sorting_gives(
    users: int, width: int, k: int, seed: int, many_ties: bool
) -> None:
    chance = np.random.default_rng(seed)
    scores = chance.normal(size=(users, width)).astype(np.float32)
    if many_ties:
        scores = np.round(scores)
    scores[chance.random(scores.shape) < 0.3] = -np.inf
    ranked = top_k(scores, np.ones(width, np.bool_), min(k, width))

    expected = -np.sort(-scores, axis=1)[:, :k]
    np.testing.assert_array_equal(ranked.scores, expected)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(ranked.rows, np.where(np.isfinite(expected), order, -1))


def test_equal_scores_stand_in_the_order_of_their_rows() -> None:
    ranked = top_k(np.zeros((1, 7), np.float32), np.ones(7, np.bool_), 7)
    assert ranked.rows.tolist() == [[0, 1, 2, 3, 4, 5, 6]]


@given(st.integers(0, 99), st.integers(1, 12), st.floats(0, 1), st.floats(0, 1))
def test_recommendations_are_the_best_of_what_is_allowed_and_unseen(
    seed: int, k: int, seen_share: float, allowed_share: float
) -> None:
    chance = np.random.default_rng(seed)
    records = make_records(3, seed)
    allowed = chance.random(60) < allowed_share
    slots = bloom_slots(CATALOG.keys, LAYOUT.seen_bytes)
    for user, row in np.argwhere(chance.random((3, 60)) < seen_share / 4):
        mark_seen(records["seen"], np.array([user]), slots[row][None])

    ranked = recommend(records, SPACE, allowed, k, exclude_seen=True)

    assert ranked.rows.shape == ranked.scores.shape == (3, k)
    scores = score_all(queries(records, SPACE), SPACE)
    seen = was_seen(records["seen"], slots)
    for user in range(3):
        open_rows = [row for row in range(60) if allowed[row] and not seen[user, row]]
        best = sorted(open_rows, key=lambda row: -scores[user, row])[:k]
        assert ranked.rows[user].tolist() == best + [-1] * (k - len(best))
        assert np.isneginf(ranked.scores[user, len(best) :]).all()


@given(st.integers(0, 99), st.floats(0, 1), st.floats(0, 1), st.sampled_from(SPACES))
def test_a_rank_counts_what_is_allowed_unseen_and_as_good(
    seed: int, seen_share: float, allowed_share: float, space: Space
) -> None:
    chance = np.random.default_rng(seed)
    records = make_records(4, seed)
    allowed = chance.random(60) < allowed_share
    slots = bloom_slots(CATALOG.keys, LAYOUT.seen_bytes)
    for user, row in np.argwhere(chance.random((4, 60)) < seen_share / 4):
        mark_seen(records["seen"], np.array([user]), slots[row][None])
    targets = chance.integers(60, size=4)
    profiles = records["profile"].astype(np.float32)

    ranks = unseen_ranks(profiles, records["seen"], targets, allowed, space)

    assert ranks.tolist() == ranks_one_by_one(records, targets, allowed, space)


def ranks_one_by_one(records: Records, targets: Rows, allowed: Bools, space: Space) -> list[int]:
    scores = score_all(records["profile"].astype(np.float32), space)
    seen = was_seen(records["seen"], space.slots)
    ranks = []
    for user, target in enumerate(targets.tolist()):
        goal = scores[user, target] if allowed[target] else -np.inf
        others = allowed & ~seen[user] & (np.arange(len(allowed)) != target)
        ranks.append(int(np.count_nonzero(others & (scores[user] >= goal))))
    return ranks


def test_rows_that_are_not_sorted_yet_count_in_a_rank_like_the_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spaces, "LEAST_UNSORTED", 25)
    catalog, items = make_catalog(40), make_items(70)
    space = Space(make_release(items), catalog, LAYOUT.seen_bytes)
    records, chance = make_records(4), np.random.default_rng(3)
    for size, is_sorted in ((40, 40), (60, 40), (70, 70)):
        for item in items[len(catalog) : size]:
            catalog.put(item)
        space.extend()
        mark_seen(records["seen"], np.arange(4), space.slots[chance.integers(size, size=4)])
        targets, allowed = chance.integers(size, size=4), chance.random(size) < 0.9
        profiles = records["profile"].astype(np.float32)
        ranks = unseen_ranks(profiles, records["seen"], targets, allowed, space)
        assert ranks.tolist() == ranks_one_by_one(records, targets, allowed, space)
        assert len(space.rows_by_first_slot()[0]) == is_sorted


def test_a_user_who_saw_nearly_everything_gets_what_is_left() -> None:
    records = make_records(2)
    slots = bloom_slots(CATALOG.keys, LAYOUT.seen_bytes)
    order = np.argsort(-score_all(queries(records, SPACE), SPACE)[0])
    for row in order[:20]:  # more than the 2 k + 4 that are ranked at first
        mark_seen(records["seen"], np.zeros(1, np.intp), slots[row][None])
    ranked = recommend(records, SPACE, EVERYTHING, 3, exclude_seen=True)
    left = [row for row in order.tolist() if not was_seen(records["seen"][:1], slots)[0, row]]
    assert ranked.rows[0].tolist() == left[:3]
    assert (ranked.rows[1] >= 0).all()


def test_seen_items_come_again_where_that_is_wanted() -> None:
    records = make_records(1)
    records["seen"] = 255
    assert recommend(records, SPACE, EVERYTHING, 3, exclude_seen=True).rows.tolist() == [[-1] * 3]
    assert (recommend(records, SPACE, EVERYTHING, 3, exclude_seen=False).rows >= 0).all()


def test_more_may_be_asked_for_than_there_are_items() -> None:
    small = make_catalog(4)
    space = make_space(small)
    records = make_records(2)
    records["release"] = space.key
    ranked = recommend(records, space, np.ones(4, np.bool_), 10, exclude_seen=True)
    assert (np.sort(ranked.rows[:, :4], axis=1) == np.arange(4)).all()
    assert (ranked.rows[:, 4:] == -1).all()


def test_an_empty_catalogue_gives_an_empty_list() -> None:
    nothing = Catalog()
    space = Space(make_release([]), nothing, LAYOUT.seen_bytes)
    records = random_records(LAYOUT, 2)
    ranked = recommend(records, space, np.zeros(0, np.bool_), 3, exclude_seen=True)
    assert ranked.rows.tolist() == [[-1] * 3] * 2


def test_items_without_a_vector_are_never_recommended() -> None:
    partial = Space(make_release(CATALOG.items[:5]), CATALOG, LAYOUT.seen_bytes)
    records = make_records(1)
    records["release"] = partial.key
    ranked = recommend(records, partial, EVERYTHING, 10, exclude_seen=False)
    assert sorted(ranked.rows[0].tolist()) == [-1] * 5 + [0, 1, 2, 3, 4]


def test_a_declared_interest_fades_as_events_arrive_and_counts_only_in_its_space() -> None:
    records = make_records(3)
    records["profile"] = 0.0
    records["interest"] = 1.0
    records["interest_release"][:2] = SPACE.key
    records["interest_release"][2] = 12345
    records["events"] = [0, 1, 0]
    assert queries(records, SPACE)[:, 0].tolist() == [1.0, 0.5, 0.0]
