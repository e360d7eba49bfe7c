"""Optimisers and schedules by name: each one learns, and each one survives a kill."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from learner.model import HeadModel, from_head
from learner.optimisation import FLOOR, OPTIMISERS, Optimisers, schedule
from profiles.settings.learning import LearnerSettings
from tests.unit.builders import make_head

STEPS = 12


def names(setting: str) -> tuple[str, ...]:
    """What a setting may be."""
    return get_args(LearnerSettings.model_fields[setting].annotation)


def loss_of(model: HeadModel, weight: Tensor) -> Tensor:
    """Something with a minimum that the weights are not at."""
    loss: Tensor = (model.arrays["text_weight"] - 1.0).square().mean()
    return loss + (weight - 1.0).square().mean()


def begin(settings: LearnerSettings) -> tuple[HeadModel, Tensor, Optimisers]:
    model = from_head(make_head(), items=4)
    weight = torch.zeros(3, 2, requires_grad=True)
    return model, weight, Optimisers(model, [], {"w": weight}, settings, 1.0, STEPS)


def test_every_optimiser_that_a_setting_may_name_is_there() -> None:
    assert set(names("optimiser")) == set(OPTIMISERS)


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_an_optimiser_goes_down_and_goes_on_after_a_kill(name: str) -> None:
    settings = LearnerSettings(optimiser=name, head_lr=0.05, lora_lr=0.05)
    model, weight, optimisers = begin(settings)
    first = loss_of(model, weight).item()
    for step in range(STEPS // 2):
        optimisers.step(loss_of(model, weight), step, with_language=True)
    kept = {name: tensor.clone() for name, tensor in optimisers.tensors().items()}
    middle, middle_weight = model.state_dict(), weight.detach().clone()
    again, again_weight, resumed = begin(settings)
    again.load_state_dict(middle)
    again_weight.data.copy_(middle_weight)
    resumed.restore(kept)

    for step in range(STEPS // 2, STEPS):
        optimisers.step(loss_of(model, weight), step, with_language=True)
        resumed.step(loss_of(again, again_weight), step, with_language=True)

    assert loss_of(model, weight).item() < first
    assert torch.equal(weight, again_weight)
    assert torch.equal(model.arrays["text_weight"], again.arrays["text_weight"])


def test_the_language_model_stays_still_outside_its_stage() -> None:
    model, weight, optimisers = begin(LearnerSettings())

    optimisers.step(loss_of(model, weight), 0, with_language=False)

    assert not weight.any()


@pytest.mark.parametrize("name", names("schedule"))
def test_a_schedule_warms_up_and_stays_between_nothing_and_all(name: str) -> None:
    share = schedule(name, 100)
    shares = [share(step) for step in range(100)]

    assert all(0.0 <= value <= 1.0 for value in shares)
    assert shares[0] > 0.0, "a first step must not be lost"
    assert max(shares) == pytest.approx(1.0)
    if name != "constant":
        assert shares[0] < 1.0


def test_the_default_schedule_ends_on_its_floor() -> None:
    share = schedule(LearnerSettings().schedule, 50)

    assert share(49) == pytest.approx(FLOOR)
