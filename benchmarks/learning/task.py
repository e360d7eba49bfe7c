"""The task both sides learn: predict each next item of a user's window, all its texts being read.

An *example* is one event to be predicted.  A batch is some windows of consecutive events, each of
one user.  Every item text in the batch is read by the language model with gradient; the loss is
the product's own (`learner.stepping.batch_loss`): profiles by the recurrence, softmax over the
whole catalogue, whose other items keep cached vectors.  Product defaults read only
`learner.lora_items` texts of a batch with gradient; here all are, so that no side saves by leaving
work out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from benchmarks.offline.interactions import Interactions
from learner.bootstrap import bootstrap_head, head_shape
from learner.catalogue import Catalogue, make_catalogue
from learner.catalogue_text import CatalogueText
from learner.language import LanguageModel
from learner.model import Batch, HeadModel, from_head
from learner.objectives import Objective
from learner.sampling import ActionWeights, Segment, Windows, join, make_windows
from learner.stepping import batch_loss
from profiles.config import Settings
from profiles.settings.learning import LearnerSettings
from profiles.wire import key64

SEEN = 10.0
"""Events said to stand behind each item, so that its own vector counts beside its text."""


@dataclass(frozen=True, slots=True)
class Task:
    """Data, start weights and settings.

    `first_text` (N, T): the catalogue before any step; `tokens` (N,): of each item's text.
    """

    settings: Settings
    catalogue: Catalogue
    windows: Windows
    language: LanguageModel
    first_text: Tensor
    tokens: Tensor
    head: HeadModel
    start: dict[str, Tensor]
    device: str

    @property
    def learner(self) -> LearnerSettings:
        return self.settings.learner

    def batch(self, number: int) -> Batch:
        """Batch `number`: the next `batch_users` windows."""
        users = self.learner.batch_users
        rows = np.arange(number * users, (number + 1) * users) % len(self.windows)
        return join(self.windows, rows, self.windows, rows[:0]).to(self.device)

    def rows_of(self, batch: Batch) -> Tensor:
        """Catalogue row of every event in a batch: inputs, then targets.  Shapes: -> (M,)."""
        return torch.cat([batch.items[batch.mask], batch.targets[batch.weights > 0]])

    def loss(self, text: Tensor, batch: Batch, number: int) -> Tensor:
        """The product's loss of batch `number`.  Shapes: text (N, T) -> scalar."""
        generator = torch.Generator().manual_seed(number)
        objective = Objective(self.learner, self.head.counts)
        return batch_loss(
            self.head, objective, text, batch, self.learner, None, {}, generator
        ).total

    def reset(self) -> CatalogueText:
        """Put all weights back to the start.  Returns: the catalogue's vectors at the start."""
        with torch.no_grad():
            for name, weight in self.language.weights().items():
                weight.copy_(self.start[f"language/{name}"])
            for name, weight in self.head.named_parameters():
                weight.copy_(self.start[f"head/{name}"])
                weight.grad = None
        return CatalogueText(self.catalogue, self.language, self.first_text.cpu().numpy())


def make_task(found: Interactions, settings: Settings, windows: int, device: str) -> Task:
    """The first `windows` windows of the data set, in a random order of users."""
    seed = settings.learner.seed
    catalogue = make_catalogue(found.catalogue)
    actions = ActionWeights.from_settings(settings.actions)
    made = make_windows(
        _segments(found, actions, seed), catalogue, actions, settings.learner.sequence_length
    )
    rows = np.random.default_rng(seed).permutation(len(made))[:windows]
    chosen = Windows(*(getattr(made, name)[rows] for name in Windows.__slots__))
    language = LanguageModel.load(settings.model, None, device, seed)
    text = torch.tensor(language.encode(catalogue.texts), device=device)
    shape = head_shape(settings, text.shape[1])
    new = bootstrap_head(text.cpu().numpy(), shape, actions.names, seed)
    head = from_head(new, len(catalogue), counts=np.full(len(catalogue), SEEN, np.float32))
    head.to(device)
    start = {f"language/{name}": w.detach().clone() for name, w in language.weights().items()}
    start |= {f"head/{name}": w.detach().clone() for name, w in head.named_parameters()}
    read = language.encoder.tokenizer(
        list(catalogue.texts), truncation=True, max_length=settings.model.max_tokens
    )["input_ids"]
    tokens = torch.tensor([len(ids) for ids in read])
    return Task(settings, catalogue, chosen, language, text, tokens, head, start, device)


def _segments(found: Interactions, actions: ActionWeights, seed: int) -> list[Segment]:
    """One segment per user, users in random order."""
    names = np.array([actions.names.index(name) for name in found.action_names])
    keys = np.array([key64(item.item_id) for item in found.catalogue], np.uint64)
    values = np.nan_to_num(found.values)
    made = []
    for user in np.random.default_rng(seed).permutation(len(found.user_ids)).tolist():
        rows = np.flatnonzero(found.users == user)
        made.append(
            Segment(
                user,
                0,
                0,
                keys[found.items[rows]],
                found.ts[rows],
                names[found.actions[rows]],
                values[rows],
                rows,
            )
        )
    return made
