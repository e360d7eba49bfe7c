"""Ranks and figures of the offline benchmarks, on cases small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.offline.figures import Draws, figures, seed_mean, slices
from benchmarks.offline.histories import Histories
from benchmarks.offline.interactions import Interactions
from benchmarks.offline.protocols import Stage
from benchmarks.offline.ranking import rank_rows, ranks
from profiles.items import Item


def test_rank_counts_better_and_equal_unseen_items() -> None:
    scores = np.array([[5, 4, 3, 3, 1], [5, 4, 3, 3, 1]], np.float32)
    found = ranks(scores, np.array([2, 4]), [np.array([0]), np.array([], np.int64)])
    # Row 0: item 0 is seen; item 1 is better, item 3 ties.  Row 1: everything is better.
    assert found.tolist() == [3, 5]


def test_a_model_that_scores_everything_alike_or_not_at_all_ranks_last() -> None:
    scores = np.array([[0, 0, 0], [np.nan, np.nan, np.nan]], np.float32)
    nothing = np.array([], np.int64)
    assert ranks(scores, np.array([0, 0]), [nothing, nothing]).tolist() == [3, 3]


def test_rows_are_ranked_with_what_their_user_had_before() -> None:
    users, items = np.array([0, 0, 1]), np.array([0, 1, 1])
    popular = np.array([9.0, 1.0, 5.0], np.float32)
    found = rank_rows(
        lambda rows: np.repeat(popular[None], len(rows), axis=0),
        np.array([1, 2]),
        items,
        Histories(users),
    )
    # User 0 had item 0, so only item 2 beats item 1; for user 1 both do.
    assert found.tolist() == [2, 3]


def test_figures_are_the_means_over_events_and_seeds() -> None:
    seeds = [np.array([1, 3, 11]), np.array([1, 1, 11])]
    everyone = np.ones(3, np.bool_)
    found = figures(seeds, everyone, Draws(np.array([0, 1, 2]), seed=1))
    assert found.ndcg.mean == pytest.approx((1.0 + (0.5 + 1.0) / 2 + 0.0) / 3)
    assert found.hr.mean == pytest.approx(2 / 3)
    assert found.by_seed == pytest.approx((0.5, 2 / 3))
    assert found.ndcg.low <= found.ndcg.mean <= found.ndcg.high


def test_events_of_one_user_are_drawn_together() -> None:
    values = np.array([1.0, 0.0, 1.0, 0.0])
    one_user = Draws(np.zeros(4, np.int64), seed=1).interval(values)
    assert (one_user.low, one_user.high) == (0.5, 0.5)
    four_users = Draws(np.arange(4), seed=1).interval(values)
    assert four_users.low < 0.5 < four_users.high


def test_a_ratio_is_paired_so_a_constant_factor_has_no_spread() -> None:
    theirs = np.array([0.1, 0.2, 0.7, 0.4])
    ratio = Draws(np.arange(4), seed=1).ratio(1.5 * theirs, theirs)
    assert (ratio.mean, ratio.low, ratio.high) == pytest.approx((1.5, 1.5, 1.5))


def test_a_peer_that_finds_nothing_is_beaten_infinitely() -> None:
    assert Draws(np.arange(2), seed=1).ratio(np.ones(2), np.zeros(2)).mean == np.inf


def test_slices_follow_the_fit_of_each_stage() -> None:
    items = np.array([0] * 5 + [1, 0, 1])
    users = np.array([0, 1, 2, 3, 4, 0, 0, 9])
    data = Interactions(
        name="made",
        source="",
        synthetic=True,
        users=users,
        items=items,
        actions=np.zeros(8, np.int64),
        values=np.array([5, 5, 5, 5, 5, 5, 2, np.nan], np.float32),
        ts=np.arange(8, dtype=np.float64),
        user_ids=tuple("0123456789"),
        action_names=("rate",),
        catalogue=(Item("a"), Item("b")),
    )
    found = slices(
        data, [Stage(np.arange(5), np.array([5, 6])), Stage(np.arange(7), np.array([7]))]
    )
    assert found["cold_items"].tolist() == [True, False, True]
    assert found["new_users"].tolist() == [False, False, True]
    assert found["liked"].tolist() == [True, False, True]
    assert found["short_history"].tolist() == [True, True, True]


def test_seed_mean_averages_gains_not_ranks() -> None:
    assert seed_mean([np.array([1]), np.array([100])]).tolist() == [0.5]
