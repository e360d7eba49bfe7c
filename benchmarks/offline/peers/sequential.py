"""Transformers of rectools 0.19: SASRec with (sampled) softmax, and BERT4Rec.

The library keeps the newest `length` events of a user and drops the rest; here long histories are
cut into several sequences first, so that nothing a fit may learn from is lost.  A search looks at
the validation part every few epochs and keeps the number of epochs that did best; the test then
trains that many, within the CPU seconds of one fit.

We score with the library's own network instead of its `recommend`, which would have to rebuild a
data frame for every event of the stream.  Items that the fit has not seen have no score at all.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from pytorch_lightning import Callback, Trainer, seed_everything
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import BERT4RecModel, SASRecModel
from rectools.models.nn.transformers.ligr import LiGRLayers
from rectools.models.nn.transformers.sasrec import SASRecTransformerLayers

from benchmarks.offline.exchange import Settings, Task
from benchmarks.offline.histories import Floats, Histories, Ints
from benchmarks.offline.peers.fitting import popular_for_the_new
from benchmarks.offline.protocols import Stage
from benchmarks.offline.ranking import Scorer, rank_rows
from benchmarks.offline.search import Between, Space
from profiles.evaluation import gains

LOOK_EVERY = 0.1
"""Share of a trial's epochs between two looks at the validation part."""
PATIENCE = 3
"""Looks without a better one that end a trial."""
LOOKED_AT = 2000
"""Validation rows of a look; the trial's final figure is of the same ones."""
NEGATIVES = 128
LAYERS = {"sasrec": SASRecTransformerLayers, "ligr": LiGRLayers}

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


@dataclass(frozen=True, slots=True)
class Transformer:
    """A method (see `benchmarks.offline.methods.Method`): one of rectools' sequence models."""

    is_bert: bool
    first: Settings
    space: Space

    def evaluate(
        self, task: Task, settings: Settings, seed: int, cpu_s: float
    ) -> tuple[float, Settings]:
        stage, histories = task.split.validation, Histories(task.users)
        rng = np.random.default_rng(0)
        asked = np.sort(rng.permutation(stage.asked)[:LOOKED_AT])

        def look(score: Scorer) -> float:
            served = popular_for_the_new(score, task, histories, stage.fit)
            return float(gains(rank_rows(served, asked, task.items, histories)).mean())

        watch = _Watch(look, int(settings["epochs"]), cpu_s)
        self._train(task, histories, stage, settings, seed, watch)
        return watch.best, {**settings, "epochs": watch.best_epoch}

    def play(self, task: Task, settings: Settings, seed: int, cpu_s: float) -> Ints:
        found, histories = [], Histories(task.users)
        for stage in task.split.stages:
            watch = _Watch(None, int(settings["epochs"]), cpu_s)
            score = self._train(task, histories, stage, settings, seed, watch)
            served = popular_for_the_new(score, task, histories, stage.fit)
            found.append(rank_rows(served, stage.asked, task.items, histories))
        return np.concatenate(found)

    def _train(
        self,
        task: Task,
        histories: Histories,
        stage: Stage,
        settings: Settings,
        seed: int,
        watch: _Watch,
    ) -> Scorer:
        seed_everything(seed)
        model = self._model(settings, watch)
        watch.score = lambda: _scorer(model, task, histories)
        model.fit(_dataset(task, stage.fit, int(settings["length"])))
        return _scorer(model, task, histories)

    # Any: rectools' models share no public base that is typed.
    def _model(self, settings: Settings, watch: _Watch) -> Any:
        shared: dict[str, Any] = {
            "n_blocks": int(settings["blocks"]),
            "n_heads": 2,
            "n_factors": int(settings["dim"]),
            "dropout_rate": float(settings["dropout"]),
            "session_max_len": int(settings["length"]),
            "batch_size": int(settings["batch"]),
            "lr": float(settings["lr"]),
            "loss": str(settings["loss"]),
            "n_negatives": NEGATIVES,
            "get_trainer_func": lambda: _trainer(watch),
        }
        if self.is_bert:
            return BERT4RecModel(mask_prob=float(settings["mask"]), **shared)
        return SASRecModel(transformer_layers_type=LAYERS[str(settings["layers"])], **shared)


