"""A request that names items is answered with how likely each is, by one release; nothing shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest

from profiles.answers import PREDICTION, Recommendation, Request
from profiles.calibration import Calibration
from profiles.items import Item
from profiles.rules import FilterRules, Rules
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.store import PartitionStore
from profiles.wire import decode_json
from stream.arms import Canary
from stream.event_path import EventPath
from stream.messages import Cause
from stream.source import Source
from tests.unit.builders import LAYOUT, NOW_S, at_once, make_path, make_release, make_space

pytestmark = pytest.mark.unit

CALIBRATION = Calibration(0.8, -0.5)


@pytest.fixture
def source(tmp_path: Path) -> Iterator[Source]:
    store = PartitionStore(tmp_path / "partition")
    yield Source(0, store, "events", "events-id")
    store.close()


@pytest.fixture
def path() -> EventPath:
    """Thirty items, and a release whose probabilities are calibrated."""
    made = make_path()
    made.space = calibrated(made, seed=0)
    return made


def calibrated(path: EventPath, seed: int) -> Space:
    release = make_release(path.catalog.items, seed)
    manifest = msgspec.structs.replace(release.manifest, calibration=CALIBRATION)
    return Space(replace(release, manifest=manifest), path.catalog, LAYOUT.seen_bytes)


def ask(path: EventPath, source: Source, *users: str, **request: object) -> list[Recommendation]:
    """One request of each user, all in one chunk."""
    requests = []
    for user in users:
        asked = Request("r1", user, **request)  # type: ignore[arg-type]  # the test's own words
        kind = PREDICTION if asked.items else "request"
        requests.append((user.encode(), asked, Cause(kind, "r1", "requests-id", 0, 3)))
    answers = at_once(path.answer(source, requests, NOW_S))
    return [decode_json(answer.value or b"", Recommendation) for answer in answers]


def counted(path: EventPath, name: str, **labels: str) -> float:
    return path._metrics.registry.get_sample_value(name, labels) or 0.0


def test_named_items_come_back_with_their_probability_the_likeliest_first(
    path: EventPath, source: Source
) -> None:
    (everything,) = ask(path, source, "ann", k=30)
    (told,) = ask(path, source, "ann", items=["i3", "i9", "i3", "i21"])

    chances = {item.item_id: item.probability for item in everything.items}
    found = [item.probability or 0.0 for item in told.items]
    assert {item.item_id for item in told.items} == {"i3", "i9", "i21"}
    assert found == sorted(found, reverse=True)
    assert [chances[item.item_id] for item in told.items] == pytest.approx(found, abs=1e-4)
    scores = np.array([item.score for item in told.items], np.float32)
    assert found == pytest.approx(CALIBRATION.probabilities(scores), abs=1e-3)
    assert (told.cause, told.cause_id) == (PREDICTION, "r1")
    assert told.release_id == told.profile_release_id == path.serving.release_id
    assert counted(path, "driftline_predictions_total", calibrated="yes") == 1.0


def test_unknown_and_blocked_items_are_missing_and_sold_out_ones_are_not(
    path: EventPath, source: Source
) -> None:
    sold_out = Item("i5", "Title 5", tags=["song"], available=False)
    path.catalog.put(sold_out)
    path.catalog.block(frozenset({"i7"}), frozenset())
    (told,) = ask(path, source, "ann", items=["i5", "i7", "never-heard-of"])
    assert [item.item_id for item in told.items] == ["i5"]
    (nothing,) = ask(path, source, "ann", items=["never-heard-of"])
    assert nothing.items == []


def test_rules_and_filters_say_what_is_shown_and_not_how_likely_it_is(
    path: EventPath, source: Source
) -> None:
    (free,) = ask(path, source, "ann", items=["i1", "i2"])
    path.rule(Rules(filters=FilterRules(no_tags=("song",))))
    (ruled,) = ask(path, source, "ann", items=["i1", "i2"])
    assert ruled.items == free.items
    assert len(ruled.items) == 2


def test_a_prediction_is_not_counted_as_exposure(path: EventPath, source: Source) -> None:
    exposure = path._recommender.exposure
    assert exposure is not None
    ask(path, source, "ann", items=["i1"])
    assert exposure._totals.sum() == 0
    ask(path, source, "ann", k=1)
    assert exposure._totals.sum() == 1


def test_a_prediction_is_not_handed_over_to_a_human(path: EventPath, source: Source) -> None:
    settings = ServingSettings(k=5, hand_over_below=0.99)
    path._recommender = replace(path._recommender, settings=settings)
    (predicted,) = ask(path, source, "ann", items=["i1"])
    assert predicted.hand_over is predicted.confidence is msgspec.UNSET
    (recommended,) = ask(path, source, "ann", k=1)
    assert recommended.hand_over is True


def test_without_calibration_there_is_a_score_and_no_probability(
    path: EventPath, source: Source
) -> None:
    path.space = make_space(path.catalog)
    (told,) = ask(path, source, "ann", items=["i1", "i2"])
    assert [item.probability for item in told.items] == [None, None]
    assert counted(path, "driftline_predictions_total", calibrated="no") == 1.0
    assert counted(path, "driftline_predictions_total", calibrated="yes") == 0.0


def test_beside_a_canary_every_answer_is_of_one_release_and_its_calibration(
    path: EventPath, source: Source
) -> None:
    canary = make_space(path.catalog, seed=7)  # of another release, which gives no probabilities
    path.canary = Canary(canary, 0.5)
    users = [f"user-{number}" for number in range(24)]
    by_release: dict[str, list[bool]] = {}
    for told in ask(path, source, *users, items=["i1", "i2", "i3"]):
        has = {item.probability is not None for item in told.items}
        assert len(has) == 1
        assert told.profile_release_id == told.release_id
        by_release.setdefault(told.release_id, []).append(has.pop())
    assert set(by_release) == {path.serving.release_id, canary.release_id}
    assert all(by_release[path.serving.release_id])
    assert not any(by_release[canary.release_id])
