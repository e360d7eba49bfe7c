"""One learning round: events and the parent release in, a candidate release out.

Three stages, each resumable (learner/checkpoint.py):

    head      head and collaborative parts on cached text vectors, until they know their way
    language  LoRA and head together: a sample of item texts is read with gradient in each step,
              all other items keep their cached vectors; then the catalogue is read again
    polish    the head again, on the new vectors, to early stopping; the best epoch wins

A round on a trained parent skips `head` (the parent has been there), learns at a fraction of the
rate, is pulled to the parent and distils its scores on replayed events.  Imports torch,
transformers, peft, safetensors and numpy only: runs on a bare GPU machine.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TypeVar

import msgspec
import numpy as np
import torch
from torch import Tensor

from learner.checkpoint import (
    Checkpoint,
    Position,
    group,
    load_checkpoint,
    optimiser_tensors,
    restore_optimiser,
    save_checkpoint,
)
from learner.language import LanguageModel, pick_device
from learner.model import Batch
from learner.round_batches import RoundBatches
from learner.round_types import Candidate, Hooks, Parent, RoundCancelled, RoundData
from learner.sampling import ActionWeights
from learner.stepping import Anchor, batch_loss, head_groups, schedule, validate
from learner.twins import table_of, twin_of
from profiles.config import LearnerSettings, ModelSettings
from profiles.head import Floats

T = TypeVar("T")
HEAD_EPOCHS = 3
"""Epochs of the first stage; after three, MovieLens-100K stood at 93% of its final NDCG."""
WARM_UP_SHARE = 0.05
LEAST_GAIN = 1e-3
"""Relative fall of the validation loss that counts as better."""
CHECKPOINT_STEPS = 10
"""Language steps (a second each on one core) between checkpoints; head stages save per epoch."""


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
    torch.set_num_threads(settings.threads)
    return _Round(model, settings, actions, parent, data, hooks or Hooks()).run()


class _Round:
    """The moving parts of one round."""

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
        self.rate = settings.later_lr_factor if parent.is_trained else 1.0
        self.language = LanguageModel.load(model, parent.adapter, self.device, settings.seed)
        self.lora = self.language.weights()
        self.saved = load_checkpoint(hooks.checkpoint, hooks.identity) if hooks.checkpoint else None
        self.seconds: dict[str, float] = {}
        if self.saved is not None:
            self.text = self.saved.tensors["text/now"].to(self.device)
            first_text = self.saved.tensors["text/first"].to(self.device)
        else:
            vectors = self._timed("encode", lambda: self._first_text(data.text))
            self.text = torch.tensor(vectors, device=self.device)
            first_text = self.text.clone()
        self.first_text = first_text
        self.model = twin_of(parent, data.catalogue, data.counts, settings.dropout).to(self.device)
        self.anchor: Anchor | None = None
        if parent.is_trained:
            twin = twin_of(parent, data.catalogue, data.counts, 0.0).to(self.device)
            twin.eval().requires_grad_(False)
            lora = {name: value.detach().clone() for name, value in self.lora.items()}
            self.anchor = Anchor(twin, first_text, lora)
        self.optimiser = torch.optim.AdamW(head_groups(self.model, settings), betas=(0.9, 0.99))
        self.lora_optimiser = torch.optim.AdamW(
            list(self.lora.values()), weight_decay=0.0, betas=(0.9, 0.99)
        )
        self.best: dict[str, Tensor] = {}
        self.position = Position()
        self.loss = float("nan")
        if self.saved is not None:
            self._restore(self.saved)

    # -- the schedule ---------------------------------------------------------------------------

    def run(self) -> Candidate:
        head_epochs = 0 if self.anchor is not None or not self._reads() else HEAD_EPOCHS
        head_epochs = min(head_epochs, max(self.settings.epochs - 1, 0))
        polish = self.settings.epochs - head_epochs
        self.total = self.batches.per_epoch * self.settings.epochs + self._reads()
        start_loss = validate(self.model, self.text, self.held)[0]
        if self.position.stage == 0:
            self._timed("head", lambda: self._epochs("head", head_epochs, patient=False))
            self._next_stage()
        if self.position.stage == 1:
            self._timed("lora", self._language_steps)
            if self._reads():
                vectors = self._timed("encode", self._encode)
                self.text = torch.tensor(vectors, device=self.device)
            self._next_stage()
        # Early stopping begins here: earlier weights belong to other text vectors.
        self._timed("polish", lambda: self._epochs("polish", polish, patient=True))
        if self.best:
            self.model.load_state_dict(self.best)
        loss, ndcg = validate(self.model, self.text, self.held)
        return self._candidate(start_loss, loss, ndcg)

    def _reads(self) -> int:
        """Language steps of this round."""
        return self.settings.lora_steps

    def _epochs(self, stage: str, epochs: int, *, patient: bool) -> None:
        if patient and self.position.best_loss is None:
            self._judge()
        while self.position.done < epochs:
            if patient and self.position.bad_epochs >= self.settings.patience:
                return
            self.model.train()
            for batch in self.batches.epoch(self.position.stage, self.position.done):
                self._check_cancelled()
                self._step(batch, self.text, with_lora=False)
                self.position = msgspec.structs.replace(self.position, step=self.position.step + 1)
                self.hooks.progress(stage, self.position.step, self.total, self.loss)
            self.position = msgspec.structs.replace(self.position, done=self.position.done + 1)
            if patient:
                self._judge()
            self._save()

    def _judge(self) -> None:
        """Keep the weights if they are the best so far; without held-out events, always."""
        loss = validate(self.model, self.text, self.held)[0] if self.held else self.loss
        best = self.position.best_loss
        if best is None or not self.held or loss < best * (1.0 - LEAST_GAIN):
            self.best = {name: t.detach().clone() for name, t in self.model.state_dict().items()}
            self.position = msgspec.structs.replace(self.position, best_loss=loss, bad_epochs=0)
        else:
            self.position = msgspec.structs.replace(
                self.position, bad_epochs=self.position.bad_epochs + 1
            )

    def _next_stage(self) -> None:
        self.position = Position(stage=self.position.stage + 1, step=self.position.step)
        self._save()

    def _language_steps(self) -> None:
        while self.position.done < self._reads():
            if self.hooks.is_cancelled():
                # A step is whole here, so nothing of the stage need be done again.
                self._save()
                raise RoundCancelled
            batch = next(self.batches.epoch(1, self.position.done))
            self.model.train()
            self._step(batch, self._read_some(batch), with_lora=True)
            self.position = msgspec.structs.replace(
                self.position, done=self.position.done + 1, step=self.position.step + 1
            )
            self.hooks.progress("lora", self.position.step, self.total, self.loss)
            if self.position.done % CHECKPOINT_STEPS == 0:
                self._save()

    def _read_some(self, batch: Batch) -> Tensor:
        """The text vectors with `lora_items` distinct items of this batch read anew."""
        used = torch.cat([batch.targets[batch.weights > 0], batch.items[batch.mask]])
        rng = self.batches.rng(2, self.position.step)
        rows = rng.permutation(np.unique(used.cpu().numpy()))
        texts: dict[str, list[int]] = {}
        for row in rows.tolist():
            text = self.catalogue.texts[row]
            if text in texts:
                texts[text].append(row)
            elif len(texts) < self.settings.lora_items:
                texts[text] = [row]
        vectors = self.language.embed_trainable(list(texts))
        places = [place for place, same in enumerate(texts.values()) for _ in same]
        flat = [row for same in texts.values() for row in same]
        index = torch.tensor(flat, device=self.text.device)
        chosen = vectors[torch.tensor(places, device=self.text.device)]
        self.text.index_copy_(0, index, chosen.detach())
        return self.text.index_copy(0, index, chosen)

    def _step(self, batch: Batch, text: Tensor, *, with_lora: bool) -> None:
        step = self.position.step
        torch.manual_seed(int(self.batches.rng(3, step).integers(2**31)))
        generator = torch.Generator().manual_seed(int(self.batches.rng(4, step).integers(2**31)))
        factor = self.rate * schedule(step, max(int(self.total * WARM_UP_SHARE), 1), self.total)
        for optimiser, base in (
            (self.optimiser, self.settings.head_lr),
            (self.lora_optimiser, self.settings.lora_lr),
        ):
            for parameters in optimiser.param_groups:
                parameters["lr"] = base * factor
        trained: dict[str, Tensor] = dict(self.lora) if with_lora else {}
        with self._precision():
            loss = batch_loss(
                self.model, text, batch, self.settings, self.anchor, trained, generator
            )
        self.optimiser.zero_grad(set_to_none=True)
        self.lora_optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for group_of in (self.model.parameters(), self.lora.values()):
            torch.nn.utils.clip_grad_norm_(list(group_of), self.settings.clip_norm)
        self.optimiser.step()
        if with_lora:
            self.lora_optimiser.step()
        self.loss = loss.item()

    # -- parts ----------------------------------------------------------------------------------

    def _first_text(self, known: Floats | None) -> Floats:
        """The parent's text vectors: what the caller kept, the rest read now."""
        if known is None:
            return self._encode()
        found = known.copy()
        missing = np.flatnonzero(np.isnan(found).any(axis=1))
        texts = [self.catalogue.texts[row] for row in missing]
        found[missing] = self.language.encode(texts)
        return found

    def _encode(self) -> Floats:
        def tick(done: int, of: int) -> None:
            self._check_cancelled()
            self.hooks.progress("encode", done, of, float("nan"))

        return self.language.encode(self.catalogue.texts, tick)

    def _precision(self) -> contextlib.AbstractContextManager[object]:
        if self.device.startswith("cuda"):
            return torch.autocast("cuda", dtype=torch.bfloat16)
        return contextlib.nullcontext()

    def _check_cancelled(self) -> None:
        if self.hooks.is_cancelled():
            raise RoundCancelled

    def _timed(self, name: str, work: Callable[[], T]) -> T:
        begun = self.hooks.clock()
        try:
            return work()
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.hooks.clock() - begun

    # -- saving ---------------------------------------------------------------------------------

    def _save(self) -> None:
        if self.hooks.checkpoint is None:
            return
        tensors = {"text/now": self.text, "text/first": self.first_text}
        tensors |= {f"model/{name}": t for name, t in self.model.state_dict().items()}
        tensors |= {f"best/{name}": t for name, t in self.best.items()}
        tensors |= {f"lora/{name}": t for name, t in self.lora.items()}
        tensors |= optimiser_tensors("adam", self.optimiser)
        tensors |= optimiser_tensors("adam_lora", self.lora_optimiser)
        save_checkpoint(
            self.hooks.checkpoint, Checkpoint(self.hooks.identity, self.position, tensors)
        )

    def _restore(self, saved: Checkpoint) -> None:
        self.position = saved.position
        self.model.load_state_dict(group(saved.tensors, "model"))
        self.best = {n: t.to(self.device) for n, t in group(saved.tensors, "best").items()}
        self.language.restore(group(saved.tensors, "lora"))
        restore_optimiser("adam", self.optimiser, saved.tensors)
        restore_optimiser("adam_lora", self.lora_optimiser, saved.tensors)

    def _candidate(self, start_loss: float, loss: float, ndcg: float) -> Candidate:
        text = self.text.float().cpu().numpy()
        return Candidate(
            head=self.model.to_head(),
            items=table_of(self.model, self.catalogue, text),
            text=text,
            text_before=self.first_text.float().cpu().numpy(),
            language=self.language,
            steps=self.position.step,
            validation_loss=loss,
            validation_ndcg=ndcg,
            start_loss=start_loss,
            seconds=self.seconds,
        )
