"""Reasons name the events that carry an item: exactly on a small model, faithfully on real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.bench_continual import Plan
from benchmarks.bench_reasons import judge
from profiles.applying import apply_batch
from profiles.catalog import Catalog
from profiles.history import read_history
from profiles.layers import Floats
from profiles.reasons import WINDOW, event_shares
from profiles.scoring import Ranked, recommend
from profiles.space import Space
from profiles.state import RecordLayout, Records, empty_records
from profiles.updater import Steps, advance_all, start_state
from tests.unit.builders import (
    ACTIONS,
    TOPIC_KEY,
    make_batch,
    make_catalog,
    make_event,
    make_release,
    make_space,
    random_records,
)

pytestmark = pytest.mark.unit

CATALOG = make_catalog(60)
SPACE = make_space(CATALOG)
LAYOUT = RecordLayout(dim=8, layers=1, history=20, recent_ids=4, seen_bytes=32)
EVERYTHING = np.ones(60, np.bool_)


def users_with(*counts: int) -> Records:
    """Users who did so many things; every event another item."""
    chance = np.random.default_rng(5)
    records = empty_records(LAYOUT, len(counts))
    events = [
        (user, at, make_event(f"u{user}", at, f"i{at}", action=str(chance.choice(ACTIONS))))
        for user, count in enumerate(counts)
        for at in range(count)
    ]
    apply_batch(records, make_batch(CATALOG, events), SPACE, CATALOG, TOPIC_KEY, 0.0)
    return records


def falls_when_removed(record: Records, items: list[int]) -> Floats:
    """How far each item's score falls without each event, the recurrence walked once per event.

    The gap before the next event stays as it was.  Shapes: -> (K, events).
    """
    history = read_history(record)
    count = history.items.shape[1]
    rows = CATALOG.rows_of(history.items)
    steps = Steps(SPACE.vectors[rows], history.actions, history.values, history.gaps_s)

    def profile(mask: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Floats:
        _, trail = advance_all(SPACE.head, start_state(SPACE.head, 1), steps, mask)
        last: Floats = trail[0, np.flatnonzero(mask[0])[-1]]
        return last

    whole = profile(history.mask)
    falls = []
    for gone in range(count):
        mask = history.mask.copy()
        mask[0, gone] = False
        falls.append(SPACE.vectors[items] @ (whole - profile(mask)))
    return np.array(falls).T


@pytest.mark.parametrize("count", [2, 5, WINDOW])
def test_a_share_is_what_the_score_loses_without_the_event(count: int) -> None:
    record = users_with(count)
    ranked = recommend(record, SPACE, EVERYTHING, 5, exclude_seen=True)
    past, shares = event_shares(record, ranked, SPACE, CATALOG, count)

    falls = falls_when_removed(record, ranked.rows[0].tolist())
    expected = np.maximum(falls, 0.0)
    expected /= np.maximum(expected.sum(axis=1, keepdims=True), 1e-9)
    found = np.zeros_like(expected)
    for item, event in np.ndindex(*past[0].shape):
        found[item, past[0, item, event]] += shares[0, item, event]  # item i was event i
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_shares_come_best_first_and_add_up_to_one_over_the_newest_events() -> None:
    records = users_with(3, WINDOW + 4, 1)
    ranked = recommend(records, SPACE, EVERYTHING, 5, exclude_seen=False)
    past, shares = event_shares(records, ranked, SPACE, CATALOG, WINDOW)
    assert (np.diff(shares, axis=2) <= 0).all()
    total = shares.sum(axis=2)
    assert np.isclose(total, 1.0, atol=1e-4).sum() + (total == 0).sum() == total.size
    assert (past[1][shares[1] > 0] >= 4).all(), "older than the window"


def test_one_users_reasons_do_not_depend_on_who_else_is_asked_for() -> None:
    records = users_with(3, WINDOW + 4, 1)
    ranked = recommend(records, SPACE, EVERYTHING, 5, exclude_seen=True)
    together = event_shares(records, ranked, SPACE, CATALOG, 2)
    for user in range(3):
        mine = slice(user, user + 1)
        alone = event_shares(
            records[mine], Ranked(ranked.rows[mine], ranked.scores[mine]), SPACE, CATALOG, 2
        )
        count = alone[1].shape[2]
        np.testing.assert_allclose(together[1][mine][:, :, :count], alone[1], atol=1e-5)


def test_events_of_items_that_the_catalogue_lost_are_never_named() -> None:
    record = users_with(6)
    fewer = Catalog()
    for item in CATALOG.items[:3] + CATALOG.items[10:]:
        fewer.put(item)
    space = make_space(fewer)
    ranked = recommend(record, space, np.ones(len(fewer), np.bool_), 5, exclude_seen=False)
    past, shares = event_shares(record, ranked, space, fewer, 6)
    assert (past[shares > 0] < 3).all()


def test_without_events_or_without_items_nothing_is_named() -> None:
    nobody = empty_records(LAYOUT, 2)
    ranked = recommend(nobody, SPACE, EVERYTHING, 3, exclude_seen=False)
    assert event_shares(nobody, ranked, SPACE, CATALOG, 2)[1].shape == (2, 3, 0)

    nothing = Catalog()
    space = Space(make_release([]), nothing, LAYOUT.seen_bytes)
    records = random_records(LAYOUT, 2)
    ranked = recommend(records, space, np.zeros(0, np.bool_), 3, exclude_seen=True)
    assert event_shares(records, ranked, space, nothing, 2)[1].shape == (2, 3, 0)


def test_on_movielens_removing_what_is_named_costs_an_item_more_than_removing_others(
    tmp_path: Path, tiny_language_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release trained on real events; its texts are read by a tiny encoder, for speed."""
    monkeypatch.setenv("DRIFTLINE_MODEL__BASE", str(tiny_language_model))
    plan = Plan(
        data="movielens", path=None, begin=0.8, end=0.9, blocks=1, held_share=0.0,
        lora_steps=0, smoke=True, runs=tmp_path,
    )  # fmt: skip
    workshop, timeline = plan.prepare(7)
    release = workshop.base_release(timeline)
    found = judge(release, workshop.settings, timeline, users=25, reasons=2, seed=7)
    assert found["recommended_items"] == 250
    assert found["event_shares"] >= 0.95, found
