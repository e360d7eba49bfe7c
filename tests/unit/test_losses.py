"""The objective's parts against what they should be."""

from __future__ import annotations

import pytest
import torch

from learner.losses import (
    distillation,
    draw_negatives,
    next_item_loss,
    proximal_pull,
    sampled_logits,
)


def test_weights_of_zero_leave_an_event_out() -> None:
    logits = torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 9.0]])
    targets = torch.tensor([0, 1])

    alone = next_item_loss(logits[:1], targets[:1], torch.ones(1))
    both = next_item_loss(logits, targets, torch.tensor([1.0, 0.0]))

    assert both.item() == pytest.approx(alone.item())


def test_smoothing_asks_for_a_little_of_everything() -> None:
    targets, weights = torch.tensor([0]), torch.ones(1)
    sure, unsure = torch.tensor([[9.0, 0.0, 0.0]]), torch.tensor([[4.0, 0.0, 0.0]])

    assert next_item_loss(sure, targets, weights) < next_item_loss(unsure, targets, weights)
    assert next_item_loss(sure, targets, weights, 0.2) > next_item_loss(
        unsure, targets, weights, 0.2
    )


def test_the_sampled_loss_is_near_the_full_one_and_has_its_gradient() -> None:
    generator = torch.Generator().manual_seed(0)
    profiles = torch.randn(200, 8, generator=generator)
    vectors = torch.randn(3_000, 8, generator=generator) * 0.5
    bias, scale = torch.randn(3_000, generator=generator) * 0.5, torch.ones(1)
    targets = torch.randint(3_000, (200,), generator=generator)
    weights = torch.ones(200)

    full = next_item_loss(profiles @ vectors.T + bias, targets, weights)
    drawn = [
        next_item_loss(
            sampled_logits(
                profiles, vectors, bias, scale, targets, draw_negatives(3_000, 512, generator)
            ),
            torch.zeros_like(targets),
            weights,
        ).item()
        for _ in range(20)
    ]

    assert sum(drawn) / 20 == pytest.approx(full.item(), abs=0.05)


def test_a_negative_that_is_the_target_does_not_count_against_it() -> None:
    profiles, vectors = torch.ones(1, 2), torch.ones(4, 2)
    bias, scale = torch.zeros(4), torch.ones(1)

    logits = sampled_logits(profiles, vectors, bias, scale, torch.tensor([1]), torch.tensor([1, 1]))

    assert next_item_loss(logits, torch.tensor([0]), torch.ones(1)).item() == pytest.approx(0.0)


def test_the_pull_is_half_the_squared_distance() -> None:
    mine, parent = [torch.tensor([1.0, 3.0])], [torch.tensor([0.0, 1.0])]

    assert proximal_pull(mine, parent).item() == pytest.approx(2.5)
    assert proximal_pull(parent, parent).item() == 0.0


def test_distillation_is_nothing_between_equals_and_something_otherwise() -> None:
    scores = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))

    assert distillation(scores, scores + 3.0).item() == pytest.approx(0.0, abs=1e-6)
    assert distillation(scores, scores.flip(1)).item() > 0.1
