"""MovieLens-100K as users' segments, the product's own round on some of them, and what it gives.

The language model is read once and takes no steps: the attacks are on the head, the item table and
the profiles, where a user's events act directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.offline.interactions import load_interactions
from learner.bootstrap import bootstrap_head, bootstrap_table, head_shape
from learner.catalogue import Catalogue, make_catalogue
from learner.language import LanguageModel
from learner.round_types import Candidate, Parent, RoundData
from learner.sampling import ActionWeights, Segment
from learner.trainer import train_round
from profiles.config import Settings
from profiles.events import key64
from profiles.head import Floats
from profiles.updater import Steps, advance_all, profile_at_start, start_state

Doubles = npt.NDArray[np.float64]
K = 10


@dataclass(frozen=True, slots=True)
class World:
    """Users' whole histories and the catalogue.  `text` (N, T): the frozen encoder's vectors."""

    settings: Settings
    catalogue: Catalogue
    actions: ActionWeights
    text: Floats
    users: list[Segment]

    def train(self, segments: Sequence[Segment], **learner: object) -> Candidate:
        """A first round on these histories, by the product's defaults but for `learner`."""
        settings = self.settings.learner.model_copy(update=learner)
        shape = head_shape(self.settings, self.text.shape[1])
        head = bootstrap_head(self.text, shape, self.actions.names, settings.seed)
        parent = Parent(head, bootstrap_table(head, self.catalogue, self.text), None, False)
        rows = self.catalogue.rows(np.concatenate([segment.items for segment in segments]))
        counts = np.bincount(rows, minlength=len(self.catalogue)).astype(np.float32)
        data = RoundData(self.catalogue, segments, [], [], counts, self.text.copy())
        return train_round(self.settings.model, settings, self.actions, parent, data)

    def losses(self, release: Candidate) -> Doubles:
        """Mean cross-entropy of each user's next events under a release.  Shapes: -> (U,)."""
        return np.array([_loss(self, release, segment) for segment in self.users])

    def shown(self, release: Candidate) -> npt.NDArray[np.int64]:
        """Of each item, to how many users it is recommended now.  Shapes: -> (N,)."""
        counts = np.zeros(len(self.catalogue), np.int64)
        for segment in self.users:
            trail = _trail(self, release, segment)
            scores = _scores(release, trail[-1:])[0]
            scores[self.catalogue.rows(segment.items)] = -np.inf
            counts[np.argpartition(-scores, K)[:K]] += 1
        return counts


def make_world(seed: int, epochs: int) -> World:
    """The bundled MovieLens-100K."""
    settings = Settings.model_construct()
    learner = settings.learner.model_copy(
        update={"seed": seed, "epochs": epochs, "lora_steps": 0, "device": "cpu", "threads": 1}
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
                user + 1,
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


def auc(inside: Doubles, outside: Doubles) -> float:
    """Chance that a member scores above a non-member, ties counting half (Mann and Whitney 1947).

    >>> auc(np.array([2.0, 3.0]), np.array([1.0, 2.0]))
    0.875
    """
    both = np.concatenate([inside, outside])
    ordered = np.sort(both)
    ranks = (np.searchsorted(ordered, both, "left") + np.searchsorted(ordered, both, "right")) / 2
    above = ranks[: len(inside)].sum() - len(inside) ** 2 / 2.0
    return float(above / (len(inside) * len(outside)))


def _trail(world: World, release: Candidate, segment: Segment) -> Floats:
    """Profiles before each event, and after the last.  Shapes: -> (n + 1, D)."""
    rows = world.catalogue.rows(segment.items)
    gaps = np.concatenate([[np.nan], np.maximum(np.diff(segment.ts), 0.0)])
    steps = Steps(
        release.items.vectors[rows][None], segment.actions[None], segment.values[None], gaps[None]
    )
    mask = np.ones((1, len(rows)), np.bool_)
    _, trail = advance_all(release.head, start_state(release.head, 1), steps, mask)
    made: Floats = np.concatenate([profile_at_start(release.head, 1), trail[0]])
    return made


def _scores(release: Candidate, profiles: Floats) -> Floats:
    scale = release.head.score_scale[0]
    scores: Floats = (profiles * scale) @ release.items.vectors.T + release.items.bias
    return scores


def _loss(world: World, release: Candidate, segment: Segment) -> float:
    scores = _scores(release, _trail(world, release, segment)[:-1]).astype(np.float64)
    peak = scores.max(axis=1, keepdims=True)
    log_sum = peak[:, 0] + np.log(np.exp(scores - peak).sum(axis=1))
    goal = scores[np.arange(len(scores)), world.catalogue.rows(segment.items)]
    return float((log_sum - goal).mean())
