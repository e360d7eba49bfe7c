"""Policies show items as often as their propensities say, and their logs tell what others earn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiles.exploration import Policy, draws, explore
from profiles.off_policy import ips, snips
from profiles.scoring import Ranked

pytestmark = pytest.mark.unit

POLICIES = (
    Policy(),
    Policy("epsilon", epsilon=0.3),
    Policy("boltzmann", temperature=0.7),
    Policy("uncertain", epsilon=0.3),
)
COUNTS = np.concatenate([np.zeros(10), [99.0, 0.0, 24.0, 3.0, 8.0]]).astype(np.float32)
"""Events behind the items 0 to 14; the pool's are 10 to 14."""
SCORES = np.array([2.0, 1.5, 1.0, 0.0, -1.0], np.float32)


def pool(users: int, scores: np.ndarray = SCORES) -> Ranked:
    rows = np.tile(np.arange(len(scores)) + 10, (users, 1))
    return Ranked(rows, np.tile(scores, (users, 1)))


def names(count: int, prefix: str = "n") -> list[str]:
    return [f"{prefix}{number}" for number in range(count)]


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.kind)
def test_items_are_shown_as_often_as_their_propensities_say(policy: Policy) -> None:
    many = 20_000
    slates = explore(pool(many), 2, policy, names(many), COUNTS)
    shown, propensities = slates.ranked, slates.propensities
    for slot in range(2):
        for row in np.unique(shown.rows[:, slot]):
            # Of the slates that begin alike, where slot two's propensity is one number.
            for above in np.unique(shown.rows[:, 0]) if slot else [None]:
                alike = np.ones(many, bool) if above is None else shown.rows[:, 0] == above
                hit = alike & (shown.rows[:, slot] == row)
                if hit.sum() < 50:
                    continue
                expected = propensities[hit, slot]
                assert np.ptp(expected) < 1e-12
                spread = np.sqrt(expected[0] * (1 - expected[0]) / alike.sum())
                assert abs(hit.sum() / alike.sum() - expected[0]) < 5 * spread + 1e-9


@given(st.integers(1, 6), st.integers(1, 9), st.sampled_from(POLICIES), st.integers(0, 2**32 - 1))
@settings(max_examples=80, deadline=None)
def test_a_slate_has_no_item_twice_none_from_outside_and_comes_again_the_same(
    users: int, k: int, policy: Policy, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    scores = np.sort(rng.normal(size=(users, 7)).astype(np.float32))[:, ::-1].copy()
    rows = np.tile(np.arange(7), (users, 1))
    for user, kept in enumerate(rng.integers(0, 8, size=users)):
        rows[user, kept:], scores[user, kept:] = -1, -np.inf
    slates = explore(Ranked(rows, scores), k, policy, names(users, str(seed)))
    again = explore(Ranked(rows, scores), k, policy, names(users, str(seed)))
    first, chances = slates.ranked, slates.propensities
    assert (first.rows == again.ranked.rows).all()
    assert ((chances > 0) & (chances <= 1 + 1e-12)).all()
    for user in range(users):
        real = first.rows[user][first.rows[user] >= 0]
        assert len(set(real.tolist())) == len(real) == min(k, int((rows[user] >= 0).sum()))
        assert set(real.tolist()) <= set(rows[user].tolist())


def test_what_there_is_most_to_learn_of_is_explored_most() -> None:
    policy = Policy("uncertain", epsilon=0.5)
    counts = COUNTS[10:][None]
    chances = policy.probabilities(SCORES[None], np.ones((1, 5), np.bool_), counts)[0]
    to_learn = np.array([0.1, 1.0, 0.2, 0.5, 1 / 3])
    assert np.allclose(chances, 0.5 * to_learn / to_learn.sum() + [0.5, 0, 0, 0, 0])
    taken = np.array([[True, False, True, True, True]])
    assert policy.probabilities(SCORES[None], taken, counts)[0, 1] == 0.0


def test_without_exploration_the_best_items_are_shown_for_certain() -> None:
    slates = explore(pool(3), 4, Policy(), names(3))
    assert slates.ranked.rows.tolist() == [[10, 11, 12, 13]] * 3
    assert slates.ranks.tolist() == [[0, 1, 2, 3]] * 3
    assert (slates.propensities == 1.0).all()


def test_draws_are_even() -> None:
    numbers = draws(names(50_000), 1)[:, 0]
    counts, _ = np.histogram(numbers, bins=10, range=(0, 1))
    assert abs(counts - 5_000).max() < 5 * np.sqrt(5_000)


@pytest.mark.parametrize("logging", POLICIES[1:], ids=lambda policy: policy.kind)
@pytest.mark.parametrize(
    "asked", [Policy(), Policy("boltzmann", temperature=2.0)], ids=lambda policy: policy.kind
)
def test_an_estimate_from_the_logs_of_one_policy_covers_the_truth_of_another(
    logging: Policy, asked: Policy
) -> None:
    rng = np.random.default_rng(11)
    # Users take an item with a probability of its own, which runs against the scores.
    taken = np.array([0.05, 0.1, 0.2, 0.4, 0.6])
    free = np.ones((1, 5), bool)
    truth = float((asked.probabilities(SCORES[None], free)[0] * taken).sum())
    covered, naive_off = 0, 0
    for run in range(100):
        slates = explore(pool(2_000), 1, logging, names(2_000, f"{run}-"))
        logged, at = slates.propensities, slates.ranks[:, 0]
        rewards = (rng.random(2_000) < taken[at]).astype(float)
        target = asked.probabilities(SCORES[None], free)[0][at]
        found = snips(rewards, logged[:, 0], target)
        covered += abs(found.value - truth) < 1.96 * found.standard_error
        naive_off += abs(rewards.mean() - truth) > 1.96 * rewards.std() / np.sqrt(2_000)
        assert 0 < found.effective <= 2_000
    assert covered >= 88
    assert naive_off >= 50  # so there was something to correct


def test_self_normalising_tames_the_variance_and_stays_within_the_rewards() -> None:
    rng = np.random.default_rng(5)
    logging, asked = Policy("epsilon", epsilon=0.1), Policy("boltzmann", temperature=50.0)
    free = np.ones((1, 5), bool)
    plain, normalised = [], []
    for run in range(200):
        slates = explore(pool(300), 1, logging, names(300, f"v{run}-"))
        logged, at = slates.propensities, slates.ranks[:, 0]
        rewards = np.where(rng.random(300) < 0.5, 0.9, 0.8)
        target = asked.probabilities(SCORES[None], free)[0][at]
        plain.append(ips(rewards, logged[:, 0], target).value)
        normalised.append(snips(rewards, logged[:, 0], target).value)
    assert np.std(normalised) < np.std(plain) / 3
    assert all(0.8 <= value <= 0.9 for value in normalised)


def test_nothing_shown_or_nothing_in_common_is_no_estimate() -> None:
    none = np.zeros(0)
    assert snips(none, none, none).standard_error == float("inf")
    assert ips(none, none, none).slots == 0
    assert snips(np.ones(3), np.ones(3), np.zeros(3)).effective == 0.0
