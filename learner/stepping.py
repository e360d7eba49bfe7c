"""One training step: a batch to a loss, with its pulls towards the parent.

Kept apart from `trainer.py` so that what is optimised can be read, and tested, without the
schedule around it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.losses import (
    FULL_SOFTMAX_ITEMS,
    SAMPLED_NEGATIVES,
    distillation,
    draw_negatives,
    next_item_loss,
    proximal_pull,
    sampled_next_item_loss,
)
from learner.model import Batch, HeadModel
from profiles.config import LearnerSettings
from profiles.errors import LearnerError

ID_DROPOUT = 0.1
"""Share of items whose collaborative part is hidden in a step: keeps text able to stand alone."""
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


def batch_loss(
    model: HeadModel,
    text: Tensor,
    batch: Batch,
    settings: LearnerSettings,
    anchor: Anchor | None,
    lora: Mapping[str, Tensor],
    generator: torch.Generator,
) -> Tensor:
    """The whole objective on one batch.

    Shapes: text (N, T), some rows possibly with gradient into the adapter -> scalar.
    Raises: LearnerError when the loss is not a finite number.
    """
    device = text.device
    kept = None
    if model.training:
        draws = torch.rand(len(text), generator=generator)
        kept = (draws >= ID_DROPOUT).float().to(device)
    vectors, bias = model.item_vectors(text, kept), model.item_bias()
    profiles = model.profiles(vectors, batch)
    wanted = batch.weights > 0
    rows, targets, weights = profiles[wanted], batch.targets[wanted], batch.weights[wanted]
    if len(text) <= FULL_SOFTMAX_ITEMS:
        logits = model.logits(rows, vectors, bias)
        loss = next_item_loss(logits, targets, weights)
    else:
        negatives = draw_negatives(len(text), SAMPLED_NEGATIVES, generator).to(device)
        scale = model.arrays["score_scale"]
        loss = sampled_next_item_loss(rows, vectors, bias, scale, targets, weights, negatives)
    if anchor is not None and settings.proximal > 0:
        mine = [*model.arrays.values(), model.ids, model.bias, *lora.values()]
        theirs = [
            *anchor.model.arrays.values(),
            anchor.model.ids,
            anchor.model.bias,
            *(anchor.lora[name] for name in lora),
        ]
        loss = loss + settings.proximal * proximal_pull(mine, theirs)
    if anchor is not None and settings.distill > 0 and bool(batch.replayed.any()):
        loss = loss + settings.distill * _distilled(
            model, vectors, bias, profiles, batch, anchor, generator
        )
    if not bool(torch.isfinite(loss)):
        raise LearnerError(
            f"training diverged: the loss became {loss.item()}; the round was dropped and the "
            "serving release stays; lower learner.head_lr or learner.lora_lr"
        )
    return loss


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


@torch.no_grad()
def validate(model: HeadModel, text: Tensor, batches: list[Batch]) -> tuple[float, float]:
    """(mean loss, mean NDCG@10 with nothing filtered) over held-out windows; dropout off."""
    model.eval()
    vectors, bias = model.item_vectors(text), model.item_bias()
    loss_sum, gain_sum, weight_sum = 0.0, 0.0, 0.0
    for batch in batches:
        wanted = batch.weights > 0
        targets, weights = batch.targets[wanted], batch.weights[wanted]
        profiles = model.profiles(vectors, batch)[wanted]
        for start in range(0, len(targets), 4096):
            some = slice(start, start + 4096)
            logits = model.logits(profiles[some], vectors, bias)
            mine = logits.gather(1, targets[some, None])
            losses = torch.logsumexp(logits, dim=1) - mine[:, 0]
            ranks = (logits >= mine).sum(1)
            gain = torch.where(ranks <= 10, 1.0 / torch.log2(1.0 + ranks), 0.0)
            loss_sum += float((losses * weights[some]).sum())
            gain_sum += float((gain * weights[some]).sum())
            weight_sum += float(weights[some].sum())
    model.train()
    return loss_sum / max(weight_sum, 1e-9), gain_sum / max(weight_sum, 1e-9)
