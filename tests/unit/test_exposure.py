"""What is shown is counted over a sliding window, and no item is in more of it than the cap."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from profiles.answers import Recommendation
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.state import empty_records
from profiles.wire import decode_json
from stream.exposure import LEAST_OUTPUTS, Exposure
from stream.messages import Cause
from stream.outputs import Recommender
from tests.unit.builders import LAYOUT, make_catalog, make_space, unit_rows

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
