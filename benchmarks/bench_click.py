"""How good are the probabilities of a click?  Against logistic regression and the frozen encoder.

The classic set-up: a user's past and an item's text go in, the probability that she likes the item
comes out.  MovieLens: an act on a film counts as a click if it has four stars or more; what is
predicted is that, given that the film was rated at all (docs/learning.md says what a probability
means here).  Cut by time: the first 81% of the events are learned from, the next 9% decide early
stopping, the strength of the baselines' regularisation and the calibration, the last 10% are
asked; nothing is chosen by them.  In them a user's past moves on, event by event, for every method.

    ours_click        one learning round, head and LoRA, objective `click` without drawn negatives
    ours_multi_task   the same with the objective of the e-commerce domain: ranking and clicks
    ours_frozen_text  ours_click without a step of the language model
    logistic_ids      logistic regression on user, item, and how often each was seen and liked
    logistic_text     the frozen encoder and logistic regression: profile, item and their product
    logistic_both     that, and how often user and item were seen and liked
    base_rate         the share of likes, for everybody

Every method's score goes through the same Platt scaling on the same 9%.  Figures are of one seed;
intervals are by user.

    make bench-click [BENCH_ARGS="--users 200 --lora-steps 0"]
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import MaxAbsScaler

from benchmarks.ablation.trial import item_keys, segments_of
from benchmarks.click import features
from benchmarks.click.figures import Asked, compare
from benchmarks.harness import load_average, report, say
from benchmarks.offline.histories import Bools, Doubles
from benchmarks.offline.interactions import Interactions, load_interactions
from learner.bootstrap import bootstrap_head, bootstrap_table, head_shape
from learner.calibration import Judged, fit_platt, judge
from learner.catalogue import Catalogue, make_catalogue
from learner.evaluation import Model
from learner.language import LanguageModel
from learner.round_types import Hooks, Parent, RoundData
from learner.sampling import ActionWeights, Segment
from learner.trainer import train_round
from profiles.config import Settings, load_settings
from profiles.layers import Floats

LIKED_STARS = 4.0
ASKED_FROM, CHOSEN_FROM = 0.9, 0.81
ACTIONS = {"like": 1.0, "view": 0.5}
# Any below: values of settings, and scipy's sparse matrices, which have no types.
STRENGTHS = (1e-2, 1e-1, 1.0, 10.0)
OURS: dict[str, dict[str, Any]] = {
    "ours_click": {"objective": "click", "click_negatives": 0.0},
    "ours_multi_task": {"objective": "multi_task"},
    "ours_frozen_text": {"objective": "click", "click_negatives": 0.0, "lora_steps": 0},
}


@dataclasses.dataclass(frozen=True, slots=True)
class World:
    """The data, the cuts, and what ours learns from.  Shapes: text (items, T)."""

    data: Interactions
    catalogue: Catalogue
    text: Floats
    chosen: int
    asked: int

    def parts(self, start: int, stop: int) -> tuple[Segment, ...]:
        """Segments whose targets are the events from `start` to `stop`."""
        actions = ActionWeights.from_settings(ACTIONS)
        keys = item_keys(self.data, self.catalogue)
        return segments_of(self.data, keys, actions, start, stop)

    @property
    def is_liked(self) -> Bools:
        """Shapes: (N,)."""
        found: Bools = self.data.actions == self.data.action_names.index("like")
        return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--data", default="movielens", help="a data set of `driftline replay`")
    parser.add_argument("--path", type=Path, help="its file or folder")
    parser.add_argument("--users", type=int, default=0, help="draw so many users; 0 takes all")
    parser.add_argument("--lora-steps", type=int, default=40, help="of ours; the default's")
    parser.add_argument("--draws", type=int, default=500, help="of the bootstrap")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="click", help="of the result file")
    asked = parser.parse_args()
    started_load, began = load_average(), time.process_time()
    data = load_interactions(asked.data, asked.path)
    data = as_clicks(data.some_users(asked.users, asked.seed) if asked.users else data)
    world = make_world(data, asked.seed)
    logits: dict[str, Doubles] = {}
    for name, changes in OURS.items():
        say(f"learning {name}")
        logits[name] = ours(world, {"lora_steps": asked.lora_steps, **changes}, asked.seed)
    say("fitting the baselines")
    strengths = baselines(world, logits)
    logits["base_rate"] = np.zeros(len(data) - world.chosen)
    liked = world.is_liked[world.chosen :]
    cut = world.asked - world.chosen
    told = {name: _calibrated(scores, liked, cut) for name, scores in logits.items()}
    users = data.users[world.asked :]
    is_known = np.isin(users, np.unique(data.users[: world.chosen]))
    known = {
        name: Asked(one.chance[is_known], one.is_liked[is_known]) for name, one in told.items()
    }
    report(
        asked.name,
        asked.seed,
        {name: value for name, value in vars(asked).items() if name != "path"},
        started_load,
        data="synthetic" if data.synthetic else data.name,
        liked_stars=LIKED_STARS,
        strengths=strengths,
        asked=compare(told, users, asked.seed, asked.draws),
        asked_known_users=compare(known, users[is_known], asked.seed, asked.draws),
        cpu_s=round(time.process_time() - began, 1),
    )


def as_clicks(data: Interactions) -> Interactions:
    """Every rating as an act that is a like or only a view; stars themselves are not told."""
    return dataclasses.replace(
        data,
        actions=(data.values >= LIKED_STARS).astype(np.int64),
        action_names=("view", "like"),
        values=np.full(len(data), np.nan, np.float32),
    )


def make_world(data: Interactions, seed: int) -> World:
    """Cut the data and read the catalogue with the untuned encoder."""
    settings = load_settings()
    language = LanguageModel.load(settings.model, None, "cpu", seed)
    catalogue = make_catalogue(data.catalogue)
    text = language.encode(catalogue.texts)
    count = len(data)
    return World(data, catalogue, text, int(CHOSEN_FROM * count), int(ASKED_FROM * count))


def ours(world: World, changes: dict[str, Any], seed: int) -> Doubles:
    """Scores of the product's round for the events after the learned ones."""
    learner = {**changes, "seed": seed, "positive_actions": ("like",)}
    settings: Settings = load_settings(learner=learner, actions=ACTIONS)
    actions = ActionWeights.from_settings(settings.actions)
    head = bootstrap_head(
        world.text, head_shape(settings, world.text.shape[1]), actions.names, seed
    )
    parent = Parent(head, bootstrap_table(head, world.catalogue, world.text), None, False)
    rows = world.catalogue.rows(item_keys(world.data, world.catalogue)[: world.chosen])
    counts = np.bincount(rows, minlength=len(world.catalogue)).astype(np.float32)
    learned, deciding = world.parts(0, world.chosen), world.parts(world.chosen, world.asked)
    round_data = RoundData(world.catalogue, learned, [], deciding, counts, world.text.copy())
    made = train_round(settings.model, settings.learner, actions, parent, round_data, Hooks())
    model = Model(made.head, made.items.vectors, made.items.bias)
    rest = world.parts(world.chosen, len(world.data))
    judged = judge(model, rest, world.catalogue, actions, ("like",))
    # Users' events one user after the other, back in the order of time.
    order = np.concatenate([segment.orders[segment.first_target :] for segment in rest])
    found = np.empty(len(order))
    found[order - world.chosen] = judged.scores
    return found


