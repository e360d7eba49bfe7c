"""MovieLens-100K as users' segments, the product's own round on some of them, and what it gives.

A round is the product's: the newest events are held out, half of those who have any decide early
stopping, and every setting has its default.  The language model is read once and takes no steps:
the attacks are on the head, the item table and the profiles, where a user's events act directly.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.offline.interactions import load_interactions
from learner.bootstrap import bootstrap_head, bootstrap_table, head_shape
from learner.catalogue import Catalogue, make_catalogue
from learner.graduation import is_exam_user
from learner.language import LanguageModel
from learner.round_types import Candidate, Hooks, Parent, RoundData
from learner.rounds import round_border, round_counts, split
from learner.sampling import ActionWeights, Segment
from learner.trainer import train_round
from profiles.config import Settings
from profiles.layers import Floats
from profiles.settings.learning import LearnerSettings
from profiles.trend import RecentCounts, Trend
from profiles.updater import Steps, advance_all, profile_at_start, start_state
from profiles.wire import key64

Doubles = npt.NDArray[np.float64]
Border = tuple[float, int]
K = 10


@dataclass(frozen=True, slots=True)
class Trained:
    """A release, and the border from which on events were held out from it."""

    release: Candidate
    border: Border


@dataclass(frozen=True, slots=True)
class World:
    """Users' whole histories and the catalogue.  `text` (N, T): the frozen encoder's vectors."""

    settings: Settings
    catalogue: Catalogue
    actions: ActionWeights
    text: Floats
    users: list[Segment]

    def train(self, segments: Sequence[Segment], changed: Mapping[str, object]) -> Trained:
        """A first round on these histories; `changed`: learner settings that are not default.

        Raises: pydantic's ValidationError for a setting that is none.
        """
        named = {**self.settings.learner.model_dump(), **changed}
        settings = LearnerSettings.model_validate(named)
        shape = head_shape(self.settings, self.text.shape[1])
        head = bootstrap_head(self.text, shape, self.actions.names, settings.seed)
        parent = Parent(head, bootstrap_table(head, self.catalogue, self.text), None, False)
        border = round_border(segments, settings)
        training, held = split(segments, border)
        entropy = int(np.random.default_rng(settings.seed).integers(2**62))
        _, counts = round_counts(parent.items, self.catalogue, training, settings, entropy)
        validation = [segment for segment in held if not is_exam_user(segment.user)]
        data = RoundData(self.catalogue, training, [], validation, counts, self.text.copy())
        # A known seed for the noise, which a deployment must not have: figures repeat.
        hooks = Hooks(entropy=lambda: entropy)
        made = train_round(self.settings.model, settings, self.actions, parent, data, hooks)
        return Trained(made, border)

    def lifts(self, release: Candidate, more: Sequence[Segment] = ()) -> Floats:
        """What the stream lifts each item by at its end (`profiles.trend`), `more` users in it.

        Shapes: -> (N,).
        """
        segments = [*self.users, *more]
        items = np.concatenate([self.catalogue.rows(segment.items) for segment in segments])
        ts = np.concatenate([segment.ts for segment in segments])
        whose = np.repeat(np.arange(len(segments)), [len(segment.items) for segment in segments])
        # A user counts once for an item.
        _, first = np.unique(whose * len(self.catalogue) + items, return_index=True)
        trend = Trend.of(self.settings.serving)
        recent = RecentCounts(trend.half_life_s, len(self.catalogue))
        recent.note(items[first], ts[first])
        return trend.lifts(recent.at(recent.now_s), release.items.counts)

    def shown(self, release: Candidate, lifts: Floats | float = 0.0) -> npt.NDArray[np.int64]:
        """Of each item, to how many users it is recommended now.  Shapes: lifts (N,) -> (N,)."""
        counts = np.zeros(len(self.catalogue), np.int64)
        for segment in self.users:
            rows = self.catalogue.rows(segment.items)
            scores = scores_of(release, trail_of(self, release, segment, len(rows))[-1:])[0]
            scores += lifts
            scores[rows] = -np.inf
            counts[np.argpartition(-scores, K)[:K]] += 1
        return counts


def make_world(seed: int) -> World:
    """The bundled MovieLens-100K."""
    settings = Settings.model_construct()
    learner = settings.learner.model_copy(
        update={"seed": seed, "lora_steps": 0, "device": "cpu", "threads": 1}
    )
    settings = settings.model_copy(update={"learner": learner})
    found = load_interactions("movielens", None)
    catalogue = make_catalogue(found.catalogue)
    actions = ActionWeights.from_settings(settings.actions)
    names = np.array([actions.names.index(name) for name in found.action_names])
    keys = np.array([key64(item.item_id) for item in found.catalogue], np.uint64)
    language = LanguageModel.load(settings.model, None, "cpu", seed, 0)
    users = []
    for user in range(len(found.user_ids)):
        rows = np.flatnonzero(found.users == user)
        users.append(
            Segment(
                key64(str(found.user_ids[user])),  # its bits say who sits exams
                0,
                0,
                keys[found.items[rows]],
                found.ts[rows],
                names[found.actions[rows]],
                np.nan_to_num(found.values[rows]),
                rows,
            )
        )
    return World(settings, catalogue, actions, language.encode(catalogue.texts), users)


def trail_of(world: World, release: Candidate, segment: Segment, events: int) -> Floats:
    """Profiles before each of a user's first events, and after.  Shapes: -> (events + 1, D)."""
    rows = world.catalogue.rows(segment.items[:events])
    gaps = np.concatenate([[np.nan], np.maximum(np.diff(segment.ts[:events]), 0.0)])
    steps = Steps(
        release.items.vectors[rows][None],
        segment.actions[None, :events],
        segment.values[None, :events],
        gaps[None],
    )
    mask = np.ones((1, len(rows)), np.bool_)
    _, trail = advance_all(release.head, start_state(release.head, 1), steps, mask)
    made: Floats = np.concatenate([profile_at_start(release.head, 1), trail[0]])
    return made


def scores_of(release: Candidate, profiles: Floats) -> Floats:
    """Scores of the whole catalogue.  Shapes: (n, D) -> (n, N)."""
    scale = release.head.score_scale[0]
    scores: Floats = (profiles * scale) @ release.items.vectors.T + release.items.bias
    return scores


def parse_changed(named: Sequence[str]) -> dict[str, str]:
    """Settings of the learner as given on a command line; pydantic turns the texts into values.

    >>> parse_changed(["dropout=0.4", "epochs=3"])
    {'dropout': '0.4', 'epochs': '3'}
    """
    return dict(each.split("=", 1) for each in named)
