"""How well a model under training does on the held-out windows: decides early stopping.

By batch and on the twin, so it takes a second, where the gate's exam (learner/evaluation.py) takes
a while and walks whole histories with the workers' arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learner.model import Batch, HeadModel
from learner.objectives import Objective
from learner.sampling import Verdict

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, slots=True)
class Validation:
    """Means over held-out targets.  `loss` is what the objective asks for: the sum of its tasks'
    losses; `ndcg10` ranks the whole catalogue with nothing filtered."""

    loss: float
    ndcg10: float
    next_item_loss: float
    click_loss: float | None

    def figures(self) -> dict[str, float]:
        """By name, for whoever watches."""
        found = {
            "validation_loss": self.loss,
            "validation_ndcg": self.ndcg10,
            "validation_next_item_loss": self.next_item_loss,
        }
        return (
            found
            if self.click_loss is None
            else {**found, "validation_click_loss": self.click_loss}
        )


@torch.no_grad()
def validate(
    model: HeadModel, objective: Objective, text: Tensor, batches: Sequence[Batch]
) -> Validation:
    """Dropout off; drawn negatives are the same every time."""
    model.eval()
    vectors, bias = model.served_vectors(text), model.item_bias()
    generator = torch.Generator().manual_seed(0)
    loss_sum, gain_sum, weight_sum, click_sum, click_count = 0.0, 0.0, 0.0, 0.0, 0
    for batch in batches:
        profiles = model.profiles(vectors, batch)
        if objective.predicts_clicks:
            asked = int((batch.verdicts != Verdict.UNASKED).sum())
            loss = objective.click(model, vectors, bias, profiles, batch, generator)
            click_sum, click_count = click_sum + asked * loss.item(), click_count + asked
        wanted = batch.weights > 0
        targets, weights = batch.targets[wanted], batch.weights[wanted]
        rows = profiles[wanted]
        for start in range(0, len(targets), ROWS_AT_ONCE):
            some = slice(start, start + ROWS_AT_ONCE)
            logits, goal = model.logits(rows[some], vectors, bias), targets[some, None]
            corrected = logits + objective.correction
            losses = torch.logsumexp(corrected, dim=1) - corrected.gather(1, goal)[:, 0]
            ranks = (logits >= logits.gather(1, goal)).sum(1)
            gain = torch.where(ranks <= 10, 1.0 / torch.log2(1.0 + ranks), 0.0)
            loss_sum += float((losses * weights[some]).sum())
            gain_sum += float((gain * weights[some]).sum())
            weight_sum += float(weights[some].sum())
    model.train()
    next_item = loss_sum / max(weight_sum, 1e-9)
    click = click_sum / max(click_count, 1) if objective.predicts_clicks else None
    tasks = [next_item] if objective.predicts_items else []
    return Validation(
        loss=sum(tasks) + (click or 0.0),
        ndcg10=gain_sum / max(weight_sum, 1e-9),
        next_item_loss=next_item,
        click_loss=click,
    )
