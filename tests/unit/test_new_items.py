"""What becomes of items that few or no events stand behind: in training, and once served."""

from __future__ import annotations

import numpy as np
import torch

from learner.model import Batch, HeadModel, from_head
from learner.objectives import Objective
from learner.sampling import Verdict
from learner.stepping import batch_loss
from profiles.head import Head, embed_items
from profiles.layers import Floats
from profiles.settings.learning import LearnerSettings
from profiles.updater import (
    KNOWN_ITEM_EVENTS,
    Steps,
    advance,
    interest_move,
    profile_at_start,
    start_state,
)
from tests.unit.builders import make_head

ITEMS = 30
COUNTS = np.array([0.0] * 5 + [1.0] * 5 + [400.0] * 20, np.float32)


def a_twin() -> tuple[HeadModel, torch.Tensor]:
    rng = np.random.default_rng(1)
    head = make_head()
    ids = rng.normal(size=(ITEMS, head.shape.dim)).astype(np.float32)
    text = rng.normal(size=(ITEMS, head.shape.text_dim)).astype(np.float32)
    return from_head(head, ITEMS, ids=ids, counts=COUNTS), torch.from_numpy(text)


def a_batch(targets: list[int]) -> Batch:
    users = len(targets)
    return Batch(
        items=torch.full((users, 1), 20),
        actions=torch.zeros((users, 1), dtype=torch.int64),
        values=torch.zeros((users, 1)),
        gaps_s=torch.full((users, 1), torch.nan),
        mask=torch.ones((users, 1), dtype=torch.bool),
        targets=torch.tensor([[0, target] for target in targets]),
        weights=torch.tensor([[0.0, 1.0]] * users),
        replayed=torch.zeros(users, dtype=torch.bool),
        verdicts=torch.full((users, 2), int(Verdict.POSITIVE), dtype=torch.uint8),
    )


def loss_of(model: HeadModel, text: torch.Tensor, target: int, seed: int) -> torch.Tensor:
    settings = LearnerSettings()
    generator = torch.Generator().manual_seed(seed)
    objective = Objective(settings, model.counts)
    return batch_loss(
        model, objective, text, a_batch([target]), settings, None, {}, generator
    ).total


def learned_share(model: HeadModel, text: torch.Tensor, target: int, steps: int) -> Floats:
    """In how many of the steps each item's collaborative part gets a gradient.  -> (N,)."""
    model.train()
    total = torch.zeros(ITEMS)
    for step in range(steps):
        model.zero_grad()
        loss_of(model, text, target, step).backward()  # type: ignore[no-untyped-call]
        assert model.ids.grad is not None
        total += (model.ids.grad.abs().sum(1) > 0).float()
    return (total / steps).numpy()


def test_an_item_without_events_is_not_pushed_away_in_training() -> None:
    model, text = a_twin()
    text = text.requires_grad_()
    model.train()

    loss_of(model, text, 25, 0).backward()  # type: ignore[no-untyped-call]

    assert text.grad is not None
    moved = text.grad.abs().sum(1).numpy() > 0
    assert not moved[:5].any()
    assert moved[5:].all()


def test_a_target_without_counted_events_is_learned_all_the_same() -> None:
    model, text = a_twin()

    assert torch.isfinite(loss_of(model, text, 0, 0))


def test_rare_items_are_mostly_learned_from_their_text() -> None:
    model, text = a_twin()

    share = learned_share(model, text, target=25, steps=60)

    # id_gate is 10 in this head: 0.9 * 10/11 of the time for one event, a tenth for 400.
    assert 0.05 < share[5:10].mean() < 0.35
    assert share[10:].mean() > 0.85


def test_the_gain_of_new_items_is_served_but_not_trained() -> None:
    model, text = a_twin()
    model.set_new_item_gain(2.0)

    plain, served = model.item_vectors(text), model.served_vectors(text)

    longer = (served.norm(dim=1) / plain.norm(dim=1)).detach().numpy()
    assert np.allclose(longer[:5], 2.0)
    assert np.allclose(longer[10:], 1.0, atol=1e-3)
    assert np.allclose(
        embed_items(model.to_head(), text.numpy(), model.ids.detach().numpy(), COUNTS),
        served.detach().numpy(),
        atol=1e-5,
    )


def test_a_declared_interest_moves_a_new_profile_as_an_event_on_a_known_item_would() -> None:
    made = make_head()
    arrays = made.arrays()
    arrays["action"][0] = 0.0
    head = Head.from_arrays(made.shape, made.actions, arrays)
    text = np.random.default_rng(2).normal(size=(3, head.shape.text_dim)).astype(np.float32)
    nothing = np.zeros((3, head.shape.dim), np.float32)

    moved = interest_move(head, text)

    known = embed_items(head, text, nothing, np.full(3, KNOWN_ITEM_EVENTS, np.float32))
    event = Steps(known, np.zeros(3, np.int64), np.zeros(3, np.float32), np.full(3, np.nan))
    _, after = advance(head, start_state(head, 3), event)
    assert np.allclose(profile_at_start(head, 3) + moved, after, atol=1e-5)
    assert np.abs(moved).max() > 0.1
