"""One user through the releases: what the page *User* shows is the workers' own arithmetic."""

from __future__ import annotations

import numpy as np
import pytest

from profiles.catalog import Catalog
from profiles.config import Settings
from profiles.errors import ReleaseError
from profiles.layers import Floats
from profiles.notices import PolicyOrder, ReleaseNotice
from profiles.rebuild import rebuild
from profiles.release import Release
from profiles.scoring import queries, recommend, score_all
from profiles.settings.learning import ModelSettings
from profiles.space import Space
from profiles.state import SAID, RecordLayout, Records, empty_records, encode_records
from profiles.topics import Topics
from profiles.wire import encode, key64
from stream.api.read_model import ReadModel
from stream.console.insight import NEAR, Insight
from stream.console.item_map import project
from stream.console.sessions import SESSION_GAP_S, session_length
from tests.unit.builders import ACTIONS, DIM, make_items, make_record, make_release

pytestmark = pytest.mark.unit

SETTINGS = Settings(model=ModelSettings(dim=DIM, layers=1), actions=dict.fromkeys(ACTIONS, 1.0))
LAYOUT = RecordLayout.of(SETTINGS)
TOPICS = Topics.under()
ITEMS = make_items(120)
RELEASES = {release.release_id: release for release in (make_release(ITEMS, n) for n in (1, 2))}
FIRST, SECOND = RELEASES
EARLIER, SESSION = [3, 5, 8, 13], [21, 34]


def stored() -> Records:
    """Four events, an hour's silence, two more."""
    records = empty_records(LAYOUT, 1)
    times = [60.0 * n for n in range(4)] + [180.0 + 2 * SESSION_GAP_S + 60.0 * n for n in range(2)]
    for slot, (number, ts) in enumerate(zip(EARLIER + SESSION, times, strict=True)):
        records["history"][0, slot] = (key64(f"i{number}"), ts, 2, 0.0)
    records["events"] = 6
    records["release"] = key64(SECOND)
    return records


def insight_of(records: Records, *served: str) -> tuple[Insight, ReadModel]:
    model = ReadModel(SETTINGS)
    insight = Insight(SETTINGS, model, opened)
    items = [make_record(0, encode(item), item.item_id) for item in ITEMS]
    for taker in (model, insight):
        taker.take(TOPICS.items, items)
    notices = [
        ReleaseNotice(name, "serving", at, "s", decided_at=float(at))
        for at, name in enumerate(served)
    ]
    model.take(TOPICS.releases, [make_record(0, encode(n), n.release_id) for n in notices])
    payload = encode_records(LAYOUT, records)[0]
    model.take(TOPICS.profiles, [make_record(0, payload, "ann")])
    return insight, model


def opened(release_id: str) -> Release:
    if release_id not in RELEASES:
        raise ReleaseError(f"{release_id} is gone")
    return RELEASES[release_id]


def expected(release_id: str, records: Records) -> tuple[list[str], Floats]:
    """The list that a worker would make in a release, and every score."""
    catalog = Catalog()
    for item in ITEMS:
        catalog.put(item)
    space = Space(RELEASES[release_id], catalog, LAYOUT.seen_bytes)
    made = records.copy()
    rebuild(made, np.arange(1), space, catalog)
    ranked = recommend(made, space, catalog.available & space.known, SETTINGS.serving.k, True)
    rows = ranked.rows[0].tolist()
    return [ITEMS[row].item_id for row in rows], score_all(queries(made, space), space)[0]


async def test_a_swap_is_shown_as_both_releases_read_the_same_events() -> None:
    insight, _ = insight_of(stored(), FIRST, SECOND)
    view = await insight.look("ann")
    assert view is not None
    assert view.swap is not None
    assert (view.swap.before.release_id, view.swap.after.release_id) == (FIRST, SECOND)
    assert view.swap.decided_at == 1.0
    for side in (view.swap.before, view.swap.after):
        listed, _ = expected(side.release_id, stored())
        assert [item.item_id for item in side.items] == listed
    assert view.swap.before.items != view.swap.after.items


