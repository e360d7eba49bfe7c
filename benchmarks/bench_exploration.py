"""What exploring buys a catalogue with new items, and what it costs meanwhile.  All synthetic.

    make bench-exploration [BENCH_ARGS="--seeds 2 --rounds 3"]

Users and items have tastes of eight dimensions; a user takes a shown item with a probability that
grows with how well they agree.  The text of an item tells three of the eight, and noise.  A third
of the items are new: nobody has met them.  Then, round after round, every user is shown slates of
ten by the serving release under a policy (`serving.exploration`), takes what she takes, and the
learner's own round (head only) trains on all events so far and always serves.

What is measured at the end, by the truth that only the simulation knows: NDCG@10 of ranking *new*
items for each user by the last release (relevant: her true best ten among them), and the takes per
slate over all rounds, which is what exploring costs.  Policies share worlds, users' luck and seeds.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Result, load_average, report, say
from learner.bootstrap import bootstrap_head, bootstrap_table, head_shape
from learner.catalogue import Catalogue
from learner.evaluation import Model
from learner.round_types import Hooks, Parent, RoundData
from learner.sampling import ActionWeights, Segment
from learner.trainer import train_round
from profiles.config import Settings, load_settings
from profiles.evaluation import UserSequence, profiles_before
from profiles.exploration import Policy, explore
from profiles.layers import Floats
from profiles.scoring import Ranked

FIRST_SEED = 21
TASTES, TOLD = 8, 3
USERS, ITEMS, NEW = 300, 240, 80
BEFORE = 12
"""Events of each user before the simulation begins, on items that are not new."""
SLATE = 10
START_S = 1_700_000_000.0
POLICIES = {
    "off": Policy(),
    "epsilon": Policy("epsilon", epsilon=0.2),
    "boltzmann": Policy("boltzmann", temperature=0.5),
    "uncertain": Policy("uncertain", epsilon=0.2),
}


@dataclass(slots=True)
class World:
    """Shapes: agree (U, N) probability that a user takes an item; text (N, T).

    `events`: per user, rows of the items that she took, oldest first.
    """

    agree: npt.NDArray[np.float64]
    text: Floats
    catalogue: Catalogue
    events: list[list[int]]

    @classmethod
    def make(cls, seed: int, text_dim: int) -> World:
        rng = np.random.default_rng(seed)
        users, items = rng.normal(size=(USERS, TASTES)), rng.normal(size=(ITEMS, TASTES))
        agree = 1.0 / (1.0 + np.exp(2.0 - users @ items.T))
        told = items[:, :TOLD] @ rng.normal(size=(TOLD, text_dim)) + rng.normal(
            size=(ITEMS, text_dim)
        )
        text = (told / np.linalg.norm(told, axis=1, keepdims=True)).astype(np.float32)
        keys = np.arange(1, ITEMS + 1, dtype=np.uint64)
        catalogue = Catalogue(keys, tuple(f"item {n}" for n in range(ITEMS)), keys.copy())
        events = []
        for user in range(USERS):
            chance = agree[user, : ITEMS - NEW]
            events.append(
                rng.choice(
                    ITEMS - NEW, size=BEFORE, replace=False, p=chance / chance.sum()
                ).tolist()
            )
        return cls(agree, text, catalogue, events)

    def segments(self, action: int) -> list[Segment]:
        """Everybody's events."""
        return [
            Segment(
                user=user + 1,
                skipped=0,
                first_target=0,
                items=self.catalogue.keys[rows],
                ts=times(len(rows)),
                actions=np.full(len(rows), action),
                values=np.zeros(len(rows), np.float32),
                orders=np.arange(len(rows)) * USERS + user,
            )
            for user, rows in enumerate(self.events)
        ]

    def counts(self) -> Floats:
        """Events behind each item."""
        flat = np.concatenate([np.array(rows, dtype=np.int64) for rows in self.events])
        return np.bincount(flat, minlength=ITEMS).astype(np.float32)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--slates", type=int, default=4, help="of each user in a round")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--name", default="exploration")
    asked = parser.parse_args()
    started = load_average()
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in POLICIES}
    for seed in range(FIRST_SEED, FIRST_SEED + asked.seeds):
        for name, policy in POLICIES.items():
            runs[name].append(play(policy, seed, asked.rounds, asked.slates, asked.epochs))
            say(f"seed {seed}, {name}: NDCG@10 of new items, takes a slate {runs[name][-1]}")
    report(
        asked.name,
        FIRST_SEED,
        vars(asked),
        started,
        data="synthetic",
        users=USERS,
        items=ITEMS,
        new_items=NEW,
        policies={name: row_of(runs, name) for name in POLICIES},
    )


