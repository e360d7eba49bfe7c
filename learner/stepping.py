"""One training step: a batch to a loss, with its pulls towards the parent.

Kept apart from `trainer.py` so that what is optimised can be read, and tested, without the
schedule around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.adversarial import worst_case
from learner.losses import (
    FULL_SOFTMAX_ITEMS,
    SAMPLED_NEGATIVES,
    distillation,
    draw_negatives,
    proximal_pull,
)
from learner.model import Batch, HeadModel
from learner.objectives import Objective
from profiles.errors import LearnerError
from profiles.settings.learning import LearnerSettings

ID_DROPOUT = 0.1
"""Share of items whose collaborative part is hidden in a step: keeps text able to stand alone."""
RARE_HIDDEN = 0.9
"""The same share for an item without events.  The few events of rare items must be learned from
their texts, because that is how a new item will be placed, and with which bias."""
DISTILL_ROWS = 256
"""Replayed positions distilled in a step, at most: bounds memory at (256, N) twice."""


@dataclass(slots=True)
class Anchor:
    """The parent, held still: its model for distillation, its parameters for the pull.

    `text` (N, T) are the vectors that the parent's adapter makes of the catalogue.
    """

    model: HeadModel
    text: Tensor
    lora: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class BatchLoss:
    """What a step goes down, and its parts for whoever watches."""

    total: Tensor
    figures: dict[str, float]


def batch_loss(
    model: HeadModel,
    objective: Objective,
    text: Tensor,
    batch: Batch,
    settings: LearnerSettings,
    anchor: Anchor | None,
    lora: Mapping[str, Tensor],
    generator: torch.Generator,
) -> BatchLoss:
    """The whole objective on one batch.

    Shapes: text (N, T), some rows possibly with gradient into the adapter.
    Raises: LearnerError when the loss is not a finite number.
    """
    kept = None
    if model.training:
        draws = torch.rand(len(text), generator=generator).to(text.device)
        hidden_share = (RARE_HIDDEN * (1.0 - model.gate())).clamp(min=ID_DROPOUT)
        kept = (draws >= hidden_share).float()
    vectors, bias = model.item_vectors(text, kept), model.item_bias(kept)
    profiles = model.profiles(vectors, batch)
    losses = objective.losses(model, vectors, bias, profiles, batch, generator)
    loss = objective.total(losses)
    if settings.adversarial > 0 and model.training:
        moved = vectors + worst_case(loss, vectors, settings.adversarial)
        again = model.profiles(moved, batch)
        worst = objective.losses(model, moved, bias, again, batch, generator)
        losses["adversarial"] = objective.total(worst)
        # Half each, so that the pulls below weigh as much as without (Goodfellow et al. 2015).
        loss = 0.5 * (loss + losses["adversarial"])
    if anchor is not None and settings.proximal > 0:
        mine = [*model.arrays.values(), model.ids, model.bias, *lora.values()]
        theirs = [
            *anchor.model.arrays.values(),
            anchor.model.ids,
            anchor.model.bias,
            *(anchor.lora[name] for name in lora),
        ]
        losses["proximal"] = settings.proximal * proximal_pull(mine, theirs)
        loss = loss + losses["proximal"]
    if anchor is not None and settings.distill > 0 and bool(batch.replayed.any()):
        losses["distill"] = settings.distill * _distilled(
            model, vectors, bias, profiles, batch, anchor, generator
        )
        loss = loss + losses["distill"]
    if not bool(torch.isfinite(loss)):
        raise LearnerError(
            f"training diverged: the loss became {loss.item()}; the round was dropped and the "
            "serving release stays; lower learner.head_lr or learner.lora_lr"
        )
    figures = {f"loss_{name}": value.item() for name, value in losses.items()}
    return BatchLoss(loss, {**figures, **objective.task_weights()})


def _distilled(
    model: HeadModel,
    vectors: Tensor,
    bias: Tensor,
    profiles: Tensor,
    batch: Batch,
    anchor: Anchor,
    generator: torch.Generator,
) -> Tensor:
    """KL from the parent's scores on replayed positions, at most `DISTILL_ROWS` of them."""
    places = torch.nonzero((batch.weights > 0) & batch.replayed[:, None])
    if not len(places):
        return profiles.new_zeros(())
    pick = torch.randperm(len(places), generator=generator)[:DISTILL_ROWS]
    at = places[pick.to(places.device)]
    users, where = torch.unique(at[:, 0], return_inverse=True)
    items = None
    if len(vectors) > FULL_SOFTMAX_ITEMS:
        items = draw_negatives(len(vectors), SAMPLED_NEGATIVES, generator).to(vectors.device)
    with torch.no_grad():
        old_vectors, old_bias = anchor.model.item_vectors(anchor.text), anchor.model.item_bias()
        part = Batch(*(getattr(batch, name)[users] for name in Batch.__slots__))
        old_profiles = anchor.model.profiles(old_vectors, part)[where, at[:, 1]]
        if items is not None:
            old_vectors, old_bias = old_vectors[items], old_bias[items]
        teacher = anchor.model.logits(old_profiles, old_vectors, old_bias)
    if items is not None:
        vectors, bias = vectors[items], bias[items]
    student = model.logits(profiles[at[:, 0], at[:, 1]], vectors, bias)
    return distillation(student, teacher)
