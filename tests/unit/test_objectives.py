"""What each objective goes down, on worlds small enough to know the answer."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from learner import objectives
from learner.model import Batch, HeadModel, from_head
from learner.objectives import Objective
from learner.sampling import ActionWeights, Verdict
from profiles.settings.learning import LearnerSettings
from tests.unit.builders import TEXT_DIM, make_head, unit_rows
from tests.unit.test_sampling import segment

pytestmark = pytest.mark.unit

ITEMS = 9


def batch_of(targets: list[int], verdicts: list[Verdict], weights: list[float]) -> Batch:
    """One window per target, each predicted from the start profile."""
    users = len(targets)
    return Batch(
        items=torch.zeros((users, 1), dtype=torch.int64),
        actions=torch.zeros((users, 1), dtype=torch.int64),
        values=torch.zeros((users, 1)),
        gaps_s=torch.full((users, 1), math.nan),
        mask=torch.zeros((users, 1), dtype=torch.bool),
        targets=torch.tensor([[target, 0] for target in targets]),
        weights=torch.tensor([[weight, 0.0] for weight in weights]),
        replayed=torch.zeros(users, dtype=torch.bool),
        verdicts=torch.tensor([[verdict, 0] for verdict in verdicts], dtype=torch.uint8),
    )


def make_model(counts: list[float] | None = None) -> HeadModel:
    held = np.array(counts or [50.0] * ITEMS, np.float32)
    return from_head(make_head(), ITEMS, counts=held).eval()


def losses(model: HeadModel, objective: Objective, batch: Batch) -> dict[str, Tensor]:
    text = torch.from_numpy(unit_rows(ITEMS, TEXT_DIM))
    vectors, bias = model.item_vectors(text), model.item_bias()
    profiles = model.profiles(vectors, batch)
    generator = torch.Generator().manual_seed(0)
    return objective.losses(model, vectors, bias, profiles, batch, generator)


def bias_gradient(model: HeadModel, loss: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(loss, model.bias)
    return gradient


def test_clicks_are_binary_cross_entropy_on_the_score_that_ranks() -> None:
    model = make_model()
    objective = Objective(LearnerSettings(objective="click", click_negatives=0.0), model.counts)
    verdicts = [Verdict.POSITIVE, Verdict.PASSED, Verdict.DISLIKED, Verdict.UNASKED]
    batch = batch_of([1, 2, 3, 4], verdicts, [1.0, 0.5, 0.0, 0.0])

    found = losses(model, objective, batch)

    text = torch.from_numpy(unit_rows(ITEMS, TEXT_DIM))
    vectors, bias = model.item_vectors(text), model.item_bias()
    scores = model.logits(model.profiles(vectors, batch)[:3, 0], vectors, bias)
    own = scores[torch.arange(3), torch.tensor([1, 2, 3])]
    wanted = F.binary_cross_entropy_with_logits(own, torch.tensor([1.0, 0.0, 0.0]))
    assert list(found) == ["click"]
    assert found["click"].item() == pytest.approx(wanted.item(), abs=1e-6)


def test_drawn_negatives_push_down_what_nobody_touched_and_never_the_target() -> None:
    model = make_model()
    settings = LearnerSettings(objective="click", click_negatives=1.0)
    objective = Objective(settings, model.counts)

    found = losses(model, objective, batch_of([1], [Verdict.POSITIVE], [1.0]))
    gradient = bias_gradient(model, found["click"])

    assert gradient[1] < 0, "the target goes up"
    assert all(gradient[item] > 0 for item in range(ITEMS) if item != 1)


def test_dislikes_pull_their_items_down_in_next_item_when_asked_to() -> None:
    model = make_model()
    batch = batch_of([1, 3], [Verdict.POSITIVE, Verdict.DISLIKED], [1.0, 0.0])

    def push(weight: float) -> float:
        objective = Objective(LearnerSettings(dislike_weight=weight), model.counts)
        total = objective.total(losses(model, objective, batch))
        return bias_gradient(model, total)[3].item()

    assert push(1.0) > push(0.1) > push(0.0)


def test_a_dislike_moves_nothing_when_its_weight_is_nought() -> None:
    model = make_model()
    objective = Objective(LearnerSettings(), model.counts)
    with_it = batch_of([1, 3], [Verdict.POSITIVE, Verdict.DISLIKED], [1.0, 0.0])
    without = batch_of([1], [Verdict.POSITIVE], [1.0])

    one, two = (losses(model, objective, batch)["next_item"] for batch in (with_it, without))

    assert one.item() == pytest.approx(two.item())


@pytest.mark.parametrize("is_sampled", [False, True])
def test_with_the_whole_correction_popularity_is_not_learned(
    is_sampled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if is_sampled:
        monkeypatch.setattr(objectives, "FULL_SOFTMAX_ITEMS", 0)
        monkeypatch.setattr(objectives, "SAMPLED_NEGATIVES", 20_000)
    # Items come as often as their counts say, whoever the user is.
    counts = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 64.0]
    targets = [item for item, count in enumerate(counts) for _ in range(int(count))]
    batch = batch_of(targets, [Verdict.POSITIVE] * len(targets), [1.0] * len(targets))
    model = make_model(counts)
    with torch.no_grad():  # a model without any preference
        model.arrays["score_scale"].zero_()
        model.bias.zero_()
        model.arrays["new_item_bias"].zero_()

    def pull(correction: float) -> float:
        settings = LearnerSettings(popularity_correction=correction)
        objective = Objective(settings, model.counts)
        return float(bias_gradient(model, losses(model, objective, batch)["next_item"]).abs().max())

    assert pull(1.0) < 0.1 * pull(0.0)


def test_task_weights_settle_where_both_tasks_count_alike() -> None:
    objective = Objective(LearnerSettings(objective="multi_task"), torch.ones(ITEMS))
    fixed = {"next_item": torch.tensor(6.0), "click": torch.tensor(0.5)}
    optimiser = torch.optim.Adam(objective.parameters(), lr=0.1)

    for _ in range(300):
        optimiser.zero_grad()
        objective.total(fixed).backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    weights = objective.task_weights()
    assert weights["weight_next_item"] * 6.0 == pytest.approx(0.5, abs=0.01)
    assert weights["weight_click"] * 0.5 == pytest.approx(0.5, abs=0.01)


def test_verdicts_follow_actions_ratings_and_the_settings() -> None:
    actions = ActionWeights.from_settings({"rate": 1.0, "hide": -1.0, "view": 0.3})
    rated = segment(3, action="rate", values=[5.0, 2.0, 0.0])
    viewed, hidden = segment(1, action="view"), segment(1, action="hide")

    assert actions.verdicts_of(rated).tolist() == [
        Verdict.POSITIVE,
        Verdict.DISLIKED,
        Verdict.POSITIVE,
    ]
    assert actions.verdicts_of(viewed).tolist() == [Verdict.POSITIVE]
    assert actions.verdicts_of(viewed, ["rate"]).tolist() == [Verdict.PASSED]
    assert actions.verdicts_of(hidden, ["hide"]).tolist() == [Verdict.DISLIKED]
