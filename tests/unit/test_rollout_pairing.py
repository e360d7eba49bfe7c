"""Shadow scores: two releases on the same events, ranked as serving would have ranked them."""

from __future__ import annotations

import dataclasses

import msgspec
import numpy as np
import pytest

from learner.records import Row
from learner.rollout.betting import Betting
from learner.rollout.pairing import SAMPLE_USERS, Pair, count_new
from learner.sampling import ActionWeights, Segment
from profiles.evaluation import UserSequence, gains, prequential
from profiles.release import ItemTable, Release
from profiles.updater import Steps, advance_all, start_state
from profiles.wire import key64
from tests.unit.builders import ACTIONS, make_items, make_release

pytestmark = pytest.mark.unit

WEIGHTS = ActionWeights(ACTIONS, np.array([0.5, -1.0, 1.0], np.float32))
ITEMS = 40


def segments(users: int, each: int, seed: int = 0) -> list[Segment]:
    rng = np.random.default_rng(seed)
    keys = np.array([key64(f"i{n}") for n in range(ITEMS)], np.uint64)
    made = []
    for user in range(users):
        made.append(
            Segment(
                user=user,
                skipped=0,
                first_target=each,
                items=keys[rng.permutation(ITEMS)[:each]],
                ts=60.0 * np.arange(each, dtype=np.float64),
                actions=np.full(each, 2),
                values=np.zeros(each, np.float32),
                orders=np.arange(each) * users + user,
            )
        )
    return made


def replace_items(release: Release, seed: int, **arrays: np.ndarray) -> Release:
    name = f"r{seed:05d}-{'0' * 16}"
    table = dataclasses.replace(release.items, **arrays)
    manifest = msgspec.structs.replace(release.manifest, release_id=name)
    return dataclasses.replace(release, manifest=manifest, items=table)


def test_each_new_event_is_scored_as_the_evaluation_scores_it() -> None:
    candidate, rival = make_release(make_items(ITEMS), 1), make_release(make_items(ITEMS), 2)
    runs = segments(users=6, each=9)
    new = {user: 1 + user % 3 for user in range(6)}
    mine, theirs = Pair(candidate, rival, WEIGHTS, exclude_seen=True).score(runs, new)

    for release, found in ((candidate, mine), (rival, theirs)):
        place = {int(key): row for row, key in enumerate(release.items.keys)}
        expected = []
        for run in runs:
            rows = np.array([place[int(key)] for key in run.items])
            ask = np.arange(9) >= 9 - new[run.user]
            sequence = UserSequence(rows, run.actions, run.values, run.ts)
            [ranks] = prequential(
                release.head, release.items.vectors, release.items.bias, [sequence], [ask]
            )
            expected += gains(ranks[ask]).tolist()
        assert sorted(found.tolist()) == pytest.approx(sorted(expected))
    assert len(mine) == len(theirs) == sum(new.values())


def test_only_items_that_both_releases_hold_are_ranked() -> None:
    candidate, rival = make_release(make_items(ITEMS), 1), make_release(make_items(30), 2)
    runs = segments(users=8, each=9)
    mine, theirs = Pair(candidate, rival, WEIGHTS, exclude_seen=True).score(
        runs, {user: 9 for user in range(8)}
    )
    held = {key64(f"i{n}") for n in range(30)}
    assert len(mine) == len(theirs) == sum(int(key) in held for run in runs for key in run.items)

    nothing = make_release(make_items(1)[:0], 3)
    assert len(Pair(candidate, nothing, WEIGHTS, exclude_seen=True).score(runs, {0: 9})[0]) == 0


def test_dislikes_are_no_evidence() -> None:
    candidate, rival = make_release(make_items(ITEMS), 1), make_release(make_items(ITEMS), 2)
    [run] = segments(users=1, each=6)
    hidden = dataclasses.replace(run, actions=np.array([2, 2, 2, 2, 1, 2]))
    mine, _ = Pair(candidate, rival, WEIGHTS, exclude_seen=True).score([hidden], {0: 2})
    assert len(mine) == 1


def test_a_release_with_permuted_item_vectors_is_found_harmful() -> None:
    good = make_release(make_items(ITEMS), 1)
    order = np.random.default_rng(0).permutation(ITEMS)
    table: ItemTable = good.items
    bad = replace_items(good, 9, vectors=table.vectors[order], bias=table.bias[order])
    # Users who follow the good release: each next item is the one it ranks first.
    runs = _followers(good, users=60, each=12)
    mine, theirs = Pair(bad, good, WEIGHTS, exclude_seen=True).score(
        runs, {user: 6 for user in range(60)}
    )
    betting = Betting(0.1)
    betting.take(mine, theirs)
    assert theirs.mean() > 0.9
    assert betting.harm > 3.0


def _followers(release: Release, users: int, each: int) -> list[Segment]:
    rng = np.random.default_rng(1)
    made = []
    for user in range(users):
        rows = [int(rng.integers(ITEMS))]
        while len(rows) < each:
            steps = Steps(
                items=release.items.vectors[rows][None],
                actions=np.full((1, len(rows)), 2),
                values=np.zeros((1, len(rows)), np.float32),
                gaps_s=np.array([[np.nan, *[60.0] * (len(rows) - 1)]]),
            )
            state = start_state(release.head, 1)
            _, trail = advance_all(release.head, state, steps, np.ones((1, len(rows)), np.bool_))
            scores = trail[0, -1] @ release.items.vectors.T * release.head.score_scale[0]
            scores = scores + release.items.bias
            scores[rows] = -np.inf
            rows.append(int(scores.argmax()))
        made.append(
            Segment(
                user, 0, each, release.items.keys[rows], 60.0 * np.arange(each, dtype=np.float64),
                np.full(each, 2), np.zeros(each, np.float32), np.arange(each) * users + user,
            )
        )  # fmt: skip
    return made


def test_a_batch_is_sampled_by_its_last_users_with_all_their_events() -> None:
    rows = [Row(0, n, n % 300, 1, 0, 0.0, 1e6, n) for n in range(900)]
    counts = count_new(rows)
    assert len(counts) == SAMPLE_USERS
    assert set(counts.values()) == {3}
    assert 299 in counts
