"""Searches the learner's settings on a data set: what `driftline tune` does.

The events are parted in time: the last tenth is never looked at by the search and compares the
winner with the settings it began from; the tenth before it is the validation slice, which every
trial is judged on; the rest is trained on, from the first release, as in a learner's first round.
So what the search reports as found is not what it searched on.

Sampler and pruning are Optuna's (TPE, Bergstra et al. 2011; the median rule of Google Vizier,
Golovin et al. 2017): a trial whose validation NDCG@10 lies under the median of the earlier ones at
the same epoch is given up.  Texts are read once; only trials with language-model steps read on.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from learner.bootstrap import bootstrap_from
from learner.catalogue import Catalogue, make_catalogue
from learner.evaluation import Model, Paired, make_exam, paired, sit
from learner.round_types import Candidate, Hooks, Parent, RoundData
from learner.rounds import held_part, item_counts
from learner.sampling import (
    ActionWeights,
    Segment,
    before_border,
    holdout_border,
    is_held_out,
)
from learner.segments import whole_segments
from learner.text_cache import load_text
from learner.trainer import train_round
from profiles.config import Settings
from profiles.errors import LearnerError, SettingsError
from profiles.events import Event
from profiles.expected import expected_by
from profiles.item_text import item_text
from profiles.items import Item
from profiles.logs import get_logger
from profiles.modalities import Modalities
from profiles.registry import ReleaseStore
from profiles.release import open_release
from profiles.settings.learning import LearnerSettings

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.trial import BaseTrial

log = get_logger("learner.tuning")

TEST_SHARE = 0.1
VALIDATION_SHARE = 1.0 / 9.0
"""A ninth of what is left after the test share: another tenth of everything."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a search came to.

    `found` maps settings under [learner] to the best values; `validation_ndcg` is the winner's,
    `comparison` the settings it began from (parent) against the winner (candidate) on the untouched
    last tenth.
    """

    found: dict[str, float | int]
    validation_ndcg: float
    comparison: Paired
    trials: int
    pruned: int
    seconds: float

    def to_toml(self) -> str:
        """The winner as a section of a settings file."""
        lines = [f"{name} = {value}" for name, value in sorted(self.found.items())]
        return "\n".join(["[learner]", *lines]) + "\n"


def suggest(trial: BaseTrial, with_language: bool) -> dict[str, float | int]:
    """The searched settings, by name.  The language model's own only when it takes part."""
    found: dict[str, float | int] = {
        "head_lr": trial.suggest_float("head_lr", 5e-4, 1e-2, log=True),
        "weight_decay": trial.suggest_float("weight_decay", 1e-4, 0.3, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "batch_users": trial.suggest_int("batch_users", 16, 128, log=True),
        "sequence_length": trial.suggest_int("sequence_length", 20, 100, step=10),
    }
    if with_language:
        found["lora_lr"] = trial.suggest_float("lora_lr", 2e-5, 2e-3, log=True)
        found["lora_items"] = trial.suggest_int("lora_items", 16, 64, log=True)
    return found


def tune(
    settings: Settings,
    items: Sequence[Item],
    events: Sequence[Event],
    *,
    trials: int,
    timeout_s: float | None = None,
    storage: str | None = None,
) -> Tuned:
    """Search for better settings under [learner].

    Args:
        settings: where the search begins; their own values are the first trial.
        storage: an Optuna storage URL, such as `sqlite:///tune.db`, to go on with a search.
    Raises: SettingsError when Optuna is not installed, LearnerError for too little data,
    ModelError.
    """
    try:
        import optuna
    except ImportError as error:
        raise SettingsError(
            f"tuning needs Optuna ({error}); install it with: pip install 'driftline[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    begun = time.monotonic()
    task = _Task.prepare(settings, items, events)
    study: Study = optuna.create_study(
        study_name="driftline",
        storage=storage,
        load_if_exists=True,
        direction="maximize",
        sampler=optuna.samplers.TPESampler(seed=settings.learner.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=1),
    )
    with_language = settings.learner.lora_steps > 0
    own = optuna.trial.FixedTrial(_own_values(settings.learner))
    study.enqueue_trial(suggest(own, with_language), skip_if_exists=True)
    study.optimize(
        lambda trial: task.judge(trial, suggest(trial, with_language)),
        n_trials=trials,
        timeout=timeout_s,
    )
    finished = [t for t in study.trials if t.state is optuna.trial.TrialState.COMPLETE]
    if not finished:
        raise LearnerError("no trial finished; give the search more time")
    found: dict[str, float | int] = study.best_trial.params
    return Tuned(
        found=found,
        validation_ndcg=study.best_value,
        comparison=task.compare(found),
        trials=len(study.trials),
        pruned=sum(t.state is optuna.trial.TrialState.PRUNED for t in study.trials),
        seconds=time.monotonic() - begun,
    )


def _own_values(learner: LearnerSettings) -> dict[str, Any]:
    """Any: a setting has one of many types; those searched are numbers."""
    return learner.model_dump()


@dataclass(frozen=True, slots=True)
class _Task:
    """The parted data and the release that every trial starts from."""

    settings: Settings
    catalogue: Catalogue
    actions: ActionWeights
    parent: Parent
    data: RoundData
    test: list[Segment]

    @classmethod
    def prepare(cls, settings: Settings, items: Sequence[Item], events: Sequence[Event]) -> _Task:
        modalities = Modalities.of(settings.model.vectors)
        catalogue = make_catalogue(items, item_text(settings.data), modalities)
        actions = ActionWeights.from_settings(settings.actions)
        everything = whole_segments(events, {name: at for at, name in enumerate(actions.names)})
        if not everything:
            raise LearnerError("there is nothing to tune on: the data set has no event")
        seen, test = _parted(everything, TEST_SHARE)
        training, validation = _parted(seen, VALIDATION_SHARE) if seen else ([], [])
        if not training or not validation or not test:
            raise LearnerError(
                f"{sum(len(s.items) for s in everything)} events are too few to part them in time "
                "into training, validation and test"
            )
        with tempfile.TemporaryDirectory(prefix="driftline-tune-") as folder:
            store = ReleaseStore(str(Path(folder) / "releases"), Path(folder) / "cache")
            first = bootstrap_from(settings, catalogue, store, keep_text=Path(folder))
            release = open_release(store.fetch(first.release_id), expected_by(settings))
            text = load_text(Path(folder), first.release_id, catalogue, release.head.shape.text_dim)
        # No adapter: the first release's is at identity, which is what a new one is, too.
        parent = Parent(release.head, release.items, None, is_trained=False)

        most = settings.learner.user_item_events
        counts = item_counts(release.items, catalogue, training, most)[1]
        data = RoundData(catalogue, training, [], validation, counts, text)
        return cls(settings, catalogue, actions, parent, data, test)

    def judge(self, trial: Trial, changes: Mapping[str, float | int]) -> float:
        """Validation NDCG@10 of one trial.  Raises: TrialPruned."""
        import optuna

        epoch = 0

        def report(stage: str, step: int, named: Mapping[str, float]) -> None:
            nonlocal epoch
            if "validation_ndcg" not in named:
                return
            trial.report(named["validation_ndcg"], epoch)
            epoch += 1
            if trial.should_prune():
                raise optuna.TrialPruned

        found = self._train(changes, Hooks(figures=report)).validation_ndcg
        log.info("trial", number=trial.number, validation_ndcg=round(found, 5), **changes)
        return found

    def compare(self, changes: Mapping[str, float | int]) -> Paired:
        """The settings begun from against those found, on the untouched last events."""
        exam = make_exam(self.test, self.catalogue, self.actions)
        exclude_seen = self.settings.serving.exclude_seen
        ranks = [
            sit(
                Model(made.head, made.items.vectors, made.items.bias),
                exam,
                exclude_seen=exclude_seen,
            )
            for made in (self._train(some, Hooks()) for some in ({}, changes))
        ]
        return paired(*ranks)

    def _train(self, changes: Mapping[str, float | int], hooks: Hooks) -> Candidate:
        learner = self.settings.learner.model_validate(
            {**self.settings.learner.model_dump(), **changes}
        )
        return train_round(
            self.settings.model, learner, self.actions, self.parent, self.data, hooks
        )


def _parted(segments: Sequence[Segment], share: float) -> tuple[list[Segment], list[Segment]]:
    """What lies before the newest `share` of the events, and the same users asked about it."""
    border = holdout_border(segments, share)
    before = [part for s in segments if (part := before_border(s, border)) is not None]
    after = [held_part(s, border) for s in segments if is_held_out(s, border).any()]
    return before, after
