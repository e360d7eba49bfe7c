"""The benchmarks' attackers see what is there to be seen, and a crowd is as it is described."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.attacks.crowd import crowd_size, fake_users
from benchmarks.attacks.membership import by_user, calibrated, judged
from benchmarks.attacks.world import World
from learner.catalogue import make_catalogue
from learner.sampling import ActionWeights, Segment
from profiles.config import Settings
from profiles.items import Item

pytestmark = pytest.mark.unit

CATALOGUE = make_catalogue([Item(f"i{number}") for number in range(50)])
USERS = 400


def small_world() -> World:
    """Two hundred real users of ten events each."""
    settings = Settings.model_construct()
    actions = ActionWeights.from_settings(settings.actions)
    rate = actions.names.index("rate")
    users = [
        Segment(
            user,
            0,
            0,
            CATALOGUE.keys[np.arange(user, user + 10) % 50],
            1e6 * user + np.arange(10.0),
            np.full(10, rate),
            np.full(10, 4.0, np.float32),
            10 * user + np.arange(10),
        )
        for user in range(1, 201)
    ]
    return World(settings, CATALOGUE, actions, np.zeros((50, 4), np.float32), users)


def test_calibrating_takes_out_what_makes_users_differ_and_leaves_what_membership_does() -> None:
    rng = np.random.default_rng(0)
    inside = rng.random(USERS) < 0.5
    ease = rng.normal(0.0, 5.0, USERS)  # some are easy to predict, in a release or not
    target = [np.full(4, each) + 1.0 * member for each, member in zip(ease, inside, strict=True)]
    shadow = [np.full(4, each) + rng.normal(0.0, 0.5, 4) for each in ease]
    out = [np.zeros(USERS, np.bool_)]
    plain = judged(by_user(target), inside, rng)
    against = judged(by_user(calibrated(target, [shadow], out)), inside, rng)
    assert plain["auc"] < 0.65
    assert against["auc"] > 0.95
    assert plain["low"] < plain["auc"] < plain["high"]


def test_a_user_who_is_in_every_shadow_cannot_be_calibrated_and_is_left_out() -> None:
    signal = [np.ones(3), np.ones(2)]
    found = calibrated(signal, [signal, signal], [np.array([True, False]), np.array([True, True])])
    assert len(found[0]) == 0
    assert found[1].tolist() == [0.0, 0.0]
    scores = by_user(found)
    assert np.isnan(scores[0])
    judged_two = judged(
        np.array([1.0, np.nan, 0.0]), np.array([True, True, False]), np.random.default_rng(0)
    )
    assert (judged_two["members"], judged_two["others"]) == (1, 1)


@pytest.mark.parametrize(("kind", "share"), [("alternate", 0.5), ("mimic", 0.25)])
def test_a_crowd_is_one_percent_and_pushes_its_target(kind: str, share: float) -> None:
    world, rng = small_world(), np.random.default_rng(1)
    fakes = fake_users(world, 49, kind, 200, rng)
    assert len(fakes) == crowd_size(world) == 2
    for fake in fakes:
        pushed = (CATALOGUE.rows(fake.items) == 49).mean()
        assert share <= pushed <= share + 0.1  # who is copied may have had it, too
        assert (np.diff(fake.ts) >= 0).all()
    late = min(float(fake.ts[0]) for fake in fakes)
    newest = max(float(user.ts[-1]) for user in world.users)
    assert (late > newest - 86_400) == (kind == "alternate")
