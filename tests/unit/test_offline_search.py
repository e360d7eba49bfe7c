"""The search that every method gets, and the files between a method and the comparison."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.offline.comparison import bars, compare, table_of_bars, words
from benchmarks.offline.exchange import (
    Answer,
    Settings,
    Task,
    load_answer,
    load_task,
    save_answer,
    save_task,
)
from benchmarks.offline.histories import Ints
from benchmarks.offline.interactions import Interactions
from benchmarks.offline.jobs import Played
from benchmarks.offline.protocols import leave_one_out
from benchmarks.offline.search import MOST_TRIALS, Between, search
from profiles.items import Item


class Clock:
    """CPU seconds that pass only when a trial says so."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_trial_begins_only_while_one_of_average_cost_still_fits() -> None:
    clock, tried = Clock(), []

    def trial(settings: Settings) -> tuple[float, Settings]:
        clock.now += 10.0
        tried.append(settings)
        return 0.0, settings

    found = search({"x": Between(0.1, 10.0)}, {"x": 1.0}, trial, 35.0, 1, clock)
    assert (found.trials, found.cpu_s) == (3, 30.0)
    assert tried[0] == {"x": 1.0}


def test_the_best_trial_wins_with_what_it_found_out() -> None:
    def trial(settings: Settings) -> tuple[float, Settings]:
        return float(settings["x"]), {**settings, "epochs": 5}

    found = search({"x": (1, 2, 3)}, {"x": 1, "y": "kept"}, trial, 1.0, 1, Clock())
    assert found.settings == {"x": 3, "y": "kept", "epochs": 5}
    assert found.trials == 3, "a finite space is tried once, not over and over"


def test_a_method_without_settings_is_tried_once() -> None:
    found = search({}, {}, lambda settings: (0.5, settings), 100.0, 1, Clock())
    assert (found.trials, found.score) == (1, 0.5)


def test_free_trials_end_too() -> None:
    space = {"x": Between(1e-3, 1e3)}
    found = search(space, {"x": 1.0}, lambda settings: (0.0, settings), 1.0, 1, Clock())
    assert found.trials == MOST_TRIALS


def made() -> Interactions:
    """Two users, four events each; item 3 was never touched before the test."""
    users = np.array([0, 0, 1, 1, 0, 1, 0, 1])
    items = np.array([0, 1, 0, 1, 2, 2, 3, 3])
    return Interactions(
        name="made",
        source="",
        synthetic=True,
        users=users,
        items=items,
        actions=np.zeros(8, np.int64),
        values=np.full(8, np.nan, np.float32),
        ts=np.arange(8, dtype=np.float64),
        user_ids=("u", "v"),
        action_names=("view",),
        catalogue=tuple(Item(str(number)) for number in range(5)),
    )


def test_task_and_answer_come_back_as_they_were(tmp_path: Path) -> None:
    data = made()
    split = leave_one_out(data.users, data.items)
    text = np.eye(5, dtype=np.float32)
    task = Task(
        split, data.users, data.items, data.actions, data.values, data.ts, text,
        tuple("abcde"), ("view",),
    )  # fmt: skip
    save_task(tmp_path / "task.npz", task)
    back = load_task(tmp_path / "task.npz")
    assert back.split.asked().tolist() == split.asked().tolist()
    assert back.split.validation.fit.tolist() == split.validation.fit.tolist()
    assert (back.texts, back.action_names, back.n_items) == (task.texts, ("view",), 5)
    answer = Answer({"lr": 0.1, "loss": "bce"}, 0.25, 3.0, np.array([1, 7]), {"trials": 2})
    save_answer(tmp_path / "answer.npz", answer)
    found = load_answer(tmp_path / "answer.npz")
    assert (found.settings, found.score, found.notes) == (answer.settings, 0.25, {"trials": 2})
    assert found.ranks.tolist() == [1, 7]


def played(*ranks_by_seed: Ints) -> Played:
    """A method that ranked so."""
    nothing = np.zeros(0, np.int64)
    tests = {seed: Answer({}, 0.0, 1.0, ranks) for seed, ranks in enumerate(ranks_by_seed)}
    return Played(Answer({}, 0.1, 1.0, nothing), tests)


def test_ours_is_compared_with_the_best_peer_of_each_slice() -> None:
    data = made()
    split = leave_one_out(data.users, data.items)
    third = np.array([3, 3])
    rows, ratios = compare(
        data,
        split,
        {
            "popular": played(np.array([20, 20])),
            "ease": played(third),
            "driftline": played(np.array([1, 1]), third),
            "driftline_frozen_text": played(third),
        },
        seed=1,
    )
    overall = {ratio.other: ratio for ratio in ratios if ratio.slice == "all"}
    assert set(overall) == {"ease", "driftline_frozen_text"}
    assert overall["ease"].ratio.mean == pytest.approx(0.75 / 0.5)
    assert overall["ease"].is_met
    assert overall["driftline_frozen_text"].bar is None
    assert words(overall["ease"]).endswith("bar 1.05: met")
    cold = [ratio for ratio in ratios if ratio.slice == "cold_items"]
    assert {ratio.bar for ratio in cold} == {1.5, 1.0}
    assert len([row for row in rows if row.slice == "all"]) == 4
    told = bars(rows, ratios, "movielens-100k")
    assert (told[0]["what"], told[0]["bar"], told[0]["is_met"]) == ("NDCG@10", 0.105, True)
    assert len(bars(rows, ratios, "another set")) == len(told) - 1
    assert "driftline_frozen_text" in table_of_bars(told).splitlines()[-1]
