"""The language model learns the catalogue's texts from nothing but themselves, before any event.

Two readings of one text, each without some of its words, are to lie nearer to one another than to
readings of other texts: the contrastive loss of SimCSE (Gao et al. 2021, arXiv:2104.08821), with
dropped words for its dropped units, because the base's dropout is off here (`learner.language`).
What comes of it is an ordinary adapter, so the first release differs from others in nothing.

Off by default: the bundled model has been trained in this way on far more text.  A base that has
not (a plain masked or causal language model) is what this is for.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from learner.augmentation import drop_words
from learner.language import LanguageModel
from learner.optimisation import schedule
from profiles.errors import LearnerError
from profiles.settings.learning import LearnerSettings

BATCH_TEXTS = 64
"""Each text of a batch is told from the 63 others."""
DROPPED = 0.3
"""Share of words left out of a reading.  Titles are short: less would often leave out none."""
TEMPERATURE = 0.05
LEAST_TEXTS = 8
"""Among fewer there is nothing to tell apart."""


def adapt_to(
    language: LanguageModel, texts: Sequence[str], settings: LearnerSettings
) -> dict[str, float]:
    """Train the adapter for `settings.catalogue_steps` steps.

    Returns: the loss at the beginning and at the end (means of a tenth of the steps), to go with
    the release; nothing where no step was made.
    Raises: LearnerError when the loss is no number.
    """
    distinct = sorted(set(texts))
    weights = list(language.weights().values())
    steps = settings.catalogue_steps
    if not steps or not weights or len(distinct) < LEAST_TEXTS:
        return {}
    rng = np.random.default_rng([settings.seed, 8])
    share = schedule(settings.schedule, steps)
    optimiser = torch.optim.AdamW(weights, lr=settings.lora_lr, weight_decay=0.0)
    losses = np.empty(steps)
    for step in range(steps):
        size = min(BATCH_TEXTS, len(distinct))
        chosen = [distinct[row] for row in rng.permutation(len(distinct))[:size]]
        read = [drop_words(text, DROPPED, rng) for _ in range(2) for text in chosen]
        vectors = F.normalize(language.embed_trainable(read).float(), dim=1)
        alike = vectors[:size] @ vectors[size:].T / TEMPERATURE
        own = torch.arange(size, device=alike.device)
        loss = 0.5 * (F.cross_entropy(alike, own) + F.cross_entropy(alike.T, own))
        losses[step] = loss.item()
        if not np.isfinite(losses[step]):
            raise LearnerError(
                f"learning the catalogue's texts diverged at step {step}: the loss became "
                f"{losses[step]}; lower learner.lora_lr or learner.catalogue_steps"
            )
        for group in optimiser.param_groups:
            group["lr"] = settings.lora_lr * share(step)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch does not type it
        torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)
        optimiser.step()
    part = max(steps // 10, 1)
    return {
        "catalogue_loss_first": float(losses[:part].mean()),
        "catalogue_loss_last": float(losses[-part:].mean()),
    }