class _Watch(Callback):  # type: ignore[misc]  # Lightning is untyped here
    """Ends a training: at its epochs, its CPU seconds, or when looks no longer get better."""

    def __init__(self, look: Callable[[Scorer], float] | None, epochs: int, cpu_s: float) -> None:
        self.look, self.epochs = look, epochs
        self._until = time.process_time() + cpu_s
        self._every = max(math.ceil(epochs * LOOK_EVERY), 1)
        self.best, self.best_epoch, self._worse = -1.0, 1, 0
        self.score: Callable[[], Scorer]

    def __deepcopy__(self, memo: object) -> _Watch:
        """rectools trains with a deep copy of the trainer; what is seen must come back to us."""
        return self

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        done = trainer.current_epoch + 1
        late = time.process_time() > self._until
        if self.look is not None and (late or done % self._every == 0 or done == self.epochs):
            reached = self.look(self.score())
            pl_module.train()
            if reached > self.best:
                self.best, self.best_epoch, self._worse = reached, done, 0
            else:
                self._worse += 1
        if late or self._worse >= PATIENCE:
            trainer.should_stop = True


def _trainer(watch: _Watch) -> Any:
    return Trainer(
        max_epochs=watch.epochs,
        min_epochs=1,
        accelerator="cpu",
        callbacks=[watch],
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )


def _dataset(task: Task, fit: Ints, length: int) -> Any:
    """Histories cut into sequences of at most `length` + 1 events, each a user of its own."""
    users = task.users[fit]
    cuts = Histories(users).place // (length + 1)
    table = pd.DataFrame(
        {
            Columns.User: users * (int(cuts.max()) + 1) + cuts,
            Columns.Item: task.items[fit],
            Columns.Weight: 1.0,
            # The order is what matters: times may tie, places do not.
            Columns.Datetime: pd.to_datetime(np.arange(len(fit)), unit="s"),
        }
    )
    return Dataset.construct(table)


def _scorer(model: Any, task: Task, histories: Histories) -> Scorer:
    network, preparator = model.lightning_model.torch_model, model.data_preparator
    extra = preparator.n_item_extra_tokens
    codes = preparator.get_known_item_ids().astype(np.int64)
    internal = np.full(task.n_items, -1, np.int64)
    internal[codes] = np.arange(len(codes)) + extra

    def score(rows: Ints) -> Floats:
        network.eval()
        sessions: list[tuple[list[int], list[float], dict[str, list[int]]]] = []
        for row in rows:
            known = internal[task.items[histories.before(int(row), preparator.session_max_len)]]
            known = known[known >= 0].tolist()
            sessions.append((known or [0], [1.0] * max(len(known), 1), {}))
        found = np.full((len(rows), task.n_items), -np.inf, np.float32)
        with torch.inference_mode():
            items = network.item_model.get_all_embeddings()
            batch = preparator._collate_fn_recommend(sessions)
            encoded = network.encode_sessions(batch, items)[:, -1, :]
            similar = network.similarity_module
            vectors = similar.item_tower_forward(items)[extra:]
            found[:, codes] = (similar.session_tower_forward(encoded) @ vectors.T).numpy()
        return found

    return score


SHARED: Space = {
    "blocks": (1, 2, 3),
    "dim": (64, 128),
    "dropout": (0.1, 0.2, 0.3, 0.5),
    "length": (50, 100, 200),
    "batch": (16, 32, 64),
    "lr": Between(3e-4, 5e-3),
}
METHODS = {
    "sasrec": Transformer(
        False,
        {
            "blocks": 2, "dim": 64, "dropout": 0.3, "length": 50, "batch": 32, "lr": 2e-3,
            "loss": "softmax", "layers": "sasrec", "epochs": 40,
        },
        {**SHARED, "layers": ("sasrec", "ligr"), "loss": ("sampled_softmax", "softmax")},
    ),
    "bert4rec": Transformer(
        True,
        {
            "blocks": 2, "dim": 64, "dropout": 0.3, "length": 50, "batch": 32, "lr": 2e-3,
            "loss": "softmax", "mask": 0.2, "epochs": 60,
        },
        {**SHARED, "loss": ("softmax", "sampled_softmax"), "mask": (0.15, 0.2, 0.4, 0.6)},
    ),
}  # fmt: skip
