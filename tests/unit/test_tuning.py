"""The search for settings: what it may look at, what it reports, and what it refuses."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import optuna
import pytest

from learner.segments import whole_segments
from learner.tuning import TEST_SHARE, VALIDATION_SHARE, _parted, tune
from profiles.config import Settings, load_settings
from profiles.errors import LearnerError
from profiles.events import Event
from profiles.items import Item
from profiles.wire import key64

pytestmark = pytest.mark.unit

ITEMS, USERS, EACH = 24, 30, 20


def made_up() -> tuple[list[Item], list[Event]]:
    """Whoever took item n takes n + 1 next, most of the time."""
    rng = np.random.default_rng(3)
    items = [Item(f"i{at}", title=f"tale number {at}") for at in range(ITEMS)]
    at = rng.integers(ITEMS, size=USERS)
    events: list[Event] = []
    for turn in range(EACH):
        for user in range(USERS):
            at[user] = at[user] + 1 if rng.random() < 0.85 else rng.integers(ITEMS)
            events.append(
                Event(
                    f"e{len(events)}", f"u{user}", f"i{at[user] % ITEMS}", "click",
                    1e9 + 60.0 * turn + user / USERS,
                )
            )  # fmt: skip
    return items, events


@pytest.fixture
def settings(tmp_path: Path, tiny_language_model: Path) -> Settings:
    return load_settings(
        model={"base": str(tiny_language_model), "dim": 16, "hidden": 16, "lora_rank": 2},
        store={"directory": str(tmp_path)},
        learner={
            "sequence_length": 20, "epochs": 4, "lora_steps": 0, "head_lr": 0.005,
            "batch_users": 16, "device": "cpu",
        },
        serving={"exclude_seen": False},
    )  # fmt: skip


def test_the_search_begins_with_its_own_settings_and_ends_with_some_as_good(
    settings: Settings, tmp_path: Path
) -> None:
    items, events = made_up()
    storage = f"sqlite:///{tmp_path / 'tune.db'}"

    tuned = tune(settings, items, events, trials=3, storage=storage)

    (name,) = optuna.get_all_study_names(storage)
    trials = optuna.load_study(study_name=name, storage=storage).trials
    assert trials[0].params["head_lr"] == settings.learner.head_lr
    assert trials[0].value is not None
    assert tuned.validation_ndcg >= trials[0].value
    assert tuned.trials == 3
    assert tuned.comparison.events > 0
    # The winner, written down, is a settings file.
    found = load_settings(learner=tomllib.loads(tuned.to_toml())["learner"]).learner
    assert found.head_lr == tuned.found["head_lr"]


def orders(segments: Sequence[object], first: str = "first_target") -> set[int]:
    return {
        int(order)
        for segment in segments
        for order in segment.orders[getattr(segment, first) :]  # type: ignore[attr-defined]
    }


def test_training_validation_and_test_follow_each_other_in_time() -> None:
    _, events = made_up()
    everything = whole_segments(events, {"click": 0})
    seen, test = _parted(everything, TEST_SHARE)
    training, validation = _parted(seen, VALIDATION_SHARE)

    learned = orders(training)
    # Nothing of what is tested is context of what is validated, or trained on.
    assert max(learned) < min(orders(validation)) <= max(orders(validation)) < min(orders(test))
    assert len(orders(test)) == pytest.approx(len(events) * TEST_SHARE, abs=1)
    assert len(orders(validation)) == pytest.approx(len(events) * TEST_SHARE, abs=2)
    assert {int(order) for s in seen for order in s.orders} == learned | orders(validation)


def test_segments_hold_every_event_of_a_user_in_the_order_of_time() -> None:
    events = [
        Event("a", "u", "late", "click", 20.0),
        Event("b", "u", "early", "click", 10.0),
        Event("c", "v", "other", "click", 15.0),
    ]
    by_user = {segment.user: segment for segment in whole_segments(events, {"click": 0})}
    mine = by_user[key64("u")]
    assert mine.items.tolist() == [key64("early"), key64("late")]
    assert (mine.skipped, mine.first_target) == (0, 0)


def test_an_action_without_a_weight_is_named(settings: Settings) -> None:
    items, events = made_up()
    events.append(Event("odd", "u0", "i0", "teleport", 2e9))
    with pytest.raises(LearnerError, match=r"'teleport' of event 'odd' has no weight"):
        tune(settings, items, events, trials=1)


def test_too_few_events_are_refused(settings: Settings) -> None:
    items, _ = made_up()
    with pytest.raises(LearnerError, match="too few to part"):
        tune(settings, items, [Event("a", "u", "i0", "click", 1.0)], trials=1)
    with pytest.raises(LearnerError, match="nothing to tune on"):
        tune(settings, items, [], trials=1)
