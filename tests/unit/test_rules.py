"""Rules filter, vary and freshen lists; scores stay the model's; a bad file never takes effect."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from profiles.answers import Filters, Recommendation, Request
from profiles.catalog import Catalog
from profiles.errors import SettingsError
from profiles.items import Item
from profiles.metrics import WorkerMetrics
from profiles.rules import Rules, Ruling, read_rules, rerank
from profiles.scoring import Ranked, queries, recommend, score_all
from profiles.settings.serving import ServingSettings
from profiles.state import empty_records
from stream.event_path import EventPath
from stream.messages import Cause
from stream.outputs import Recommender
from stream.rules_feed import RulesFeed
from stream.state_thread import StateThread
from tests.unit.builders import ACTIONS, LAYOUT, NOW_S, make_catalog, make_items, make_space

pytestmark = pytest.mark.unit

WEEK_S = 7 * 86_400.0


def rules(**sections: dict[str, object]) -> Rules:
    return Rules.model_validate(sections)


def test_the_documented_example_is_a_valid_file() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "rules.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    told = read_rules(example, "rules.md")
    assert told.filters.no_tags == ("adult",)
    assert (told.diversity.strength, told.freshness.boost) == (0.3, 0.5)


def test_every_bad_value_of_a_file_is_named() -> None:
    with pytest.raises(SettingsError) as caught:
        read_rules("[diversity]\nstrength = 2\n[freshness]\nhalflife = 3\n", "r.toml")
    assert "diversity.strength" in str(caught.value)
    assert "freshness.halflife" in str(caught.value)
    with pytest.raises(SettingsError, match="not TOML"):
        read_rules("strength =", "r.toml")


def test_filters_follow_the_catalogue_as_it_changes() -> None:
    catalog = make_catalog(6)  # even ones are tales, odd ones songs
    ruling = Ruling(rules(filters={"no_tags": ["tale"], "exclude": ["i1", "gone"]}), catalog)
    assert np.flatnonzero(ruling.allowed()).tolist() == [3, 5]
    catalog.put(Item("i2", "Title 2", tags=["song"]))
    assert np.flatnonzero(ruling.allowed()).tolist() == [2, 3, 5]
    assert Ruling(rules(filters={"any_tags": ["tale"]}), catalog).allowed().sum() == 2


def test_without_strength_and_boost_the_order_stays_the_scores() -> None:
    pool = Ranked(np.array([[4, 2, 1, -1]]), np.array([[3.0, 2.0, 1.0, -np.inf]], np.float32))
    ranked, places = rerank(pool, 4, 0.0, None, np.eye(5, dtype=np.float32))
    assert ranked.rows.tolist() == [[4, 2, 1, -1]]
    assert places.tolist() == [[0, 1, 2, 3]]


def test_diversity_takes_an_unlike_item_before_a_better_twin() -> None:
    vectors = np.array([[1, 0], [1, 0], [0, 1]], np.float32)
    pool = Ranked(np.array([[0, 1, 2]]), np.array([[3.0, 2.9, 1.0]], np.float32))
    assert rerank(pool, 2, 0.0, None, vectors)[0].rows.tolist() == [[0, 1]]
    varied, places = rerank(pool, 2, 0.6, None, vectors)
    assert varied.rows.tolist() == [[0, 2]]
    assert varied.scores.tolist() == [[3.0, 1.0]]
    assert places.tolist() == [[0, 2]]


def test_likeness_within_lists_falls_as_strength_rises() -> None:
    catalog = make_catalog(200)
    space = make_space(catalog)
    records = empty_records(LAYOUT, 8)
    records["profile"] = np.random.default_rng(1).normal(size=(8, LAYOUT.dim))
    records["release"] = space.key
    pool = recommend(records, space, np.ones(200, np.bool_), 50, exclude_seen=False)

    def likeness(strength: float) -> float:
        listed = space.vectors[rerank(pool, 10, strength, None, space.vectors)[0].rows]
        unit = listed / np.linalg.norm(listed, axis=2, keepdims=True)
        return float(np.matmul(unit, unit.mT).mean())

    values = [likeness(strength) for strength in (0.0, 0.3, 0.6, 0.9)]
    assert values == sorted(values, reverse=True)
    assert values[0] > values[-1] + 0.05


def test_a_new_item_is_boosted_by_half_a_half_life_later_and_an_undated_one_not() -> None:
    catalog = Catalog()
    for name, at in (("new", NOW_S), ("week", NOW_S - WEEK_S), ("undated", None)):
        catalog.put(Item(name, name, attributes={} if at is None else {"published_at": at}))
    ruling = Ruling(rules(freshness={"boost": 2.0, "half_life_s": WEEK_S}), catalog)
    assert ruling.boosts(np.arange(3), NOW_S).tolist() == [2.0, 1.0, 0.0]


def test_what_comes_or_changes_later_is_boosted_as_if_it_had_always_been_there() -> None:
    catalog, fresh = Catalog(), rules(freshness={"boost": 2.0, "half_life_s": WEEK_S})
    ruling = Ruling(fresh, catalog)
    for n in range(40):
        catalog.put(Item(f"i{n}", attributes={"published_at": NOW_S - n * WEEK_S / 3}))
        catalog.put(Item(f"i{n // 2}", attributes={"published_at": NOW_S - n * WEEK_S / 5}))
        rows = np.arange(len(catalog))
        expected = Ruling(fresh, catalog).boosts(rows, NOW_S)
        np.testing.assert_array_equal(ruling.boosts(rows, NOW_S), expected)


def test_recommendations_under_rules_carry_the_models_scores_and_say_their_rank() -> None:
    catalog = make_catalog(60)
    space = make_space(catalog)
    record = empty_records(LAYOUT, 1)
    record["profile"] = np.random.default_rng(3).normal(size=(1, LAYOUT.dim))
    record["release"] = space.key
    told = rules(filters={"no_tags": ["tale"]}, diversity={"strength": 0.7, "pool": 20})
    maker = Recommender(catalog, ServingSettings(k=5), Ruling(told, catalog))
    (payload,) = maker.for_events(record, ["u"], [Cause("event", "e", "t", 0, 1)], space, NOW_S)

    listed = msgspec.json.decode(payload, type=Recommendation).items
    assert len(listed) == 5
    assert all("song" in catalog.items[catalog.rows[item.item_id]].tags for item in listed)
    scores = score_all(queries(record, space), space)[0]
    for item in listed:
        assert item.score == pytest.approx(float(scores[catalog.rows[item.item_id]]), abs=1e-4)
    assert listed[0].rank == 0
    assert [item.score for item in listed] != sorted((i.score for i in listed), reverse=True)
    by_score = sorted(listed, key=lambda item: -item.score)
    assert [item.rank for item in by_score] == sorted(item.rank for item in listed)


def test_a_request_may_ask_for_diversity_where_there_is_no_file() -> None:
    catalog = make_catalog(60)
    space = make_space(catalog)
    record = empty_records(LAYOUT, 1)
    record["profile"] = 1.0
    record["release"] = space.key
    maker = Recommender(catalog, ServingSettings())
    cause = Cause("request", "r", "t", 0, 1)

    def asked(diversity: float | None) -> bytes:
        request = Request("r", "u", 5, Filters(diversity=diversity))
        return maker.for_request(record, request, cause, space, NOW_S)

    assert asked(None) == asked(0.0)
    assert asked(0.8) != asked(None)


def test_a_request_may_ask_for_freshness_in_place_of_what_the_rules_say() -> None:
    catalog = Catalog()
    for number, item in enumerate(make_items(60)):
        published = NOW_S if number == 59 else NOW_S - 50 * WEEK_S
        catalog.put(msgspec.structs.replace(item, attributes={"published_at": published}))
    space = make_space(catalog)
    record = empty_records(LAYOUT, 1)
    record["profile"] = 1.0
    record["release"] = space.key
    cause = Cause("request", "r", "t", 0, 1)

    def first(freshness: float | None, ruling: Ruling | None = None) -> str:
        maker = Recommender(catalog, ServingSettings(), ruling)
        request = Request("r", "u", 5, Filters(freshness=freshness, exclude_seen=False))
        payload = maker.for_request(record, request, cause, space, NOW_S)
        return msgspec.json.decode(payload, type=Recommendation).items[0].item_id

    boosting = Ruling(rules(freshness={"boost": 100.0}, diversity={"pool": 60}), catalog)
    wide = Ruling(rules(diversity={"pool": 60}), catalog)
    assert first(None) != "i59"
    assert first(100.0, wide) == "i59"
    assert first(None, boosting) == "i59"
    assert first(0.0, boosting) == first(None)


def test_what_is_sold_out_is_listed_only_for_who_asks_and_what_is_blocked_for_nobody() -> None:
    catalog = make_catalog(4)
    space = make_space(catalog)
    catalog.put(msgspec.structs.replace(catalog.items[1], available=False))
    catalog.put(msgspec.structs.replace(catalog.items[2], available=False))
    catalog.block(frozenset({"i2"}), frozenset())
    catalog.withdraw("i3")
    maker = Recommender(catalog, ServingSettings())

    def left(unavailable: bool = False) -> list[int]:
        request = Request("r", "u", 5, Filters(unavailable=unavailable))
        return np.flatnonzero(maker.allowed(request, space)).tolist()

    assert left() == [0]
    assert left(unavailable=True) == [0, 1]
    catalog.block(frozenset(), frozenset())
    assert left(unavailable=True) == [0, 1, 2]


async def test_a_changed_file_is_taken_and_a_bad_one_leaves_the_last_good_one(
    tmp_path: Path,
) -> None:
    file = tmp_path / "rules.toml"
    file.write_text('[filters]\nno_tags = ["tale"]\n')
    catalog = Catalog()
    for item in make_items(4):
        catalog.put(item)
    metrics, state = WorkerMetrics(CollectorRegistry()), StateThread()
    codes = {name: at for at, name in enumerate(ACTIONS)}
    path = EventPath(LAYOUT, ServingSettings(), codes, catalog, metrics)
    try:
        feed = RulesFeed(file, path, state, metrics)

        def in_force() -> tuple[str, ...]:
            ruling = path._recommender.ruling
            assert ruling is not None
            return ruling.rules.filters.no_tags

        assert in_force() == ("tale",)
        file.write_text('[filters]\nno_tags = ["song"]\n')
        await feed.look()
        assert in_force() == ("song",)
        file.write_text("[filters]\nno_tag = 1\n")
        await feed.look()
        await feed.look()
        assert in_force() == ("song",)
        counted = metrics.registry.get_sample_value
        assert counted("driftline_rules_loads_total", {"outcome": "refused"}) == 1
        assert counted("driftline_rules_loads_total", {"outcome": "taken"}) == 1
    finally:
        state.close()


def test_a_worker_does_not_start_with_rules_it_cannot_read(tmp_path: Path) -> None:
    metrics, state = WorkerMetrics(CollectorRegistry()), StateThread()
    path = EventPath(LAYOUT, ServingSettings(), {}, Catalog(), metrics)
    try:
        with pytest.raises(SettingsError, match=r"serving\.rules"):
            RulesFeed(tmp_path / "none.toml", path, state, metrics)
    finally:
        state.close()
