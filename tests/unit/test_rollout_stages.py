"""What becomes of a candidate: every way through shadow, canary and watch."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.rollout.arms import Arm
from learner.rollout.stages import (
    LEAST_EVENTS,
    Rollout,
    Stage,
    Verdict,
    begin,
    decide,
    figures,
    first_status,
)
from profiles.notices import OutcomeCell
from profiles.rollout import BUCKETS
from profiles.settings.learning import RolloutSettings

pytestmark = pytest.mark.unit

RULES = RolloutSettings(shadow_events=1_000, canary_events=2_000, watch_events=3_000)


def stage(
    name: Stage,
    paired: tuple[float, float] | None = None,
    live: tuple[float, float] | None = None,
    events: int = 500,
) -> Rollout:
    """A stage after so many events with these figures (candidate, rival) in every one of them."""
    rollout = begin(name, "new", "old", 0.0, RULES)
    if paired is not None:
        rollout.paired.take(*(np.full(events, value) for value in paired))
    if live is not None:
        rollout.live, rollout.rival_live = (arm(value, events) for value in live)
    return rollout


def arm(mean: float, events: int) -> Arm:
    made, each = Arm(), events // BUCKETS + 1
    wobble = np.random.default_rng(0).normal(0.0, 0.01, BUCKETS)
    made.take(
        [
            OutcomeCell(b, each, each, each * (mean + w), each * (mean + w) ** 2)
            for b, w in enumerate(wobble.tolist())
        ]
    )
    return made


def status(rollout: Rollout, rules: RolloutSettings = RULES, now_s: float = 1.0) -> str | None:
    verdict = decide(rollout, now_s, rules)
    return None if verdict is None else verdict.status


def test_a_mode_says_how_a_candidate_begins_and_what_follows_a_good_shadow() -> None:
    good = stage("shadow", paired=(0.3, 0.2))
    assert first_status(RolloutSettings(mode="direct")) == "serving"
    assert first_status(RolloutSettings(mode="shadow")) == "shadow"
    assert first_status(RolloutSettings(mode="canary")) == "shadow"
    assert status(good, RolloutSettings(mode="shadow")) == "serving"
    assert status(good, RolloutSettings(mode="canary")) == "canary"


def test_harm_ends_a_shadow_or_a_canary_in_refusal_and_a_watch_in_a_rollback() -> None:
    assert status(stage("shadow", paired=(0.1, 0.3))) == "refused"
    assert status(stage("canary", paired=(0.1, 0.3))) == "refused"
    assert status(stage("watch", paired=(0.1, 0.3))) == "rolled-back"
    assert status(stage("canary", live=(0.1, 0.3))) == "refused"
    assert status(stage("watch", live=(0.1, 0.3))) == "rolled-back"


def test_a_canary_serves_everybody_when_its_users_are_seen_to_fare_no_worse() -> None:
    assert status(stage("canary", live=(0.3, 0.3))) == "serving"
    assert status(stage("canary", paired=(0.3, 0.3))) is None  # nobody was served yet


def test_a_fallen_level_that_the_old_release_would_share_is_drift_and_no_harm() -> None:
    drifted = stage("watch", paired=(0.3, 0.2), live=(0.1, 0.3))
    assert status(drifted) is None
    # A level may halve before it counts: it is of another time.
    assert status(stage("watch", live=(0.2, 0.3))) is None


def test_a_worker_that_does_not_serve_a_canary_ends_it() -> None:
    rollout = stage("canary", live=(0.3, 0.3))
    rollout.refusals["worker-b"] = "probe-cosine: 0.5"
    verdict = decide(rollout, 1.0, RULES)
    assert verdict == Verdict("refused", "worker worker-b does not serve it: probe-cosine: 0.5")


def test_few_events_conclude_nothing() -> None:
    assert status(stage("shadow", paired=(0.0, 1.0), events=LEAST_EVENTS - 1)) is None
    assert status(stage("shadow", paired=(0.0, 1.0), events=LEAST_EVENTS)) == "refused"


@pytest.mark.parametrize(("undecided", "after_shadow", "after_canary"), [
    ("promote", "canary", "serving"), ("refuse", "refused", "refused"),
])  # fmt: skip
def test_a_stage_without_a_verdict_ends_at_its_limit_of_events_or_time(
    undecided: str, after_shadow: str, after_canary: str
) -> None:
    rules = RULES.model_copy(update={"undecided": undecided})
    # About as much worse as is tolerated: neither verdict comes.
    long_shadow = stage("shadow", paired=(0.09, 0.1), events=RULES.shadow_events)
    long_canary = stage("canary", live=(0.271, 0.3), events=RULES.canary_events)
    assert status(long_shadow, rules) == after_shadow
    assert status(long_canary, rules) == after_canary
    # A quiet stream.
    quiet = begin("canary", "new", "old", 0.0, rules)
    assert status(quiet, rules, RULES.stage_limit_s - 1.0) is None
    assert status(quiet, rules, RULES.stage_limit_s) == after_canary


def test_a_watch_outlasts_a_quiet_stream_and_ends_with_its_events() -> None:
    quiet = begin("watch", "new", "old", 0.0, RULES)
    assert status(quiet, now_s=1e9) is None
    assert status(stage("watch", paired=(0.3, 0.3), events=RULES.watch_events)) == "kept"


def test_a_watch_keeps_the_level_as_it_was_at_its_beginning() -> None:
    level = arm(0.3, 500)
    watch = begin("watch", "new", "old", 0.0, RULES, level)
    level.take([OutcomeCell(0, 1_000, 0, 0.0, 0.0)])
    assert watch.rival_live.mean() == pytest.approx(0.3, abs=0.01)
    assert begin("canary", "new", "old", 0.0, RULES, level).rival_live.count == 0


@given(
    st.sampled_from(["shadow", "canary", "watch"]),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), max_size=40),
    st.integers(1, 60),
)
@settings(max_examples=60, deadline=None)
def test_a_saved_rollout_decides_as_the_one_that_was_saved(
    name: Stage, pairs: list[tuple[float, float]], repeats: int
) -> None:
    rollout = begin(name, "new", "old", 5.0, RULES)
    for mine, theirs in pairs:
        rollout.paired.take(np.full(repeats, mine), np.full(repeats, theirs))
    loaded = msgspec.json.decode(msgspec.json.encode(rollout), type=Rollout)
    assert decide(loaded, 9.0, RULES) == decide(rollout, 9.0, RULES)
    assert figures(loaded, RULES) == figures(rollout, RULES)
    assert all(np.isfinite(value) for value in figures(rollout, RULES).values())
