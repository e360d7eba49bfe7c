"""Fake users who push one item: synthetic, beside MovieLens-100K's real ones.

    alternate  by turns on one of the hundred most popular items and on the target, all of them
               within the last hours before the round, so that they are most of what it holds out
    mimic      like a real user, copied event by event with her times, the target as every fourth
    trending   one event each, on the target, within the last hour: nothing that a round learns, but
               what workers count (`profiles.trend`)

Every event is five stars.
"""

from __future__ import annotations

import numpy as np

from benchmarks.attacks.world import World
from learner.sampling import Segment

TRENDING = "trending"
KINDS = ("alternate", "mimic", TRENDING)
SHARE = 0.01
STARS = 5.0
PACE_S = 60.0


def crowd_size(world: World) -> int:
    """1% of the users, and one at least."""
    return max(round(SHARE * len(world.users)), 1)


def fake_users(
    world: World, target: int, kind: str, events: int, rng: np.random.Generator
) -> list[Segment]:
    """A crowd of so many events each, that pushes the catalogue's row `target`."""
    keys = world.catalogue.keys
    real = [world.catalogue.rows(user.items) for user in world.users]
    popular = np.argsort(-np.bincount(np.concatenate(real), minlength=len(keys)))[:100]
    last_s = max(float(user.ts[-1]) for user in world.users)
    rate = world.actions.names.index("rate")
    made = []
    for number in range(crowd_size(world)):
        at = np.arange(1 if kind == TRENDING else events)
        if kind == TRENDING:
            items, ts = np.array([target]), np.array([last_s - PACE_S * float(rng.uniform(0, 60))])
        elif kind == "alternate":
            items = np.where(at % 2, target, rng.choice(popular, events))
            ts = last_s - PACE_S * at[::-1]
        else:
            copied = int(rng.integers(len(real)))
            items = np.where(at % 4 == 3, target, np.resize(real[copied], events))
            ts = np.sort(np.resize(world.users[copied].ts, events))
        made.append(
            Segment(
                int(rng.integers(2**63)),
                0,
                0,
                keys[items],
                ts.astype(np.float64),
                np.full(len(at), rate),
                np.full(len(at), STARS, np.float32),
                10**7 + number * events + at,
            )
        )
    return made
