"""How far 1% fake users push one item: its exposure among real users, with and without bounds.

The fake users join MovieLens-100K's real ones; each acts `--events` times, all with five stars:

    alternate  by turns on one of the hundred most popular items and on the target
    mimic      like a real user, copied event by event, with the target as every fourth

Exposure is the share of real users in whose top ten the target stands, after
a round of the product on all histories; the bar is twice what it is without fake users.

    honest     no fake users
    unbounded  learner.user_share=1, learner.user_item_events=0
    defaults   learner.user_share=0.01
    bounded    and learner.user_item_events=3

    make bench-abuse [BENCH_ARGS="--epochs 4 --targets 1"]
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.attacks.world import World, make_world
from benchmarks.harness import Result, load_average, report, say
from learner.sampling import Segment

BAR = 2.0
KINDS = ("alternate", "mimic")
ARMS: dict[str, dict[str, float]] = {
    "unbounded": {"user_share": 1.0, "user_item_events": 0},
    "defaults": {},
    "bounded": {"user_item_events": 3},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    parser.add_argument("--epochs", type=int, default=12, help="of the round; the product's: 12")
    parser.add_argument("--events", type=int, default=200, help="of each fake user")
    parser.add_argument("--targets", type=int, default=2, help="items pushed, one at a time")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--name", default="abuse", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    world = make_world(asked.seed, asked.epochs)
    honest = world.shown(world.train(world.users))
    say("honest users alone: trained")
    rng = np.random.default_rng(asked.seed)
    # Shown to some, far from everybody: from 1% to 5% of the users.
    users = len(world.users)
    fitting = np.flatnonzero((honest >= 0.01 * users) & (honest <= 0.05 * users))
    targets = rng.permutation(fitting)[: asked.targets].tolist()
    runs: list[Result] = []
    for target in targets:
        before = int(honest[target])
        run: Result = {"honest_users_shown": before, "ratios": {}}
        for kind in KINDS:
            fakes = fake_users(world, target, kind, asked.events, rng)
            for name, bounds in ARMS.items():
                after = int(world.shown(world.train([*world.users, *fakes], **bounds))[target])
                run["ratios"][f"{kind}, {name}"] = round(after / before, 3)
                say(f"target {target}, {kind}, {name}: shown to {after} real users, not {before}")
        runs.append(run)
    worst = {
        name: max(run["ratios"][f"{kind}, {name}"] for run in runs for kind in KINDS)
        for name in ARMS
    }
    report(
        asked.name,
        asked.seed,
        vars(asked),
        started_load,
        data="movielens-100k with synthetic fake users",
        users=users,
        fake_users=_crowd(world),
        runs=runs,
        worst=worst,
        bar=BAR,
        is_met=worst["defaults"] <= BAR,
    )


def _crowd(world: World) -> int:
    return max(round(0.01 * len(world.users)), 1)


def fake_users(
    world: World, target: int, kind: str, events: int, rng: np.random.Generator
) -> list[Segment]:
    """Users who act on what real ones like and, in between, on the target."""
    keys = world.catalogue.keys
    real = [world.catalogue.rows(user.items) for user in world.users]
    counts = np.bincount(np.concatenate(real), minlength=len(keys))
    popular = np.argsort(-counts)[:100]
    last_s = max(float(user.ts[-1]) for user in world.users)
    rate = world.actions.names.index("rate")
    made = []
    for number in range(_crowd(world)):
        at = np.arange(events)
        if kind == "alternate":
            items = np.where(at % 2, target, rng.choice(popular, events))
        else:
            copied = np.resize(real[int(rng.integers(len(real)))], events)
            items = np.where(at % 4 == 3, target, copied)
        made.append(
            Segment(
                10**6 + number,
                0,
                0,
                keys[items],
                (last_s - 60.0 * at[::-1]).astype(np.float64),
                np.full(events, rate),
                np.full(events, 5.0, np.float32),
                10**7 + number * events + np.arange(events),
            )
        )
    return made


if __name__ == "__main__":
    main()
