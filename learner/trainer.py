"""One learning round: events and the parent release in, a candidate release out.

Three stages, each resumable (learner/checkpoint.py):

    head      head and collaborative parts on cached text vectors, until they know their way
    language  LoRA and head together: a sample of item texts is read with gradient in each step,
              all other items keep their cached vectors; then the catalogue is read again
    polish    the head again, on the new vectors, to early stopping; the best epoch wins

A round on a trained parent skips `head` (the parent has been there), learns at a fraction of the
rate, is pulled to the parent and distils its scores on replayed events.  A private round
(learner/private_steps.py) has the last stage alone, and ends after its last epoch.  Imports torch,
transformers, peft, safetensors and numpy only: runs on a bare GPU machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor

from learner.augmentation import augment_sequences
from learner.averaging import Average, put
from learner.catalogue_text import CatalogueText
from learner.checkpoint import Checkpoint, Position, group, load_checkpoint, save_checkpoint
from learner.language import LanguageModel, pick_device
from learner.model import Batch
from learner.objectives import Objective
from learner.optimisation import Optimisers
from learner.private_steps import PrivateSteps
from learner.round_batches import RoundBatches
from learner.round_types import Candidate, Hooks, Parent, RoundCancelled, RoundData
from learner.sampling import ActionWeights
from learner.stepping import Anchor, BatchLoss, batch_loss
from learner.team import Team
from learner.twins import table_of, twin_of
from learner.validation import Validation, validate
from profiles.settings.learning import LearnerSettings, ModelSettings

T = TypeVar("T")
HEAD_EPOCHS = 3
"""Epochs of the first stage; after three, MovieLens-100K stood at 93% of its final NDCG."""
LEAST_GAIN = 1e-3
"""Relative fall of the validation loss that counts as better."""
CHECKPOINT_STEPS = 10
"""Language steps (a second each on one core) between checkpoints; head stages save per epoch."""


class Part(Protocol):
    """Something of a round that must outlive a kill."""

    def tensors(self) -> dict[str, Tensor]: ...
    def restore(self, tensors: Mapping[str, Tensor]) -> None: ...


def train_round(
    model: ModelSettings,
    settings: LearnerSettings,
    actions: ActionWeights,
    parent: Parent,
    data: RoundData,
    hooks: Hooks | None = None,
) -> Candidate:
    """Run a whole round, from its checkpoint if there is one.

    Raises: LearnerError when there is nothing to learn from or the loss diverges (no candidate
    then); ModelError when the base or the parent's adapter cannot be loaded; RoundCancelled.
    """
    hooks = hooks or Hooks()
    torch.set_num_threads(settings.threads)
    if hooks.team is not None and hooks.team.leads:
        hooks.team.tell(
            SharedRound(model, settings, actions, parent, data, hooks.checkpoint, hooks.identity)
        )
    return _Round(model, settings, actions, parent, data, hooks).run()


@dataclass(frozen=True, slots=True)
class SharedRound:
    """All that another process needs to train the same round; paths are on a disk both see."""

    model: ModelSettings
    settings: LearnerSettings
    actions: ActionWeights
    parent: Parent
    data: RoundData
    checkpoint: Path | None
    identity: str

    def train(self, team: Team) -> None:
        """Train it in step with the leader, who keeps the candidate.  Raises: as `train_round`."""
        hooks = Hooks(checkpoint=self.checkpoint, identity=self.identity, team=team)
        train_round(self.model, self.settings, self.actions, self.parent, self.data, hooks)


class _Round:
    """The parts of one round, and the schedule that moves them."""

    def __init__(
        self,
        model: ModelSettings,
        settings: LearnerSettings,
        actions: ActionWeights,
        parent: Parent,
        data: RoundData,
        hooks: Hooks,
    ) -> None:
        self.settings, self.hooks, self.catalogue = settings, hooks, data.catalogue
        self.device = pick_device(settings.device)
        self.batches = RoundBatches(data, actions, settings, self.device)
        self.held = self.batches.held
        self.users = self.batches.users() if settings.dp_noise else []
        self.per_epoch = (
            -(-len(self.users) // settings.batch_users) if self.users else self.batches.per_epoch
        )
        self.total = self.per_epoch * settings.epochs + settings.lora_steps
        self.language = LanguageModel.load(
            model, parent.adapter, self.device, settings.seed, settings.lora_steps
        )
        self.language.team = hooks.team
        self.seconds: dict[str, float] = {}
        saved = (
            load_checkpoint(hooks.checkpoint, hooks.identity, hooks.unseal)
            if hooks.checkpoint
            else None
        )
        known = data.text if saved is None else saved.tensors["text/first"].numpy()
        self.text = self._timed(
            "encode",
            lambda: CatalogueText.begin(data.catalogue, self.language, known, self._tick),
        )
        # A private round's counts are drawn once: drawn again, they would tell more.
        counts = data.counts if saved is None else saved.tensors["model/counts"].numpy()
        self.model = twin_of(parent, data.catalogue, counts, settings.dropout).to(self.device)
        self.model.set_new_item_gain(settings.new_item_gain)
        self.anchor: Anchor | None = None
        if parent.is_trained:
            twin = twin_of(parent, data.catalogue, counts, 0.0).to(self.device)
            twin.eval().requires_grad_(False)
            lora = {name: value.detach().clone() for name, value in self._lora().items()}
            self.anchor = Anchor(twin, self.text.first, lora)
        rate = settings.later_lr_factor if parent.is_trained else 1.0
        self.objective = Objective(settings, self.model.counts).to(self.device)
        self.moving = {f"model/{name}": w for name, w in self.model.named_parameters()}
        self.moving |= {f"objective/{name}": w for name, w in self.objective.named_parameters()}
        own = self.objective.parameters()
        self.optimisers = Optimisers(self.model, own, self._lora(), settings, rate, self.total)
        self.private: PrivateSteps | None = None
        if self.users:
            self.private = PrivateSteps(
                self.optimisers.head, settings, len(self.users), hooks.entropy(), self.device
            )
        self.average = Average(settings.ema_decay)
        self.parts: dict[str, Part] = {
            "text": self.text,
            "language": self.language,
            "objective": self.objective,
            "optimisers": self.optimisers,
            "average": self.average,
        }
        self.best: dict[str, Tensor] = {}
        self.position = Position()
        self.loss = float("nan")
        if saved is not None:
            self._restore(saved)

    # -- the schedule ---------------------------------------------------------------------------

    def run(self) -> Candidate:
        reads = self.settings.lora_steps
        head_epochs = 0 if self.anchor is not None or not reads else HEAD_EPOCHS
        head_epochs = min(head_epochs, max(self.settings.epochs - 1, 0))
        polish = self.settings.epochs - head_epochs
        start = self._validate()
        if self.position.stage == 0:
            self._timed("head", lambda: self._epochs("head", head_epochs, patient=False))
            self.average.settle(self.moving)
            self._next_stage()
        if self.position.stage == 1:
            self._timed("lora", self._language_steps)
            self.average.settle(self.moving | self._language_weights())
            if reads:
                self._timed("encode", lambda: self.text.read_all(self._tick))
            self._next_stage()
        # Early stopping begins here: earlier weights belong to other text vectors.
        self._timed("polish", lambda: self._epochs("polish", polish, patient=True))
        put(self.moving, self.best)
        return self._candidate(start, self._validate())

    def _epochs(self, stage: str, epochs: int, *, patient: bool) -> None:
        if patient and self.position.best_loss is None:
            self._judge(stage)
        while self.position.done < epochs:
            if patient and self.position.bad_epochs >= self.settings.patience:
                return
            self.model.train()
            for batch in self._epoch():
                self._check_cancelled()
                self._step(stage, batch, self.text.now)
                self.position = msgspec.structs.replace(self.position, step=self.position.step + 1)
            self.position = msgspec.structs.replace(self.position, done=self.position.done + 1)
            if patient:
                self._judge(stage)
            self._save()

    def _epoch(self) -> Iterator[list[Batch]]:
        """What each step of an epoch learns from: a batch, or the users of a private step."""
        if self.private is None:
            for batch in self.batches.epoch(self.position.stage, self.position.done):
                yield [self._augmented(batch)]
            return
        for _ in range(self.per_epoch):
            drawn = [self.private.pick(self.users[user]) for user in self.private.draw()]
            yield [self._augmented(self.batches.one(window)) for window in drawn]

    def _judge(self, stage: str) -> None:
        """Keep the weights if they are the best so far; without held-out events, and in a private
        round, whose noise does not cover such a choice, always."""
        with self.average.applied(self.moving):
            loss = self.loss
            if self.held:
                found = self._validate()
                loss = found.loss
                self.hooks.figures(stage, self.position.step, found.figures())
            best = self.position.best_loss
            decides = bool(self.held) and self.private is None
            is_best = best is None or not decides or loss < best * (1.0 - LEAST_GAIN)
            if is_best:
                self.best = {name: w.detach().clone() for name, w in self.moving.items()}
        if is_best:
            self.position = msgspec.structs.replace(self.position, best_loss=loss, bad_epochs=0)
        else:
            self.position = msgspec.structs.replace(
                self.position, bad_epochs=self.position.bad_epochs + 1
            )

    def _next_stage(self) -> None:
        now = self.position
        self.position = Position(stage=now.stage + 1, step=now.step, examples=now.examples)
        self._save()

    def _language_steps(self) -> None:
        while self.position.done < self.settings.lora_steps:
            if self._is_cancelled():
                # A step is whole here, so nothing of the stage need be done again.
                self._save()
                raise RoundCancelled
            batch = self._augmented(next(self.batches.epoch(1, self.position.done)))
            self.model.train()
            used = torch.cat([batch.targets[batch.weights > 0], batch.items[batch.mask]])
            rng = self.batches.rng(2, self.position.step)
            text = self.text.read_some(
                used, self.settings.lora_items, rng, self.settings.text_dropout
            )
            self._step("lora", [batch], text)
            self.position = msgspec.structs.replace(
                self.position, done=self.position.done + 1, step=self.position.step + 1
            )
            if self.position.done % CHECKPOINT_STEPS == 0:
                self._save()

    def _step(self, stage: str, batches: Sequence[Batch], text: Tensor) -> None:
        step, with_language = self.position.step, stage == "lora"
        torch.manual_seed(int(self.batches.rng(3, step).integers(2**31)))
        generator = torch.Generator().manual_seed(int(self.batches.rng(4, step).integers(2**31)))
        if self.private is None:
            figures = self._down(batches[0], text, generator, with_language=with_language)
        else:
            figures = self._down_privately(self.private, batches, text, generator)
        self.average.update(self.moving | (self._language_weights() if with_language else {}))
        self.loss = figures.get("loss", self.loss)
        examples = sum(int((batch.weights > 0).sum()) for batch in batches)
        self.position = msgspec.structs.replace(
            self.position, examples=self.position.examples + examples
        )
        self.hooks.progress(stage, step + 1, self.total, self.loss)
        self.hooks.figures(stage, step + 1, figures)

    def _down(
        self, batch: Batch, text: Tensor, generator: torch.Generator, *, with_language: bool
    ) -> dict[str, float]:
        found = self._loss(batch, text, generator, self._lora() if with_language else {})
        loss = found.total
        if with_language:
            with self._precision():
                penalty = self.language.penalty()
            loss = loss if penalty is None else loss + penalty
        figures = self.optimisers.step(loss, self.position.step, with_language=with_language)
        if with_language:
            self.language.after_step(self.position.done + 1)
        return {"loss": loss.item(), **found.figures, **figures}

    def _down_privately(
        self,
        private: PrivateSteps,
        users: Sequence[Batch],
        text: Tensor,
        generator: torch.Generator,
    ) -> dict[str, float]:
        """A noisy step on these users; without any, on noise alone."""
        losses = []
        for batch in users:
            found = self._loss(batch, text, generator, {})
            private.add(found.total)
            losses.append(found.total.item())
        figures = {"head_lr": self.optimisers.set_head_rate(self.position.step)}
        private.step()
        return figures if not losses else {"loss": float(np.mean(losses)), **figures}

    def _loss(
        self, batch: Batch, text: Tensor, generator: torch.Generator, lora: dict[str, Tensor]
    ) -> BatchLoss:
        with self._precision():
            return batch_loss(
                self.model,
                self.objective,
                text,
                batch,
                self.settings,
                self.anchor,
                lora,
                generator,
            )

    # -- parts ----------------------------------------------------------------------------------

    def _lora(self) -> dict[str, Tensor]:
        return dict(self.language.weights())

    def _language_weights(self) -> dict[str, Tensor]:
        return {f"language/{name}": weight for name, weight in self._lora().items()}

    def _augmented(self, batch: Batch) -> Batch:
        share, rng = self.settings.sequence_augmentation, self.batches.rng(5, self.position.step)
        return augment_sequences(batch, share, rng) if share else batch

    def _validate(self) -> Validation:
        return validate(self.model, self.objective, self.text.now, self.held)

    def _tick(self, done: int, of: int) -> None:
        self._check_cancelled()
        self.hooks.progress("encode", done, of, float("nan"))

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self.device.startswith("cuda"):
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _is_cancelled(self) -> bool:
        team, cancelled = self.hooks.team, self.hooks.is_cancelled()
        # The leader's answer is everybody's: all stop at the same step.
        return cancelled if team is None else team.agree(cancelled)

    def _check_cancelled(self) -> None:
        if self._is_cancelled():
            raise RoundCancelled

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        begun = self.hooks.clock()
        try:
            return work()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.hooks.clock() - begun

    # -- saving ---------------------------------------------------------------------------------

    def _save(self) -> None:
        is_leader = self.hooks.team is None or self.hooks.team.leads
        if self.hooks.checkpoint is None or not is_leader:
            return
        tensors = {f"model/{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best/{name}": t for name, t in self.best.items()}
        for name, part in self.parts.items():
            tensors |= {f"{name}/{inner}": t for inner, t in part.tensors().items()}
        saved = Checkpoint(self.hooks.identity, self.position, tensors)
        save_checkpoint(self.hooks.checkpoint, saved, self.hooks.seal)

    def _restore(self, saved: Checkpoint) -> None:
        self.position = saved.position
        self.model.load_state_dict(group(saved.tensors, "model"))
        self.best = {n: t.to(self.device) for n, t in group(saved.tensors, "best").items()}
        for name, part in self.parts.items():
            part.restore(group(saved.tensors, name))

    def _candidate(self, start: Validation, end: Validation) -> Candidate:
        text = self.text.now.float().cpu().numpy()
        self.language.team = None  # what the caller does with it, it does alone
        return Candidate(
            head=self.model.to_head(),
            items=table_of(self.model, self.catalogue, text),
            text=text,
            text_before=self.text.first.float().cpu().numpy(),
            language=self.language,
            steps=self.position.step,
            examples=self.position.examples,
            validation_loss=end.loss,
            validation_ndcg=end.ndcg10,
            start_loss=start.loss,
            seconds=self.seconds,
            private_steps=() if self.private is None else self.private.spent(self.position.step),
        )
