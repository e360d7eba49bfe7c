"""Probabilities that can be believed, from the fit to the recommendation."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from learner.calibration import Judged, calibrate, fit_platt, reliability
from learner.catalogue import make_catalogue
from learner.evaluation import Model
from learner.sampling import ActionWeights, Segment, to_sequence
from profiles.answers import Recommendation
from profiles.calibration import Calibration
from profiles.evaluation import scores_before
from profiles.layers import sigmoid
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import empty_records
from stream.messages import Cause
from stream.outputs import Recommender
from tests.unit.builders import (
    ACTIONS,
    LAYOUT,
    NOW_S,
    make_catalog,
    make_head,
    make_items,
    make_release,
    make_table,
)

pytestmark = pytest.mark.unit


def drawn(slope: float, intercept: float, seed: int, events: int = 20_000) -> Judged:
    """Events whose verdict follows a known calibration of their score."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(3.0, 2.0, events)
    chance = sigmoid((slope * scores + intercept).astype(np.float32))
    return Judged(scores, rng.random(events) < chance)


def test_the_fit_finds_the_numbers_that_drew_the_verdicts() -> None:
    fitted = fit_platt(drawn(0.7, -1.5, seed=0))

    assert fitted.slope == pytest.approx(0.7, abs=0.05)
    assert fitted.intercept == pytest.approx(-1.5, abs=0.15)


def test_fitted_probabilities_are_calibrated_on_other_events_and_raw_scores_are_not() -> None:
    fitted = fit_platt(drawn(0.7, -1.5, seed=0))

    figures = reliability(drawn(0.7, -1.5, seed=1), fitted)

    assert figures["click_ece"] < 0.02 < 0.1 < figures["click_ece_raw"]
    assert figures["click_brier"] < figures["click_brier_base"]
    assert figures["click_auc"] > 0.75
    events = [value for name, value in figures.items() if name.endswith("_events")]
    assert sum(events) == 2 * 20_000, "every event lies in one bin"


def test_separable_events_give_finite_numbers() -> None:
    scores = np.arange(100.0)

    fitted = fit_platt(Judged(scores, scores > 50))

    assert np.isfinite([fitted.slope, fitted.intercept]).all()
    chance = fitted.probabilities(scores.astype(np.float32))
    assert chance[99] > 0.9 > 0.1 > chance[0]


def test_a_score_that_points_the_wrong_way_leaves_the_base_rate() -> None:
    scores = np.arange(100.0)

    fitted = fit_platt(Judged(scores, scores < 30))

    assert fitted.slope == 0.0
    assert fitted.probabilities(np.array([0.0, 99.0], np.float32)) == pytest.approx(
        [0.3, 0.3], abs=0.02
    )


def some_segment(user: int, rng: np.random.Generator) -> Segment:
    catalogue = make_catalogue(make_items(20))
    size = 12
    return Segment(
        user=user, skipped=0, first_target=4, items=catalogue.keys[rng.integers(20, size=size)],
        ts=np.arange(NOW_S, NOW_S + size * 60.0, 60.0),
        actions=rng.integers(len(ACTIONS), size=size),
        values=np.zeros(size, np.float32), orders=np.arange(size) + 100 * user,
    )  # fmt: skip


def test_only_target_events_count_and_too_few_give_no_calibration() -> None:
    rng = np.random.default_rng(0)
    items = make_items(20)
    catalogue, table = make_catalogue(items), make_table(items)
    order = np.argsort(table.keys)
    model = Model(make_head(), table.vectors[order], table.bias[order])
    actions = ActionWeights.from_settings({"click": 0.5, "hide": -1.0, "like": 1.0})
    many = [some_segment(user, rng) for user in range(40)]

    full = calibrate(model, many[:20], many[20:], catalogue, actions, ())
    few = calibrate(model, many[:1], many[20:], catalogue, actions, ())
    likes = calibrate(model, many[:20], many[20:], catalogue, actions, ("like",))

    assert full.calibration is not None
    assert full.figures["click_events"] == 20 * 8
    assert few.calibration is None
    assert few.figures == {}
    assert likes.figures["click_base_rate"] < full.figures["click_base_rate"]


def test_a_score_before_an_event_knows_nothing_of_it() -> None:
    rng = np.random.default_rng(1)
    items = make_items(20)
    catalogue, table, head = make_catalogue(items), make_table(items), make_head()
    whole = some_segment(1, rng)

    def scores(segment: Segment) -> list[float]:
        sequence = to_sequence(segment, catalogue.rows(segment.items))
        found: list[float] = scores_before(head, table.vectors, table.bias, [sequence])[0].tolist()
        return found

    changed = replace(whole, actions=np.append(whole.actions[:-1], [0]))
    assert scores(changed)[:-1] == scores(whole)[:-1]
    assert scores(changed)[-1] == scores(whole)[-1]


def recommended(calibration: Calibration | None) -> Recommendation:
    catalog = make_catalog()
    release = make_release(catalog.items)
    manifest = msgspec.structs.replace(release.manifest, calibration=calibration)
    space = Space(replace(release, manifest=manifest), catalog, LAYOUT.seen_bytes)
    records = empty_records(LAYOUT, 1)
    maker = Recommender(catalog, ServingSettings())
    cause = Cause("event", "e1", "topic", 0, 1)
    (message,) = maker.for_events(records, ["u1"], [cause], space, NOW_S)
    return msgspec.json.decode(message, type=Recommendation)


def test_recommended_items_carry_a_probability_if_the_release_is_calibrated() -> None:
    calibration = Calibration(0.5, -1.0)

    plain, calibrated = recommended(None), recommended(calibration)

    assert [item.probability for item in plain.items] == [None] * 10
    assert [item.item_id for item in plain.items] == [item.item_id for item in calibrated.items]
    scores = np.array([item.score for item in calibrated.items], np.float32)
    wanted = calibration.probabilities(scores)
    assert [item.probability for item in calibrated.items] == pytest.approx(wanted, abs=1e-3)
