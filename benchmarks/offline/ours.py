"""driftline itself under comparison: the product's training core and its evaluation, as shipped.

A fit is one learning round from the text-only first release (`learner.bootstrap`,
`learner.trainer.train_round`), ranked by `profiles.evaluation.prequential`, the workers' own
arithmetic.  In the prequential protocol, where the peers are fitted anew on everything after each
block, ours does what it does in production: it goes on from the release that serves, by the
learner's own rounds, gate included (`benchmarks.continual`'s strategy "default").

Two things differ from a deployment, both the benchmark's convention for all methods: every event
is something to predict, also a low rating (so actions all weigh 1 and `rate` goes by another
name), and the text vectors of the frozen encoder are given, as the learner keeps them too.
`driftline_frozen_text` is the same without a step of the language model.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.continual.running import default_ranks
from benchmarks.offline.exchange import Settings, Task
from benchmarks.offline.histories import Ints, first_times
from benchmarks.offline.interactions import Interactions
from benchmarks.offline.protocols import Stage
from benchmarks.offline.search import Between, Space
from learner.bootstrap import bootstrap_head, bootstrap_table, head_shape
from learner.catalogue import Catalogue
from learner.round_types import Candidate, Parent, RoundData
from learner.sampling import ActionWeights, Segment
from learner.trainer import train_round
from profiles.config import Settings as ProductSettings
from profiles.config import load_settings
from profiles.evaluation import Lifts, UserSequence, gains, prequential
from profiles.items import Item
from profiles.trend import Trend, TrendLog
from profiles.wire import key64

MODEL_FIELDS = ("dim", "hidden", "layers", "lora_rank")
PREQUENTIAL, LEAVE_ONE_OUT = "prequential", "leave-one-out"


@dataclass(frozen=True, slots=True)
class Driftline:
    """A method (see `benchmarks.offline.methods.Method`); `fixed` are settings beyond search."""

    first: Settings
    space: Space
    fixed: Settings

    def evaluate(
        self, task: Task, settings: Settings, seed: int, cpu_s: float
    ) -> tuple[float, Settings]:
        """As a peer's fit ends at its CPU seconds, a trial of ours that needs more counts for
        nothing.  The language model stays frozen: a round of its steps costs as much as a trial
        or two of the head, which is what there is to be searched."""
        product = product_settings(task, {**settings, "lora_steps": 0}, seed)
        begun = time.process_time()
        candidate = learn(task, task.split.validation.fit, product)
        is_late = time.process_time() - begun > cpu_s
        ranks = _rank(task, task.split.validation, candidate, product)
        return 0.0 if is_late else float(gains(ranks).mean()), settings

    def play(self, task: Task, settings: Settings, seed: int, cpu_s: float) -> Ints:
        if task.split.protocol == PREQUENTIAL:
            # As in `bench_continual`: steps of the language model in nine rounds would take most
            # of the time, and made no difference on film titles there.
            return go_on_learning(task, product_settings(task, {**settings, "lora_steps": 0}, seed))
        product = product_settings(task, {**settings, **self.fixed}, seed)
        return np.concatenate(
            [
                _rank(task, stage, learn(task, stage.fit, product), product)
                for stage in task.split.stages
            ]
        )


def product_settings(task: Task, settings: Settings, seed: int) -> ProductSettings:
    """The product's settings with the searched ones in their places."""
    model = {name: value for name, value in settings.items() if name in MODEL_FIELDS}
    learner = {name: value for name, value in settings.items() if name not in MODEL_FIELDS}
    return load_settings(
        model=model,
        learner={**learner, "seed": seed},
        actions={_action(name): 1.0 for name in task.action_names},
    )


def _action(name: str) -> str:
    """The learner leaves low `rate` events out of what it predicts; here nobody does."""
    return "rated" if name == "rate" else name


def _rank(task: Task, stage: Stage, candidate: Candidate, settings: ProductSettings) -> Ints:
    """Ranks of what the stage asks, every event applied after it was ranked."""
    numbers = _action_numbers(task, settings)
    order = np.argsort(task.users, kind="stable")
    ends = np.cumsum(np.bincount(task.users))[:-1]
    wanted = np.zeros(len(task.users), np.bool_)
    wanted[stage.asked] = True
    upto = int(stage.asked.max()) + 1
    rows = [part[part < upto] for part in np.split(order, ends) if wanted[part].any()]
    found = np.zeros(len(task.users), np.int64)
    ranked = prequential(
        candidate.head,
        candidate.items.vectors,
        candidate.items.bias,
        [
            UserSequence(
                task.items[part], numbers[part], np.nan_to_num(task.values[part]), task.ts[part]
            )
            for part in rows
        ],
        [wanted[part] for part in rows],
        lifts=Lifts(_stream(task, stage, candidate, settings), rows),
    )
    for part, ranks in zip(rows, ranked, strict=True):
        found[part] = ranks
    return found[stage.asked]


