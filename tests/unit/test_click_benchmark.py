"""bench_click's baselines know nothing of what they predict, and its figures are the usual ones."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import log_loss, roc_auc_score

from benchmarks.bench_click import logistic
from benchmarks.click.features import Acts, ids, rates, text
from benchmarks.click.figures import Asked, compare

pytestmark = pytest.mark.unit

FIT = 150


def drawn(seed: int = 0) -> Acts:
    rng = np.random.default_rng(seed)
    return Acts(
        users=rng.integers(12, size=200),
        items=rng.integers(20, size=200),
        is_liked=rng.random(200) < 0.6,
        text=rng.normal(size=(20, 4)).astype(np.float32),
        fit=FIT,
    )


@pytest.mark.parametrize("row", [10, FIT - 1, FIT + 20, 199])
def test_features_of_an_act_do_not_depend_on_it_nor_on_what_follows(row: int) -> None:
    acts = drawn()
    changed = acts.is_liked.copy()
    changed[row:] = ~changed[row:]
    # The overall share of likes is the fit's, so only what comes after it may be turned over ...
    other = dataclasses.replace(acts, is_liked=changed)
    if row >= FIT:
        assert (rates(other)[: row + 1] == rates(acts)[: row + 1]).all()
    # ... but what a user liked before is hers alone.
    assert (text(other)[: row + 1] == text(acts)[: row + 1]).all()
    assert (text(other)[row + 1 :] != text(acts)[row + 1 :]).any() or row == 199


def test_an_items_counts_stand_still_after_the_fit_and_a_users_go_on() -> None:
    acts = drawn()
    found = rates(acts)
    item = acts.items[FIT]
    of_item = np.flatnonzero(acts.items[FIT:] == item) + FIT
    assert len({tuple(found[row, 2:]) for row in of_item}) == 1
    user = acts.users[FIT]
    of_user = np.flatnonzero(acts.users == user)
    assert found[of_user, 0] == pytest.approx(np.log1p(np.arange(len(of_user))), abs=1e-6)


def test_a_user_who_has_nothing_in_the_fit_has_no_column() -> None:
    acts = drawn()
    users = np.where(np.arange(200) < FIT, acts.users % 11, 11)
    columns = ids(dataclasses.replace(acts, users=users))
    assert columns[:, 11].nnz == 0
    assert columns[:, 0].nnz > 0


def test_figures_are_those_of_scikit_learn_also_where_scores_tie() -> None:
    rng = np.random.default_rng(1)
    chance = rng.integers(1, 10, size=500) / 10.0
    liked = rng.random(500) < chance
    weights = rng.integers(0, 3, size=500)
    loss, auc, ece = Asked(chance, liked).figures(weights)
    assert loss == pytest.approx(log_loss(liked, chance, sample_weight=weights))
    assert auc == pytest.approx(roc_auc_score(liked, chance, sample_weight=weights))
    gaps = [(weights * (chance - liked))[chance == level].sum() for level in np.unique(chance)]
    assert ece == pytest.approx(np.abs(gaps).sum() / weights.sum())
    assert Asked(np.full(500, 0.5), liked).figures(np.ones(500))[1] == 0.5


def test_a_method_that_knows_is_better_than_a_guess_beyond_its_interval() -> None:
    rng = np.random.default_rng(2)
    chance = rng.random(2_000)
    liked = rng.random(2_000) < chance
    guess = np.full(2_000, liked.mean())
    told = compare(
        {"knows": Asked(chance, liked), "guesses": Asked(guess, liked)},
        rng.integers(100, size=2_000),
        seed=0,
        draws=100,
    )
    less = told["first_less"]["guesses"]
    assert less["log_loss"]["high"] < 0.0 < less["auc"]["low"]
    assert told["methods"]["guesses"]["auc"]["mean"] == 0.5
    assert (told["events"], told["users"]) == (2_000, 100)


def test_the_strength_is_chosen_before_what_is_asked() -> None:
    rng = np.random.default_rng(3)
    known = rng.normal(size=(400, 5)).astype(np.float32)
    liked = rng.random(400) < 1.0 / (1.0 + np.exp(-4.0 * known[:, 0]))
    scores, strength = logistic(known, liked, 200, 300)
    turned = np.where(np.arange(400) < 300, liked, ~liked)
    assert logistic(known, turned, 200, 300)[1] == strength
    assert Asked(1.0 / (1.0 + np.exp(-scores)), liked[200:]).figures(np.ones(200))[1] > 0.8