def baselines(world: World, logits: dict[str, Doubles]) -> dict[str, float]:
    """Fit them, add their scores; returns the strength of each, found on the deciding part."""
    data = world.data
    rows = world.catalogue.rows(item_keys(data, world.catalogue))
    acts = features.Acts(data.users, rows, world.is_liked, world.text, world.chosen)
    text, rates = features.text(acts), features.rates(acts)
    found: dict[str, float] = {}
    for name, known in (
        ("logistic_ids", features.ids(acts)),
        ("logistic_text", text),
        ("logistic_both", np.concatenate([text, rates], axis=1)),
    ):
        logits[name], found[name] = logistic(known, acts.is_liked, world.chosen, world.asked)
    return found


def logistic(known: Any, is_liked: Bools, fit: int, asked: int) -> tuple[Doubles, float]:
    """Scores of the events from `fit` on, and the strength that the part up to `asked` chose.

    `known` (N, F) may be sparse; each column is brought to at most 1.
    """
    scaled = MaxAbsScaler().fit(known[:fit])
    learned, rest = scaled.transform(known[:fit]), scaled.transform(known[fit:])
    tried: list[tuple[float, float, Doubles]] = []
    for strength in STRENGTHS:
        model = LogisticRegression(C=strength, max_iter=100).fit(learned, is_liked[:fit])
        scores: Doubles = model.decision_function(rest).astype(np.float64)
        deciding = Asked(1.0 / (1.0 + np.exp(-scores[: asked - fit])), is_liked[fit:asked])
        loss, _, _ = deciding.figures(np.ones(asked - fit))
        tried.append((loss, strength, scores))
    _, strength, scores = min(tried, key=lambda one: one[0])
    return scores, strength


def _calibrated(scores: Doubles, liked: Bools, cut: int) -> Asked:
    """Probabilities of the asked part, by Platt scaling on what comes before it."""
    fitted = fit_platt(Judged(scores[:cut], liked[:cut]))
    chance = fitted.probabilities(scores[cut:].astype(np.float32)).astype(np.float64)
    return Asked(chance, liked[cut:])


if __name__ == "__main__":
    main()