async def test_session_and_earlier_events_sum_to_the_score() -> None:
    insight, _ = insight_of(stored(), FIRST, SECOND)
    view = await insight.look("ann")
    assert view is not None
    found = view.sessions
    assert (found.session_events, found.earlier_events) == (len(SESSION), len(EARLIER))
    _, scores = expected(SECOND, stored())
    for item in found.items:
        assert item.score == pytest.approx(float(scores[int(item.item_id[1:])]), abs=1e-3)
        assert item.base + item.session + item.earlier == pytest.approx(item.score, abs=1e-3)
    assert found.session_weight is not None
    assert 0 < found.session_weight < 1
    assert await insight.look("nobody") is None


async def test_one_session_leaves_nothing_to_what_came_before() -> None:
    records = stored()
    records["history"]["ts"][0, :6] = 60.0 * np.arange(6)
    view = await insight_of(records, SECOND)[0].look("ann")
    assert view is not None
    assert (view.sessions.earlier_events, view.sessions.session_weight) == (0, 1.0)
    assert (view.swap, view.swap_missing) == (None, "")


async def test_the_map_has_the_users_items_what_she_is_recommended_and_its_neighbours() -> None:
    view = await insight_of(stored(), FIRST, SECOND)[0].look("ann")
    assert view is not None
    kinds = {
        kind: [p for p in view.map.points if p.kind == kind]
        for kind in ("history", "recommended", "near")
    }
    assert {p.item_id for p in kinds["history"]} == {f"i{n}" for n in EARLIER + SESSION}
    assert {p.item_id for p in kinds["history"] if p.in_session} == {f"i{n}" for n in SESSION}
    assert {p.item_id for p in kinds["recommended"]} == set(expected(SECOND, stored())[0])
    assert len(kinds["near"]) == NEAR
    assert all(max(abs(p.x), abs(p.y)) <= 1 for p in view.map.points)
    assert 0 < view.map.explained < 1
    assert view.map.left_out == 0


async def test_words_and_items_without_a_vector_are_left_out_not_guessed() -> None:
    records = stored()
    records["history"]["item"][0, 0] = key64("newer than the release")
    records["history"]["action"][0, 1] |= SAID
    view = await insight_of(records, SECOND)[0].look("ann")
    assert view is not None
    shown = {p.item_id for p in view.map.points if p.kind == "history"}
    assert shown == {f"i{n}" for n in (EARLIER + SESSION)[2:]}
    assert view.map.left_out == 1


async def test_a_blocked_item_is_not_listed_and_a_lost_release_is_told() -> None:
    insight, model = insight_of(stored(), "gone", SECOND)
    first = expected(SECOND, stored())[0][0]
    order = PolicyOrder("item", first, True)
    model.take(TOPICS.policies, [make_record(0, encode(order), order.name)])
    view = await insight.look("ann")
    assert view is not None
    assert (view.swap, view.swap_missing) == (None, "gone is gone")
    assert first not in {p.item_id for p in view.map.points if p.kind != "history"}
    with pytest.raises(ReleaseError, match="no release serves"):
        await insight_of(stored())[0].look("ann")


def test_a_session_ends_where_the_gap_is_too_long() -> None:
    assert session_length([0.0, SESSION_GAP_S, 2 * SESSION_GAP_S]) == 3
    assert session_length([0.0, SESSION_GAP_S + 1, 2 * SESSION_GAP_S]) == 2


def test_the_plane_keeps_what_is_near_near() -> None:
    rng = np.random.default_rng(5)
    centres = rng.normal(size=(3, 16)) * 3
    cloud = (centres.repeat(20, axis=0) + rng.normal(size=(60, 16)) * 0.2).astype(np.float32)
    places, explained = project(cloud)
    assert explained > 0.9
    own = places.reshape(3, 20, 2)
    spread = np.linalg.norm(own - own.mean(axis=1, keepdims=True), axis=2).max()
    apart = np.linalg.norm(own.mean(axis=1)[:, None] - own.mean(axis=1)[None], axis=2)
    assert apart[np.triu_indices(3, 1)].min() > 2 * spread
    again, _ = project(cloud)
    assert np.array_equal(places, again)
    assert project(cloud[:1])[0].tolist() == [[0.0, 0.0]]
