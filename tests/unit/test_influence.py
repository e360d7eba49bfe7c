"""No user weighs more than the bound in what a round learns, however many events she sends."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.attacks.membership import auc
from learner.influence import bound_influence, shrink_to_share
from learner.rounds import item_counts
from learner.sampling import Segment, Windows, make_windows
from profiles.release import ItemTable
from tests.unit.liked_items import ACTIONS, CATALOGUE, segment

pytestmark = pytest.mark.unit


def windows(*segments: Segment) -> Windows:
    return make_windows(segments, CATALOGUE, ACTIONS, 20)


def sums(parts: list[Windows]) -> dict[int, float]:
    found: dict[int, float] = {}
    for part in parts:
        for user, weights in zip(part.users.tolist(), part.weights, strict=True):
            found[user] = found.get(user, 0.0) + float(weights.sum())
    return found


def crowd(users: int, each: int) -> list[Segment]:
    return [segment(user, [(user + at) % 200 for at in range(each)]) for user in range(1, users)]


def test_a_flooding_user_weighs_no_more_than_her_share_of_fresh_and_past_together() -> None:
    flood = segment(999, list(range(200)) * 5)
    fresh, past = windows(*crowd(300, 5), flood), windows(flood, *crowd(100, 5))
    assert sums([fresh, past])[999] > 0.3 * sum(sums([fresh, past]).values())
    bounded = sums(bound_influence([fresh, past], 0.01, 0))
    assert bounded[999] == pytest.approx(0.01 * sum(bounded.values()), rel=1e-4)
    # Who kept within the bound weighs what she weighed.
    assert bounded[7] == pytest.approx(sums([fresh, past])[7])


def test_a_users_events_on_one_item_count_as_so_many_at_most() -> None:
    (bounded,) = bound_influence([windows(segment(1, [5, 6] * 10), *crowd(150, 4))], 1.0, 3)
    mine = bounded.users == 1
    weights, targets = bounded.weights[mine], bounded.targets[mine]
    for row in (5, 6):
        assert weights[(targets == row) & (weights > 0)].sum() == pytest.approx(3.0)
    assert sums([bounded])[7] == pytest.approx(4.0)


def test_the_events_counted_behind_an_item_are_bounded_alike() -> None:
    """Counts decide how popular the model takes an item to be: they are a lever, too."""
    none = np.zeros((0, 4), np.float32)
    table = ItemTable(
        np.zeros(0, np.uint64),
        np.zeros(0, np.uint64),
        none,
        none,
        np.zeros(0, np.float32),
        np.zeros(0, np.float32),
    )
    users = [segment(1, [5, 6] * 10), segment(2, [5])]
    _, counts = item_counts(table, CATALOGUE, users, 3)
    assert counts[[5, 6, 7]].tolist() == [4.0, 3.0, 0.0]
    _, counts = item_counts(table, CATALOGUE, users)
    assert counts[[5, 6, 7]].tolist() == [11.0, 10.0, 0.0]


def test_honest_weights_stay_as_they_are_to_the_bit() -> None:
    made = windows(*crowd(300, 6))
    (bounded,) = bound_influence([made], 0.01, 3)
    assert np.array_equal(bounded.weights, made.weights)
    nothing = windows()
    assert bound_influence([nothing], 0.01, 3)[0] is nothing


@pytest.mark.parametrize("users", [1, 2, 10, 1000])
def test_shares_settle_at_the_bound_or_at_twice_the_even_share(users: int) -> None:
    sums_before = np.random.default_rng(users).pareto(1.0, users) + 0.01
    scale = shrink_to_share(sums_before, 0.01)
    after = sums_before * scale
    assert (scale <= 1.0).all()
    assert after.max() <= max(0.01, 2.0 / users) * after.sum() * 1.001


def test_an_attacker_who_knows_scores_a_half_who_guesses_and_one_who_is_sure() -> None:
    rng = np.random.default_rng(0)
    assert auc(rng.normal(size=4000), rng.normal(size=4000)) == pytest.approx(0.5, abs=0.02)
    assert auc(np.array([2.0, 3.0]), np.array([0.0, 1.0])) == 1.0
