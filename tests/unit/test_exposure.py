"""What is shown is counted over a sliding window, and no item is in more of it than the cap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from profiles.answers import Recommendation
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.state import empty_records
from profiles.wire import decode_json
from stream.exposure import LEAST_OUTPUTS, Exposure, gini
from stream.messages import Cause
from stream.outputs import Recommender
from tests.unit.builders import LAYOUT, make_catalog, make_items, make_space, unit_rows

pytestmark = pytest.mark.unit

ITEMS = 30


def settings(**changes: object) -> ServingSettings:
    return ServingSettings.model_validate({"k": 5, "exposure_window_s": 80.0, **changes})


def value(metrics: WorkerMetrics, name: str, **labels: str) -> float:
    found = metrics.registry.get_sample_value(f"driftline_exposure_{name}", labels)
    assert found is not None
    return found


def test_figures_tell_of_the_window_alone() -> None:
    catalog, metrics = make_catalog(ITEMS), WorkerMetrics(CollectorRegistry())
    tag = catalog.items[0].tags[0]
    tagged = np.flatnonzero(catalog.with_tags([tag]))
    exposure = Exposure(catalog, settings(exposure_tags=[tag]), metrics)
    space = make_space(catalog)
    one = np.full((LEAST_OUTPUTS, 1), tagged[0])
    exposure.note(one, space, 1000.0)
    assert value(metrics, "coverage") == 1 / ITEMS
    assert value(metrics, "gini") == pytest.approx(1 - 1 / ITEMS)
    assert value(metrics, "top_item") == 1.0
    assert value(metrics, "share", tag=tag) == 1.0
    assert value(metrics, "catalogue_share", tag=tag) == len(tagged) / ITEMS

    everything = np.tile(np.arange(ITEMS), (LEAST_OUTPUTS, 1))
    exposure.note(everything, space, 1000.0 + 2 * 80.0)  # the first have left the window
    assert value(metrics, "coverage") == 1.0
    assert value(metrics, "gini") == pytest.approx(0.0)
    assert value(metrics, "popularity") == pytest.approx(0.5)
    assert value(metrics, "share", tag=tag) == pytest.approx(len(tagged) / ITEMS)


@pytest.mark.parametrize("cap", [1.0, 0.4])
def test_no_item_is_in_more_recommendations_of_the_window_than_the_cap(cap: float) -> None:
    catalog, metrics = make_catalog(ITEMS), WorkerMetrics(CollectorRegistry())
    serving = settings(exposure_cap=cap, exclude_seen=False)
    recommender = Recommender(catalog, serving, exposure=Exposure(catalog, serving, metrics))
    space = make_space(catalog)
    # Everybody is alike, so that without a cap everybody gets the same.
    records = empty_records(LAYOUT, 10)
    records["profile"] = unit_rows(1, LAYOUT.dim)
    records["release"] = space.key
    shown: list[set[str]] = []
    for turn in range(200):
        causes = [Cause("event", "e", "t", 0, turn)] * len(records)
        payloads = recommender.for_events(
            records, ["u"] * len(records), causes, space, 1000.0 + turn * 0.1
        )
        answers = [decode_json(payload, Recommendation) for payload in payloads]
        shown += [{item.item_id for item in answer.items} for answer in answers]
    assert all(len(items) == serving.k for items in shown)
    most = max(sum(item.item_id in items for items in shown) for item in catalog.items)
    if cap == 1.0:
        assert most == len(shown)
    else:
        # Ahead by one batch, and by what was shown before shares were told.
        assert most <= cap * len(shown) + len(records) + LEAST_OUTPUTS


def test_an_item_that_comes_later_is_counted_and_a_clock_set_back_harms_nothing() -> None:
    catalog, metrics = make_catalog(3), WorkerMetrics(CollectorRegistry())
    exposure, space = Exposure(catalog, settings(exposure_cap=0.5), metrics), make_space(catalog)
    exposure.note(np.zeros((LEAST_OUTPUTS, 1), np.intp), space, 1000.0)
    catalog.put(make_catalog(4).items[3])
    exposure.note(np.full((LEAST_OUTPUTS, 1), 3), space, 10.0)
    assert exposure.bar_capped(np.ones(4, bool)).tolist() == [False, True, True, False]
    assert exposure.bar_capped(np.ones(5, bool)).tolist() == [False, True, True, False, True]


@given(st.lists(st.integers(0, 9) | st.integers(65_000, 70_000), min_size=1, max_size=40))
def test_unevenness_is_half_the_relative_mean_difference(counts: list[int]) -> None:
    shown = np.array(counts)
    differences = np.abs(shown[:, None] - shown[None]).mean()
    expected = differences / (2 * shown.mean()) if shown.any() else 0.0
    assert gini(shown) == pytest.approx(expected)


def test_popularity_is_the_share_of_the_catalogue_that_fewer_events_stand_behind() -> None:
    catalog = make_catalog(200)
    space, metrics = make_space(catalog), WorkerMetrics(CollectorRegistry())
    shown = np.array([3, 3, 17, 140])
    Exposure(catalog, settings(), metrics).note(np.tile(shown, (LEAST_OUTPUTS, 1)), space, 1000.0)
    events = space.counts
    shares = [(events < x).mean() + (events == x).mean() / 2 for x in events[shown]]
    assert value(metrics, "popularity") == pytest.approx(np.mean(shares))


def test_counts_have_room_for_items_that_come_one_by_one() -> None:
    catalog, metrics = make_catalog(1), WorkerMetrics(CollectorRegistry())
    exposure, space = Exposure(catalog, settings(), metrics), make_space(catalog)
    moved, rooms = 0, {1}
    for size in range(2, 500):
        catalog.put(make_items(size)[-1])
        exposure.note(np.array([[size - 1]]), space, 1000.0)
        moved += len(exposure._totals) not in rooms
        rooms.add(len(exposure._totals))
        assert exposure._totals[size - 1] == 1
    assert moved < 12
