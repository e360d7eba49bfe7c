"""What makes a learning round due."""

from __future__ import annotations

import numpy as np

from learner.drift import DriftSensor, Progress, due
from profiles.settings.learning import LearnerSettings

SETTINGS = LearnerSettings(min_events=100, round_events=1000, round_interval_s=60.0)


def test_a_stationary_stream_raises_no_alarm() -> None:
    rng = np.random.default_rng(0)
    sensor = DriftSensor()

    assert not sensor.feed(rng.beta(4, 4, size=20_000))


def test_a_rising_loss_is_found_soon() -> None:
    rng = np.random.default_rng(1)
    sensor = DriftSensor()
    assert not sensor.feed(rng.beta(4, 4, size=3_000))

    assert sensor.feed(rng.beta(6, 3, size=500))


def test_a_falling_loss_is_no_reason_to_learn() -> None:
    rng = np.random.default_rng(2)
    sensor = DriftSensor()
    sensor.feed(rng.beta(4, 4, size=3_000))

    assert not sensor.feed(rng.beta(2, 6, size=2_000))


def test_another_release_is_another_stream() -> None:
    sensor = DriftSensor()
    sensor.feed([0.2] * 2_000)
    sensor.reset()

    assert not sensor.feed([0.9] * 2_000)


def progress(
    rounds: int = 1,
    fresh_events: int = 0,
    since_last_s: float = 0.0,
    drifted: bool = False,
    is_caught_up: bool = True,
) -> Progress:
    return Progress(rounds, fresh_events, since_last_s, drifted, is_caught_up)


def test_the_first_round_waits_for_the_end_of_the_backlog() -> None:
    assert due(progress(rounds=0, fresh_events=99), SETTINGS) is None
    assert due(progress(rounds=0, fresh_events=100, is_caught_up=False), SETTINGS) is None
    assert due(progress(rounds=0, fresh_events=100), SETTINGS) == "first"
    assert due(progress(rounds=0, fresh_events=1000, is_caught_up=False), SETTINGS) == "first"


def test_later_rounds_are_due_by_count_time_or_drift() -> None:
    assert due(progress(fresh_events=1000), SETTINGS) == "count"
    assert due(progress(fresh_events=50, since_last_s=61.0), SETTINGS) == "time"
    assert due(progress(fresh_events=50, drifted=True), SETTINGS) == "drift"
    assert due(progress(fresh_events=50, since_last_s=59.0), SETTINGS) is None


def test_a_quiet_night_makes_no_empty_round() -> None:
    assert due(progress(fresh_events=3, since_last_s=9999.0, drifted=True), SETTINGS) is None
