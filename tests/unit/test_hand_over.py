"""A recommendation says when a human should answer, if the domain asks; else nothing changes."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from profiles.answers import Recommendation
from profiles.confidence import Confidence
from profiles.config import load_settings
from profiles.errors import SettingsError
from profiles.manifest import Manifest
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import empty_records
from stream.messages import Cause
from stream.outputs import Recommender
from tests.unit.builders import LAYOUT, NOW_S, make_catalog, make_release

pytestmark = pytest.mark.unit


def recommended(
    below: float, confidence: Confidence | msgspec.UnsetType, *, barred: bool = False
) -> tuple[dict[str, Any], CollectorRegistry]:  # Any: the message as JSON
    """What a user without a history is told, and what was counted."""
    catalog, registry = make_catalog(), CollectorRegistry()
    release = make_release(catalog.items)
    manifest = msgspec.structs.replace(release.manifest, confidence=confidence)
    space = Space(replace(release, manifest=manifest), catalog, LAYOUT.seen_bytes)
    if barred:
        space.known[:] = False
    maker = Recommender(
        catalog, ServingSettings(hand_over_below=below), metrics=WorkerMetrics(registry)
    )
    cause = Cause("event", "e1", "topic", 0, 1)
    (message,) = maker.for_events(empty_records(LAYOUT, 1), ["u1"], [cause], space, NOW_S)
    msgspec.json.decode(message, type=Recommendation)
    return json.loads(message), registry


def counted(registry: CollectorRegistry, reason: str) -> float:
    return registry.get_sample_value("driftline_hand_overs_total", {"reason": reason}) or 0.0


def test_without_the_setting_a_recommendation_is_what_it_was() -> None:
    plain, _ = recommended(0.0, msgspec.UNSET)
    calibrated, registry = recommended(0.0, Confidence(1.0, 1.0, 0.0))
    assert plain == calibrated
    assert not {"confidence", "hand_over"} & set(plain)
    assert counted(registry, "unsure") == 0


def test_a_release_that_cannot_tell_hands_over_and_says_nothing_of_confidence() -> None:
    told, registry = recommended(0.5, msgspec.UNSET)
    assert told["hand_over"] is True
    assert "confidence" not in told
    assert told["items"], "the answers come all the same"
    assert counted(registry, "uncalibrated") == 1


def test_below_the_threshold_it_hands_over_and_at_the_threshold_it_does_not() -> None:
    even = Confidence(0.0, 0.0, 0.0)
    (low, few), (high, none) = recommended(0.51, even), recommended(0.5, even)
    assert (low["confidence"], low["hand_over"]) == (0.5, True)
    assert (high["confidence"], high["hand_over"]) == (0.5, False)
    assert (counted(few, "unsure"), counted(none, "unsure")) == (1, 0)


def test_confidence_follows_the_score_of_the_first_item_and_its_lead() -> None:
    sure = Confidence(0.7, 1.3, -0.2)
    told, _ = recommended(0.5, sure)
    first, second = (item["score"] for item in told["items"][:2])
    expected = 1 / (1 + np.exp(-(0.7 * first + 1.3 * (first - second) - 0.2)))
    assert told["confidence"] == pytest.approx(expected, abs=1e-3)


def test_nothing_to_recommend_is_handed_over() -> None:
    told, registry = recommended(0.01, Confidence(0.0, 0.0, 9.0), barred=True)
    assert (told["items"], told["confidence"], told["hand_over"]) == ([], 0.0, True)
    assert counted(registry, "nothing") == 1


def test_a_list_of_one_has_no_lead_and_a_list_put_in_another_order_a_negative_one() -> None:
    sure = Confidence(0.0, 1.0, 0.0)
    alone, turned, apart = sure.of(
        np.array([[2.0, -np.inf], [1.0, 3.0], [3.0, 1.0]], np.float32)
    ).tolist()
    assert turned < alone == 0.5 < apart
    assert sure.of(np.array([[2.0]], np.float32)).tolist() == [0.5]
    assert sure.of(np.zeros((2, 0), np.float32)).tolist() == [0.0, 0.0]


def test_a_threshold_that_nothing_could_ever_reach_is_refused_with_the_remedy() -> None:
    with pytest.raises(SettingsError, match=r"learner\.judged_conversations"):
        load_settings(serving={"hand_over_below": 0.5})


def test_a_manifest_without_confidence_keeps_the_name_it_had() -> None:
    manifest = make_release(make_catalog().items).manifest
    assert b"confidence" not in manifest.signed_bytes()
    with_one = msgspec.structs.replace(manifest, confidence=Confidence(1.0, 2.0, 3.0))
    again = msgspec.json.decode(with_one.signed_bytes(), type=Manifest)
    assert again.confidence == Confidence(1.0, 2.0, 3.0)