def _stream(task: Task, stage: Stage, candidate: Candidate, settings: ProductSettings) -> TrendLog:
    """What the workers' trend has counted; as for the most popular items (`peers.popularity`), that
    is every event once it was ranked, in leave-one-out what may be learned from."""
    counts = first_times(task.users, task.items)
    if task.split.protocol == LEAVE_ONE_OUT:
        counts &= np.isin(np.arange(len(task.users)), stage.fit)
    return TrendLog(
        Trend.of(settings.serving),
        np.where(counts, task.items, -1),
        task.ts,
        candidate.items.counts,
    )


def learn(task: Task, fit: Ints, settings: ProductSettings) -> Candidate:
    """The product's round on these events.

    Nothing is held out for early stopping: how many epochs are right is the search's to find, on
    the validation part, as for the peers.
    """
    catalogue = _catalogue(task)
    shape = head_shape(settings, task.text.shape[1])
    actions = ActionWeights.from_settings(settings.actions)
    head = bootstrap_head(task.text, shape, actions.names, settings.learner.seed)
    parent = Parent(head, bootstrap_table(head, catalogue, task.text), None, is_trained=False)
    data = RoundData(
        catalogue=catalogue,
        fresh=_segments(task, fit, settings),
        past=[],
        validation=[],
        counts=np.bincount(task.items[fit], minlength=task.n_items).astype(np.float32),
        text=task.text.copy(),
    )
    return train_round(settings.model, settings.learner, actions, parent, data)


def go_on_learning(task: Task, settings: ProductSettings) -> Ints:
    """A round on the base, then one after each block, each from the release before it."""
    data = Interactions(
        name="task",
        source="",
        synthetic=False,
        users=task.users,
        items=task.items,
        actions=task.actions,
        values=task.values,
        ts=task.ts,
        user_ids=tuple(str(user) for user in range(task.n_users)),
        action_names=tuple(_action(name) for name in task.action_names),
        catalogue=tuple(Item(str(code), title=text) for code, text in enumerate(task.texts)),
    )
    borders = [len(stage.fit) for stage in task.split.stages] + [len(task.users)]
    with tempfile.TemporaryDirectory(prefix="driftline-rounds-") as folder:
        ranks = default_ranks(data, settings, borders, Path(folder))
    return ranks[task.split.asked()]


def _segments(task: Task, rows: Ints, settings: ProductSettings) -> list[Segment]:
    """Users' events as the replay buffer hands them out, every one to be predicted."""
    numbers = _action_numbers(task, settings)
    order = np.argsort(task.users[rows], kind="stable")
    ends = np.flatnonzero(np.diff(task.users[rows[order]])) + 1
    return [
        Segment(
            user=key64(str(task.users[part[0]])),
            skipped=0,
            first_target=0,
            items=task.items[part].astype(np.uint64),
            ts=task.ts[part],
            actions=numbers[part],
            values=np.nan_to_num(task.values[part]),
            orders=part,
        )
        for part in np.split(rows[order], ends)
    ]


def _catalogue(task: Task) -> Catalogue:
    """Item codes as keys: they ascend, so a catalogue row is an item code."""
    keys = np.arange(task.n_items, dtype=np.uint64)
    text_keys = np.array([key64(text) for text in task.texts], np.uint64)
    return Catalogue(keys, task.texts, text_keys)


def _action_numbers(task: Task, settings: ProductSettings) -> Ints:
    names = ActionWeights.from_settings(settings.actions).names
    numbers = np.array([names.index(_action(name)) for name in task.action_names], np.int64)
    return numbers[task.actions]


FIRST: Settings = {
    "epochs": 12,
    "head_lr": 3e-3,
    "dropout": 0.2,
    "weight_decay": 0.01,
    "batch_users": 32,
    "lora_steps": 40,
    "lora_lr": 2e-4,
}
SPACE: Space = {
    "epochs": (8, 12, 16, 24),
    "head_lr": Between(1e-3, 1e-2),
    "dropout": (0.1, 0.2, 0.3, 0.4),
    "weight_decay": Between(0.003, 0.3),
    "batch_users": (32, 64, 128),
    "dim": (64, 128),
}
METHODS = {
    "driftline": Driftline(FIRST, SPACE, {}),
    "driftline_frozen_text": Driftline(FIRST, SPACE, {"lora_steps": 0}),
}
"""Both search the same space; the frozen one is played with the settings found for the other, so
that nothing but the language model differs (`bench_quality`)."""
