"""A private round makes a release that says its epsilon, and its child's epsilon counts both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from learner.private_steps import epsilon, require_private
from learner.replay import ReplayBuffer
from learner.round_types import Hooks, RoundCancelled
from learner.rounds import plan_round, run_round
from profiles.errors import SettingsError
from profiles.manifest import PrivacySpent
from profiles.release import Release
from tests.unit.learning_world import USERS, World, learn, make_world, with_learner

pytestmark = pytest.mark.unit

PRIVATE: dict[str, object] = {
    "dp_noise": 2.0, "lora_steps": 0, "replay_share": 0.0, "epochs": 2, "batch_users": 16,
}  # fmt: skip
STEPS = 2 * 4
"""Two epochs of sixty users, sixteen at a time."""


@pytest.fixture
def world(tmp_path: Path, tiny_language_model: Path) -> World:
    made = make_world(tmp_path, tiny_language_model)
    with_learner(made, **PRIVATE)
    return made


def filled(world: World) -> ReplayBuffer:
    buffer = world.buffer()
    buffer.ingest("events", world.rows(0, 20), {0: 20 * USERS})
    return buffer


def test_epsilon_of_a_release_counts_its_ancestors_and_is_signed_with_it(world: World) -> None:
    buffer = filled(world)
    one = learn(world, buffer, world.first_release()).manifest
    buffer.ingest("events", world.rows(20 * USERS, 10), {0: 30 * USERS})
    parent = world.open(one.release_id)
    two = world.open(learn(world, buffer, parent).manifest.release_id).manifest
    buffer.close()

    assert isinstance(one.privacy, PrivacySpent)
    assert isinstance(two.privacy, PrivacySpent)
    (noise, share, times), counts = one.privacy.steps
    assert (noise, times, counts) == (2.0, STEPS, (2.0, 1.0, 1))
    assert share == pytest.approx(16 / USERS)
    assert one.privacy.epsilon == epsilon(one.privacy.steps, 1e-5) > 0
    assert one.metrics["privacy_epsilon"] == one.privacy.epsilon
    assert two.privacy.epsilon == epsilon([(2.0, share, 2 * STEPS), (2.0, 1.0, 2)], 1e-5)
    assert one.privacy.epsilon < two.privacy.epsilon < 2 * one.privacy.epsilon
    assert one.privacy.unit == "user"
    assert one.contributors_digest == ""


def test_a_release_from_without_noise_says_no_epsilon_and_cannot_have_a_private_child(
    world: World,
) -> None:
    buffer = filled(world)
    first = world.first_release()
    require_private(world.settings.learner, first.manifest)  # it knows no user
    with_learner(world, dp_noise=0.0)
    plain = learn(world, buffer, first).manifest
    buffer.close()

    assert b"privacy" not in plain.signed_bytes()
    assert "privacy_epsilon" not in plain.metrics
    require_private(world.settings.learner, plain)
    with_learner(world, dp_noise=2.0)
    with pytest.raises(SettingsError, match=plain.release_id):
        require_private(world.settings.learner, plain)


def test_a_killed_private_round_goes_on_with_the_counts_it_drew(world: World) -> None:
    buffer, parent = filled(world), world.first_release()
    plan = plan_round(buffer, parent.manifest, world.settings, "count", {})
    buffer.close()
    checkpoint, done = world.root / "checkpoint.safetensors", [0]

    def run(entropy: int, stop_at: int) -> Release:
        def count(*_: object) -> None:
            done[0] += 1

        hooks = Hooks(count, lambda: done[0] >= stop_at, checkpoint, "r", entropy=lambda: entropy)
        outcome = run_round(
            world.settings, plan, world.catalogue, parent, world.store, 1, world.root, hooks
        )
        return world.open(outcome.manifest.release_id)

    straight = run(1, 10**9)
    checkpoint.unlink()
    done[0] = 0
    with pytest.raises(RoundCancelled):
        run(1, STEPS - 1)
    resumed = run(2, 10**9)
    afresh = world.root / "other.safetensors"
    checkpoint = afresh
    other = run(2, 10**9)

    assert np.array_equal(straight.items.counts, resumed.items.counts)
    assert not np.array_equal(straight.items.counts, other.items.counts)
    assert not np.allclose(straight.items.ids, resumed.items.ids)  # noise that nobody can repeat
    assert isinstance(resumed.manifest.privacy, PrivacySpent)
    assert resumed.manifest.privacy.steps[0][2] == STEPS
