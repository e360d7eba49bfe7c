"""What a round learns to predict, by `learner.objective`.

    next_item    which item comes next: softmax over the catalogue (learner/losses.py)
    click        whether an act on an item is a positive one: binary cross-entropy on the score
    multi_task   both, each weighted by a variance that is learned with it

One score serves both tasks, so what is ranked is what is trained.  Against uniformly drawn items
the best binary classifier's logit is the log of the same probability that the softmax learns, up
to a constant (Gutmann & Hyvarinen 2010); what the click task adds are the events' own verdicts.

Explicit negative feedback (dislike, hide, a rating of one or two stars) is a label of the click
task.  In the next-item task it is pushed down by `learner.dislike_weight` times
softplus(log(p(item) N)): the log odds that the item comes from this user rather than from a
uniform draw.  Plain unlikelihood (Welleck et al. 2020), -log(1 - p), has a gradient of about p,
which is nothing in a catalogue of thousands.

Popularity correction adds tau log q(item) to the scores in training alone, q being the item's share
of all events: what is then left to the score is preference beyond popularity.  Source: logit
adjustment, Menon et al. 2021; as logQ in sampled softmax, Yi et al. 2019.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from learner.losses import (
    FULL_SOFTMAX_ITEMS,
    SAMPLED_NEGATIVES,
    draw_negatives,
    next_item_loss,
    sampled_logits,
)
from learner.model import Batch, HeadModel
from learner.sampling import Verdict
from profiles.settings.learning import LearnerSettings

CLICK_NEGATIVES = 256
"""Uniform items that each positive event of a batch is held against, shared by the batch."""


class Objective(nn.Module):
    """The losses of one batch, and their sum.

    Its own weights: `slope` and `intercept` turn a score into the logit of a click, and
    `log_variance` (2,) of next item and click weighs the tasks.
    """

    def __init__(self, settings: LearnerSettings, counts: Tensor) -> None:
        super().__init__()
        self._settings = settings
        self.slope = nn.Parameter(torch.ones(()))
        self.intercept = nn.Parameter(torch.zeros(()))
        self.log_variance = nn.Parameter(torch.zeros(2))
        share = (counts + 1.0) / (counts + 1.0).sum()
        self.correction: Tensor
        self.register_buffer("correction", settings.popularity_correction * share.log())

    @property
    def predicts_items(self) -> bool:
        return self._settings.objective != "click"

    @property
    def predicts_clicks(self) -> bool:
        return self._settings.objective != "next_item"

    def losses(
        self,
        model: HeadModel,
        vectors: Tensor,
        bias: Tensor,
        profiles: Tensor,
        batch: Batch,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        """Each task's loss by name.

        Shapes: vectors (N, D), bias (N,), profiles (B, S+1, D) -> scalars.
        """
        found: dict[str, Tensor] = {}
        if self.predicts_items:
            found |= self._next_item(model, vectors, bias, profiles, batch, generator)
        if self.predicts_clicks:
            found["click"] = self.click(model, vectors, bias, profiles, batch, generator)
        return found

    def total(self, losses: Mapping[str, Tensor]) -> Tensor:
        """The sum.  Two tasks: exp(-s) loss + s/2 each, s the log variance of a task.

        Source: homoscedastic uncertainty, Kendall, Gal & Cipolla 2018.
        """
        first = [losses[name] for name in ("next_item", "dislike") if name in losses]
        if not self.predicts_clicks:
            return torch.stack(first).sum()
        if not self.predicts_items:
            return losses["click"]
        tasks = torch.stack([torch.stack(first).sum(), losses["click"]])
        return (torch.exp(-self.log_variance) * tasks + 0.5 * self.log_variance).sum()

    def task_weights(self) -> dict[str, float]:
        """What each task's loss is multiplied with, where there are two."""
        if not (self.predicts_items and self.predicts_clicks):
            return {}
        weights = torch.exp(-self.log_variance.detach()).tolist()
        return {"weight_next_item": weights[0], "weight_click": weights[1]}

    def click_logits(self, scores: Tensor) -> Tensor:
        """Logit of "this act is a positive one".  Any shape."""
        return self.slope * scores + self.intercept

    def click(
        self,
        model: HeadModel,
        vectors: Tensor,
        bias: Tensor,
        profiles: Tensor,
        batch: Batch,
        generator: torch.Generator,
    ) -> Tensor:
        """Binary cross-entropy: events by their verdict, and uniformly drawn items as negatives.

        The drawn ones weigh `learner.click_negatives` times the positive events together.
        """
        asked = batch.verdicts != Verdict.UNASKED
        rows, targets = profiles[asked], batch.targets[asked]
        if not len(rows):
            return vectors.new_zeros(())
        scale = model.arrays["score_scale"]
        is_positive = (batch.verdicts[asked] == Verdict.POSITIVE).float()
        own = (rows * vectors[targets]).sum(-1) * scale + bias[targets]
        loss = F.binary_cross_entropy_with_logits(
            self.click_logits(own).float(), is_positive, reduction="sum"
        )
        ratio, liked = self._settings.click_negatives, is_positive.bool()
        if ratio > 0 and bool(liked.any()):
            drawn = draw_negatives(len(vectors), CLICK_NEGATIVES, generator).to(vectors.device)
            others = rows[liked] @ vectors[drawn].T * scale + bias[drawn]
            each = F.softplus(self.click_logits(others).float())
            is_other = (drawn[None] != targets[liked][:, None]).float()
            loss = loss + ratio * ((each * is_other).sum(1) / is_other.sum(1).clamp(min=1)).sum()
        return loss / len(rows)

    def _next_item(
        self,
        model: HeadModel,
        vectors: Tensor,
        bias: Tensor,
        profiles: Tensor,
        batch: Batch,
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        pull = self._settings.dislike_weight
        wanted = batch.weights > 0
        disliked = (batch.verdicts == Verdict.DISLIKED) & (pull > 0)
        asked = wanted | disliked
        rows, targets = profiles[asked], batch.targets[asked]
        # An item that nobody touched yet may be newer than every event here: nobody passed it over.
        touched = (model.counts > 0).index_fill(0, targets, True)
        part = touched.nonzero()[:, 0]
        vectors, bias = vectors[part], (bias + self.correction)[part]
        targets, items = (touched.cumsum(0) - 1)[targets], len(part)
        smoothing = self._settings.label_smoothing
        if items <= FULL_SOFTMAX_ITEMS:
            logits = model.logits(rows, vectors, bias)
        else:
            drawn = draw_negatives(items, SAMPLED_NEGATIVES, generator).to(vectors.device)
            scale = model.arrays["score_scale"]
            logits = sampled_logits(rows, vectors, bias, scale, targets, drawn)
            # A draw that is the target is at -inf there, and has no share to give.
            targets, smoothing = torch.zeros_like(targets), 0.0
        found = {"next_item": next_item_loss(logits, targets, batch.weights[asked], smoothing)}
        if pull > 0:
            log_share = -F.cross_entropy(logits.float(), targets, reduction="none")
            pushed = F.softplus(log_share + math.log(items)) * disliked[asked]
            found["dislike"] = pull * pushed.sum() / wanted.sum().clamp(min=1)
        return found

    # -- for the checkpoint ---------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        return self.state_dict()

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        self.load_state_dict(dict(tensors))
