"""What was shown meets what was taken, and the price of exploration comes out of the logs."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from learner.earnings import estimate, join, shown
from profiles.answers import PREDICTION, Recommendation, ScoredItem
from profiles.events import Event
from profiles.exploration import Policy, explore
from profiles.scoring import Ranked

pytestmark = pytest.mark.unit


def made(user: str, at_s: float, items: list[ScoredItem], number: int = 0) -> Recommendation:
    return Recommendation(
        f"{user}-{at_s}-{number}", user, items, "r", "r", 1, "event", "e", 0, 0, 9e9, at_s
    )


def took(user: str, item: str, ts: float) -> Event:
    return Event(f"{user}{item}{ts}", user, item, "like", ts)


def test_an_item_counts_until_the_next_recommendation_and_within_the_time_given() -> None:
    shown = [ScoredItem("a", 1.0), ScoredItem("b", 0.5)]
    recommendations = [made("u", 10.0, shown), made("u", 20.0, shown), made("v", 10.0, shown)]
    events = [
        took("u", "a", 10.0),  # what caused it is no answer
        took("u", "b", 20.0),  # the last of its span
        took("u", "a", 25.0),
        took("v", "a", 111.0),  # too late
        took("w", "a", 11.0),
    ]
    slots = join([*recommendations, recommendations[0]], events, within_s=100.0)
    assert sorted(slots.rewards.tolist()) == [0.0, 0.0, 0.0, 0.0, 1.0, 1.0]
    assert (slots.greedy == 1.0).all()
    earned = estimate(slots, 3)
    assert earned.as_served.value == earned.without_exploration.value == pytest.approx(1 / 3)


def test_what_was_only_predicted_was_not_shown() -> None:
    recommended = made("u", 1.0, [ScoredItem("a", 1.0)])
    predicted = msgspec.structs.replace(recommended, output_id="p", cause=PREDICTION)
    assert shown([predicted, recommended]) == [recommended]


def test_a_slot_is_greedy_if_everything_better_stands_above_it() -> None:
    items = [
        ScoredItem("c", 0.0, propensity=0.1, rank=2),
        ScoredItem("a", 0.0, propensity=0.9, rank=0),
        ScoredItem("b", 0.0, propensity=0.9, rank=1),
        ScoredItem("e", 0.0, propensity=0.1, rank=4),
    ]
    assert join([made("u", 1.0, items)], [], 9.0).greedy.tolist() == [0.0, 1.0, 1.0, 0.0]


def test_the_price_of_exploration_is_found_from_a_simulated_log() -> None:
    rng = np.random.default_rng(7)
    users, takes = 4_000, np.array([0.5, 0.3, 0.2, 0.1, 0.0])
    rows = np.tile(np.arange(5), (users, 1))
    pool = Ranked(rows, np.tile(np.arange(5, 0, -1, dtype=np.float32), (users, 1)))
    slates = explore(pool, 1, Policy("epsilon", epsilon=0.4), [f"n{n}" for n in range(users)])
    recommendations, events = [], []
    for user, (row, chance) in enumerate(
        zip(slates.ranks[:, 0].tolist(), slates.propensities[:, 0].tolist(), strict=True)
    ):
        item = ScoredItem(f"i{row}", 0.0, propensity=chance, rank=row)
        recommendations.append(made(f"u{user}", 1.0, [item]))
        if rng.random() < takes[row]:
            events.append(took(f"u{user}", f"i{row}", 2.0))
    earned = estimate(join(recommendations, events, 10.0), users)
    as_served = 0.6 * takes[0] + 0.4 * takes.mean()
    for found, truth in ((earned.as_served, as_served), (earned.without_exploration, takes[0])):
        assert abs(found.value - truth) < 3 * found.standard_error
    assert earned.without_exploration.value > earned.as_served.value + 0.05
