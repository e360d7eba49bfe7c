"""Coverage, evenness and popularity of what a release would recommend."""

from __future__ import annotations

import numpy as np
import pytest

from learner.evaluation import Exam, Model
from learner.reach import gini, reach
from tests.unit.builders import make_head
from tests.unit.test_rollout_pairing import ITEMS, segments

pytestmark = pytest.mark.unit

RNG = np.random.default_rng(3)
VECTORS = RNG.normal(size=(ITEMS, 8)).astype(np.float32)
COUNTS = np.arange(ITEMS, dtype=np.float32)


def exam(users: int) -> Exam:
    runs = segments(users, each=8)
    rows = [np.random.default_rng(run.user).permutation(ITEMS)[:8] for run in runs]
    wanted = [np.arange(8) >= 6 for _ in runs]
    return Exam(tuple(runs), tuple(rows), tuple(wanted))


def test_a_release_that_pushes_the_popular_shows_little_of_the_catalogue_unevenly() -> None:
    head = make_head(1)
    varied = reach(Model(head, VECTORS, np.zeros(ITEMS, np.float32)), exam(40), COUNTS)
    pushy = reach(Model(head, 0 * VECTORS, 10 * COUNTS), exam(40), COUNTS)
    shy = reach(Model(head, 0 * VECTORS, -10 * COUNTS), exam(40), COUNTS)
    assert varied.users == 40
    assert pushy.coverage < varied.coverage
    assert pushy.gini > varied.gini
    assert pushy.popularity_lift > 0 > shy.popularity_lift
    assert pushy.popularity_lift > varied.popularity_lift > shy.popularity_lift


def test_seen_items_are_not_shown_where_serving_would_not_show_them() -> None:
    model = Model(make_head(1), 0 * VECTORS, 10 * COUNTS)
    again = reach(model, exam(10), COUNTS, exclude_seen=False)
    without = reach(model, exam(10), COUNTS)
    assert again.coverage == 10 / ITEMS < without.coverage
    assert again.popularity_lift > without.popularity_lift


def test_nobody_asked_is_nothing_reached_and_even_is_even() -> None:
    model = Model(make_head(1), VECTORS, COUNTS)
    assert reach(model, Exam((), (), ()), COUNTS).coverage == 0.0
    assert gini(np.zeros(3, np.int64)) == 0.0
