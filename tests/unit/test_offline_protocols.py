"""How the offline benchmarks part a data set, and the histories they rank with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.offline.histories import Histories, first_times
from benchmarks.offline.interactions import Interactions, from_dataset, load_interactions
from benchmarks.offline.protocols import global_time, leave_one_out, prequential
from profiles.errors import DatasetError
from profiles.events import Event
from profiles.items import Item
from stream.datasets import Dataset


def table(folder: Path, rows: list[tuple[str, str, int]]) -> Interactions:
    """Interactions read from a CSV file with these (user, item, time)."""
    path = folder / "events.csv"
    lines = [f"{user},{item},{time}" for user, item, time in rows]
    path.write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
    return load_interactions("tabular", path)


def test_equal_timestamps_keep_the_order_of_the_file(tmp_path: Path) -> None:
    data = table(tmp_path, [("u", "c", 5), ("u", "a", 5), ("u", "b", 4), ("u", "d", 5)])
    ids = [data.catalogue[item].item_id for item in data.items]
    assert ids == ["b", "c", "a", "d"]


def test_leave_one_out_with_a_tie_tests_the_later_line_of_the_file(tmp_path: Path) -> None:
    data = table(tmp_path, [("u", "a", 1), ("u", "z", 9), ("u", "b", 9), ("v", "a", 2)])
    split = leave_one_out(data.users, data.items)
    named = [data.catalogue[item].item_id for item in data.items]
    assert [named[row] for row in split.validation.asked] == ["z"]
    assert [named[row] for row in split.stages[0].asked] == ["b"]


def test_leave_one_out_learns_from_all_but_the_last_two_and_from_short_users_whole() -> None:
    users = np.array([0, 0, 1, 0, 1, 0])
    items = np.array([0, 1, 2, 3, 4, 5])
    split = leave_one_out(users, items)
    assert split.stages[0].fit.tolist() == [0, 1, 2, 4]
    assert split.validation.asked.tolist() == [3]
    assert split.asked().tolist() == [5]


def test_an_item_that_its_user_had_before_is_not_asked_about_but_stays_in_the_history() -> None:
    users, items = np.array([0, 0, 0, 0]), np.array([3, 4, 5, 3])
    split = leave_one_out(users, items)
    assert split.asked().tolist() == []
    assert Histories(users).before(3).tolist() == [0, 1, 2]
    assert first_times(users, items).tolist() == [True, True, True, False]


def test_global_time_splits_all_events_once_and_its_validation_lies_inside_the_fit() -> None:
    users, items = np.arange(100) % 7, np.arange(100)
    split = global_time(users, items)
    assert split.stages[0].fit.tolist() == list(range(90))
    assert split.stages[0].asked.tolist() == list(range(90, 100))
    assert split.validation.fit.tolist() == list(range(81))
    assert split.validation.asked.tolist() == list(range(81, 90))


def test_prequential_blocks_follow_each_other_and_each_fit_is_everything_before() -> None:
    users, items = np.zeros(100, np.int64), np.arange(100)
    split = prequential(users, items)
    assert len(split.stages) == 8
    assert split.asked().tolist() == list(range(60, 100))
    for stage in split.stages:
        assert stage.fit.tolist() == list(range(stage.asked[0]))
    assert split.validation.asked.tolist() == list(range(48, 60))


def test_history_holds_earlier_events_of_the_same_user_only_even_after_the_fit() -> None:
    users = np.array([0, 1, 0, 1, 0])
    histories = Histories(users)
    assert histories.before(4).tolist() == [0, 2]
    assert histories.before(4, last=1).tolist() == [2]
    assert histories.before(1).tolist() == []
    assert histories.place.tolist() == [0, 0, 1, 1, 2]


def test_core_drops_rare_users_and_items_until_none_is_left(tmp_path: Path) -> None:
    rows = [(user, item, 1) for user in "ab" for item in "xy"]
    data = table(tmp_path, [*rows, ("c", "x", 2), ("a", "z", 3)])
    kept = data.core(2)
    assert sorted(kept.user_ids) == ["a", "b"]
    assert sorted(item.item_id for item in kept.catalogue) == ["x", "y"]
    assert len(kept) == 4
    with pytest.raises(DatasetError, match="lower --core"):
        data.core(5)


def test_items_nobody_touched_stay_in_the_catalogue_and_unknown_items_are_left_out() -> None:
    items = [Item("a", title="A"), Item("new", title="New")]
    events = [Event("1", "u", "a", "view", 1.0), Event("2", "u", "gone", "view", 2.0)]
    data = from_dataset(Dataset("made", items, events, synthetic=True))
    assert len(data) == 1
    assert data.texts() == ("A", "New")
    assert data.synthetic


def test_bundled_movielens_keeps_its_published_size() -> None:
    data = load_interactions("movielens")
    assert (len(data), len(data.user_ids), len(data.catalogue)) == (100_000, 943, 1_682)