def play(policy: Policy, seed: int, rounds: int, slates: int, epochs: int) -> tuple[float, float]:
    """One world under one policy.  Returns: NDCG@10 of new items, takes a slate."""
    settings = load_settings(
        learner={"epochs": epochs, "lora_steps": 0, "seed": seed, "device": "cpu"}
    )
    actions = ActionWeights.from_settings(settings.actions)
    action = actions.names.index("click")
    world = World.make(seed, text_dim=384)
    luck = np.random.default_rng([seed, 1])
    taken = shown = 0
    for number in range(rounds):
        model = train(world, settings, actions, action)
        counts = world.counts()
        for slate in range(slates):
            scores = rank_scores(model, world, action)
            for user, rows in enumerate(world.events):
                scores[user, rows] = -np.inf
            order = np.argsort(-scores, axis=1)
            pool = Ranked(order, np.take_along_axis(scores, order, axis=1).astype(np.float32))
            usable = np.isfinite(pool.scores)
            pool = Ranked(np.where(usable, pool.rows, -1), pool.scores)
            names = [f"{seed}-{number}-{slate}-{user}" for user in range(USERS)]
            slate_rows = explore(pool, SLATE, policy, names, counts).ranked.rows
            chance = luck.random((USERS, ITEMS))  # of every item, so that policies share it
            for user in range(USERS):
                mine = [int(row) for row in slate_rows[user] if row >= 0]
                takes = [row for row in mine if chance[user, row] < world.agree[user, row]]
                world.events[user] += takes
                taken, shown = taken + len(takes), shown + 1
    model = train(world, settings, actions, action)
    return new_item_ndcg(rank_scores(model, world, action), world), taken / shown


def train(world: World, settings: Settings, actions: ActionWeights, action: int) -> Model:
    """The learner's round on all events so far, from the first release; a tenth of the users decide
    when to stop."""
    shape = head_shape(settings, world.text.shape[1])
    head = bootstrap_head(world.text, shape, actions.names, settings.learner.seed)
    table = bootstrap_table(head, world.catalogue, world.text)
    everything = world.segments(action)
    held = everything[::10]
    kept = [segment for at, segment in enumerate(everything) if at % 10]
    data = RoundData(world.catalogue, kept, [], held, world.counts(), world.text)
    parent = Parent(head, table, None, is_trained=False)
    made = train_round(settings.model, settings.learner, actions, parent, data, Hooks())
    return Model(made.head, made.items.vectors, made.items.bias)


def times(events: int) -> npt.NDArray[np.float64]:
    """One event a minute."""
    return np.linspace(START_S, START_S + 60.0 * events, events, endpoint=False)


def rank_scores(model: Model, world: World, action: int) -> npt.NDArray[np.float64]:
    """Score of every item for every user, after all her events.  Shapes: -> (U, N)."""
    found = np.empty((USERS, ITEMS))
    for user, rows in enumerate(world.events):
        # One event more, which is not applied: `profiles_before` gives the profile before it.
        n = len(rows) + 1
        sequence = UserSequence(
            np.array([*rows, rows[-1]]), np.full(n, action), np.zeros(n, np.float32),
            times(n),
        )  # fmt: skip
        profile = profiles_before(model.head, model.vectors, [sequence], [np.arange(n)])[0, -1]
        found[user] = profile @ model.vectors.T * model.head.score_scale[0] + model.bias
    return found


def new_item_ndcg(scores: npt.NDArray[np.float64], world: World) -> float:
    """NDCG@10 of ranking the new items, her true best ten being relevant; mean over users."""
    new = slice(ITEMS - NEW, ITEMS)
    order = np.argsort(-scores[:, new], axis=1)[:, :10]
    truth = world.agree[:, new]
    relevant = truth >= np.sort(truth, axis=1)[:, -10][:, None]
    discount = 1.0 / np.log2(np.arange(2, 12))
    hits = np.take_along_axis(relevant, order, axis=1)
    return float((hits * discount).sum(axis=1).mean() / discount.sum())


def row_of(runs: dict[str, list[tuple[float, float]]], name: str) -> Result:
    """Means over seeds, and the paired difference to no exploration, with its standard error."""
    own, off = np.array(runs[name]), np.array(runs["off"])
    change = own - off
    error = change.std(axis=0, ddof=1) / np.sqrt(len(change)) if len(change) > 1 else change[0] * 0
    return {
        "new_items_ndcg10": round(float(own[:, 0].mean()), 4),
        "takes_a_slate": round(float(own[:, 1].mean()), 4),
        "new_items_change": round(float(change[:, 0].mean()), 4),
        "new_items_change_standard_error": round(float(error[0]), 4),
        "takes_change": round(float(change[:, 1].mean()), 4),
        "takes_change_standard_error": round(float(error[1]), 4),
    }


if __name__ == "__main__":
    main()
