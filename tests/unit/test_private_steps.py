"""What one user can do to a private step is bounded, the rest is noise; epsilon says how much."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np
import pytest
import torch
from opacus.accountants import RDPAccountant
from torch import Tensor, nn

from learner.private_steps import (
    PrivateSteps,
    epsilon,
    noisy_counts,
    windows_by_user,
)
from learner.sampling import make_windows
from profiles.config import load_settings
from profiles.errors import SettingsError
from profiles.settings.learning import LearnerSettings
from tests.unit.liked_items import ACTIONS, CATALOGUE, segment

pytestmark = pytest.mark.unit

USERS = 20
HUGE = 1e6


def private(**changes: object) -> LearnerSettings:
    values = {"dp_noise": 1.0, "lora_steps": 0, "replay_share": 0.0, **changes}
    return LearnerSettings.model_validate(values)


def steps_on(
    weights: Sequence[Tensor], settings: LearnerSettings, entropy: int = 1
) -> PrivateSteps:
    """Plain descent at rate 1, so that a step moves the weights by the private gradient."""
    return PrivateSteps(torch.optim.SGD(weights, lr=1.0), settings, USERS, entropy, "cpu")


@pytest.mark.parametrize("clip", [0.5, 2.0])
def test_a_users_gradient_is_cut_over_all_weights_together(clip: float) -> None:
    weights = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]
    steps = steps_on(weights, private(dp_noise=1e-9, dp_clip=clip, batch_users=USERS))
    steps.add(HUGE * (weights[0].sum() + weights[1].sum()))
    steps.step()
    moved = math.sqrt(sum(float(w.detach().square().sum()) for w in weights))
    assert moved * USERS == pytest.approx(clip, rel=1e-4)


def test_a_small_gradient_is_left_alone_and_users_add_up() -> None:
    weight = nn.Parameter(torch.zeros(4))
    steps = steps_on([weight], private(dp_noise=1e-9, dp_clip=10.0, batch_users=USERS))
    steps.add(weight[0])
    steps.add(weight[0] + HUGE * weight[1])
    steps.step()
    first, second = (-weight.detach()[:2] * USERS).tolist()
    assert first == pytest.approx(1.0 + 1e-5, rel=1e-3)
    assert second == pytest.approx(10.0, rel=1e-3)


@pytest.mark.parametrize(("noise", "clip"), [(1.0, 1.0), (3.0, 0.5)])
def test_noise_of_that_width_is_added_even_where_nobody_was_drawn(
    noise: float, clip: float
) -> None:
    weight = nn.Parameter(torch.zeros(20_000))
    steps = steps_on([weight], private(dp_noise=noise, dp_clip=clip, batch_users=5))
    steps.step()
    assert float(weight.detach().std()) * 5 == pytest.approx(noise * clip, rel=0.03)
    before = weight.detach().clone()
    steps.step()
    assert float((weight.detach() - before).std()) * 5 == pytest.approx(noise * clip, rel=0.03)


def test_other_entropy_gives_other_noise_and_other_users() -> None:
    first, second = (nn.Parameter(torch.zeros(50)) for _ in range(2))
    one, two = steps_on([first], private(), 1), steps_on([second], private(), 2)
    one.step()
    two.step()
    assert not torch.allclose(first, second)
    few = private(batch_users=5)
    drawn = [[steps_on([first], few, entropy).draw() for entropy in (1, 1, 2)]]
    assert drawn[0][0] == drawn[0][1] != drawn[0][2]


def test_users_are_drawn_by_chance_at_the_rate_that_is_accounted_for() -> None:
    steps = steps_on([nn.Parameter(torch.zeros(1))], private(batch_users=5))
    sizes = [len(steps.draw()) for _ in range(2_000)]
    assert np.mean(sizes) == pytest.approx(5.0, rel=0.05)
    assert 0 in sizes
    assert max(sizes) > 8
    (noise, share, times), _ = steps.spent(7)
    assert (noise, share, times) == (1.0, 0.25, 7)


def test_epsilon_grows_with_steps_and_shrinks_with_noise() -> None:
    found = [epsilon([(1.0, 0.1, steps)], 1e-5) for steps in (1, 10, 100, 1000)]
    assert all(now > before for before, now in pairwise(found))
    assert epsilon([(2.0, 0.1, 100)], 1e-5) < found[2]
    assert epsilon([], 1e-5) == 0.0
    assert epsilon([(0.1, 0.1, 10)], 1e-5) > 100  # so little noise that no order is low enough


def test_epsilon_is_the_accountants_for_these_steps_and_near_the_closed_form() -> None:
    accountant = RDPAccountant()
    for _ in range(30):
        accountant.step(noise_multiplier=1.5, sample_rate=0.2)
    accountant.step(noise_multiplier=4.0, sample_rate=1.0)
    assert epsilon([(1.5, 0.2, 30), (4.0, 1.0, 1)], 1e-6) == accountant.get_epsilon(delta=1e-6)
    # One step on everybody is the Gaussian mechanism: alpha / (2 noise^2) at every order alpha,
    # and the classical conversion with log(1 / delta) / (alpha - 1) bounds it from above.
    noise, delta = 4.0, 1e-5
    classical = 1 / (2 * noise**2) + math.sqrt(2 * math.log(1 / delta)) / noise
    assert 0.5 * classical < epsilon([(noise, 1.0, 1)], delta) < classical


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"dp_noise": -1.0}, "dp_noise"),
        ({"dp_noise": math.nan}, "dp_noise"),
        ({"dp_noise": math.inf}, "dp_noise"),
        ({"dp_clip": 0.0}, "dp_clip"),
        ({"dp_clip": math.nan}, "dp_clip"),
        ({"dp_delta": 0.0}, "dp_delta"),
        ({"dp_delta": 1.0}, "dp_delta"),
        ({"lora_steps": 5}, "lora_steps=0"),
        ({"replay_share": 0.5}, "replay_share=0"),
        ({"objective": "multi_task"}, "objective='next_item'"),
    ],
)
def test_settings_that_epsilon_could_not_account_for_are_refused(
    changes: dict[str, object], named: str
) -> None:
    values = {"dp_noise": 1.0, "lora_steps": 0, "replay_share": 0.0, **changes}
    with pytest.raises(SettingsError, match=named):
        load_settings(learner=values)


def test_a_user_with_many_windows_is_one_user() -> None:
    segments = [segment(1, list(range(100))), segment(2, [1, 2, 3])]
    found = windows_by_user(make_windows(segments, CATALOGUE, ACTIONS, 20))
    assert len(found) == 2
    assert sorted(len(rows) for rows in found)[0] == 1
    assert sum(len(rows) for rows in found) == len(set(chain(*found)))


def test_counts_get_noise_and_a_user_moves_them_by_a_windows_length_at_most() -> None:
    settings, before = private(dp_noise=1e-9, sequence_length=16), np.zeros(200, np.float32)
    alone = noisy_counts(before, [segment(1, [7] * 100)], CATALOGUE, settings, 1)
    assert alone[7] == pytest.approx(4.0, rel=1e-3)
    honest = noisy_counts(before, [segment(1, [1, 2]), segment(2, [2])], CATALOGUE, settings, 1)
    assert honest[:3].tolist() == pytest.approx([0.0, 1.0, 2.0], abs=1e-3)
    high = np.full(200, 1_000.0, np.float32)
    noisy = noisy_counts(high, [], CATALOGUE, private(sequence_length=16), 1)
    assert float((noisy - high).std()) == pytest.approx(4.0, rel=0.15)
    assert (noisy_counts(before, [], CATALOGUE, private(), 1) >= 0.0).all()
