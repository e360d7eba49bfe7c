"""What each replay policy draws: the past in proportion, the recent first, or every cohort."""

from __future__ import annotations

import numpy as np
import pytest

from learner.replay_draw import COHORTS, Policy, draw, herd, recent_first
from learner.sampling import Segment

POLICIES: tuple[Policy, ...] = ("reservoir", "recent", "herding")


def segment(number: int, user: int, items: list[int]) -> Segment:
    """A segment whose targets are `items`; its arrival numbers begin at `number`."""
    size = len(items)
    return Segment(
        user, 0, 0, np.array(items, np.uint64), np.arange(size, dtype=np.float64),
        np.zeros(size, np.int64), np.zeros(size, np.float32), number + np.arange(size),
    )  # fmt: skip


def past(count: int, users: int, seed: int = 0) -> list[Segment]:
    """Segments in order of arrival; user u comes with segment u * count / users."""
    rng = np.random.default_rng(seed)
    return [
        segment(10 * n, n * users // count, rng.integers(1 << 60, size=5).tolist())
        for n in range(count)
    ]


@pytest.mark.parametrize("policy", POLICIES)
def test_a_draw_is_seeded_and_never_takes_an_example_twice(policy: Policy) -> None:
    segments = past(200, 40)

    once, again, other = (
        draw(policy, segments, 50, np.random.default_rng(seed)) for seed in (1, 1, 2)
    )

    assert [id(s) for s in once] == [id(s) for s in again]
    assert len({id(s) for s in once}) == 50
    assert {id(s) for s in once} != {id(s) for s in other} or policy == "herding"


@pytest.mark.parametrize("policy", POLICIES)
def test_a_draw_of_more_than_there_is_takes_everything(policy: Policy) -> None:
    segments = past(20, 7)

    drawn = draw(policy, segments, 99, np.random.default_rng(0))

    assert sorted(id(s) for s in drawn) == sorted(id(s) for s in segments)


def test_recent_draws_as_much_from_each_doubling_of_age() -> None:
    """Ages 15-30, 31-62, ... 255-510 of 5,000, in 200 draws of 50."""
    rng = np.random.default_rng(3)
    ages = np.arange(5_000)
    hits = np.zeros(len(ages))
    for _ in range(200):
        hits[recent_first(ages, 50, rng)] += 1

    octaves = [hits[2**n - 1 : 2 ** (n + 1) - 1].sum() for n in range(5, 10)]

    assert max(octaves) / min(octaves) < 1.35
    assert hits[:50].mean() > 10 * hits[-1_000:].mean()


def test_herding_gives_every_cohort_the_same_number_of_places() -> None:
    # The last user alone has as many examples as all others together.
    early = past(160, 32)
    busy = [segment(10_000 + n, 999, [n + 1]) for n in range(160)]

    drawn = draw("herding", [*early, *busy], 4 * COHORTS, np.random.default_rng(0))

    assert sum(s.user == 999 for s in drawn) <= 8


def test_a_herded_choice_is_nearer_to_the_whole_than_a_random_one() -> None:
    rng = np.random.default_rng(5)
    vectors = rng.normal(size=(400, 16)).astype(np.float32)
    goal = vectors.mean(axis=0)

    herded = np.linalg.norm(vectors[herd(vectors, 20)].mean(axis=0) - goal)
    by_chance = [
        np.linalg.norm(vectors[rng.permutation(400)[:20]].mean(axis=0) - goal) for _ in range(50)
    ]

    assert herded < 0.3 * min(by_chance)
