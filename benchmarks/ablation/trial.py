"""One round with one variant: the learner's own training, judged on a later part of the data.

The data are cut by time: the first 70% of events are learned from (the newest tenth of them
decides early stopping), the next 10% are what is judged, and the last 20% are never looked at, so
that a choice made by this table leaves a test set untouched.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.ablation.variants import Variant
from benchmarks.offline.interactions import Interactions
from learner.bootstrap import bootstrap_head, bootstrap_table, head_shape
from learner.calibration import calibrate
from learner.catalogue import Catalogue, make_catalogue
from learner.evaluation import COLD_COUNT, Model, make_exam, sit
from learner.language import LanguageModel
from learner.round_types import Hooks, Parent, RoundData
from learner.sampling import ActionWeights, Segment
from learner.trainer import train_round
from profiles.config import Settings
from profiles.evaluation import gains
from profiles.layers import Floats
from profiles.release import Keys
from profiles.wire import key64

LEARNED, JUDGED = 0.7, 0.8
STOPPING = 0.1
"""Share of the learned events, the newest, that decide early stopping."""


@dataclass(frozen=True, slots=True)
class World:
    """A data set cut for the ablation.  `judged` segments carry their history as context.

    Shapes: counts (N,) learned events of each catalogue item; text (N, T) of the untuned base.
    """

    catalogue: Catalogue
    actions: ActionWeights
    learned: tuple[Segment, ...]
    stopping: tuple[Segment, ...]
    judged: tuple[Segment, ...]
    counts: Floats
    text: Floats


@dataclass(frozen=True, slots=True)
class Result:
    """Gains (n,) of the judged events by NDCG@10, which of them are of rare items, and the rest."""

    gains: npt.NDArray[np.float64]
    hits: npt.NDArray[np.bool_]
    is_cold: npt.NDArray[np.bool_]
    is_tail: npt.NDArray[np.bool_]
    clicks: dict[str, float]
    seconds: float
    steps: int


def make_world(data: Interactions, settings: Settings) -> World:
    """Cut the data and read the catalogue once."""
    catalogue = make_catalogue(data.catalogue)
    actions = ActionWeights.from_settings(settings.actions)
    keys = item_keys(data, catalogue)
    learned, judged = int(LEARNED * len(data)), int(JUDGED * len(data))
    stopping = int(learned * (1.0 - STOPPING))
    counted = np.bincount(catalogue.rows(keys[:stopping]), minlength=len(catalogue))
    language = LanguageModel.load(settings.model, None, "cpu", settings.learner.seed)
    return World(
        catalogue,
        actions,
        segments_of(data, keys, actions, 0, stopping),
        segments_of(data, keys, actions, stopping, learned),
        segments_of(data, keys, actions, learned, judged),
        counted.astype(np.float32),
        language.encode(catalogue.texts),
    )


def run_trial(world: World, settings: Settings, variant: Variant, seed: int) -> Result:
    """Train from the first release of the catalogue, and judge."""
    learner = settings.learner.model_copy(update={**variant.learner, "seed": seed})
    if not variant.reads_texts:
        learner = learner.model_copy(update={"lora_steps": 0})
    model = settings.model.model_copy(update=variant.model)
    shape = head_shape(settings, world.text.shape[1])
    head = bootstrap_head(world.text, shape, world.actions.names, seed, world.catalogue.shown)
    parent = Parent(head, bootstrap_table(head, world.catalogue, world.text), None, False)
    data = RoundData(world.catalogue, world.learned, [], world.stopping, world.counts, world.text)
    begun = time.process_time()
    made = train_round(model, learner, world.actions, parent, data, Hooks())
    seconds = time.process_time() - begun
    judged = Model(made.head, made.items.vectors, made.items.bias)
    exam = make_exam(world.judged, world.catalogue, world.actions)
    ranks = np.concatenate(sit(judged, exam))
    asked = ranks > 0
    behind = world.counts[np.concatenate(exam.rows)[asked]]
    clicks: dict[str, float] = {}
    if learner.objective != "next_item":
        half = [segment.user % 2 == 0 for segment in world.judged]
        fit = [s for s, chosen in zip(world.judged, half, strict=True) if chosen]
        report = [s for s, chosen in zip(world.judged, half, strict=True) if not chosen]
        found = calibrate(judged, fit, report, world.catalogue, world.actions, ())
        clicks = {name: value for name, value in found.figures.items() if "_bin" not in name}
    return Result(
        gains(ranks[asked]),
        ranks[asked] <= 10,
        behind <= COLD_COUNT,
        behind <= np.median(behind),
        clicks,
        seconds,
        made.steps,
    )


def item_keys(data: Interactions, catalogue: Catalogue) -> Keys:
    """Key of each event's item.  Shapes: -> (events,)."""
    keys = np.array([key64(item.item_id) for item in data.catalogue], np.uint64)
    assert (catalogue.rows(keys) >= 0).all(), "the catalogue is the data set's own"
    return keys[data.items]


def segments_of(
    data: Interactions, keys: Keys, actions: ActionWeights, start: int, stop: int
) -> tuple[Segment, ...]:
    """Each user's events before `stop`; targets are those from `start` on."""
    number = np.array([actions.names.index(name) for name in data.action_names])
    order = np.argsort(data.users[:stop], kind="stable")
    users, first = np.unique(data.users[order], return_index=True)
    made: list[Segment] = []
    for user, rows in zip(users.tolist(), np.split(order, first[1:]), strict=True):
        before = int((rows < start).sum())
        if before == len(rows):
            continue
        made.append(
            Segment(
                user=user,
                skipped=0,
                first_target=before,
                items=keys[rows],
                ts=data.ts[rows],
                actions=number[data.actions[rows]],
                values=np.nan_to_num(data.values[rows]).astype(np.float32),
                orders=rows.astype(np.int64),
            )
        )
    return tuple(made)
