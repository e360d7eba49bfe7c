"""Data sets in their published layouts all come out as one: items, events in time order, users."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

from profiles.errors import DatasetError
from profiles.events import decode_event
from profiles.wire import encode
from stream.datasets import Codes, Dataset, EventTable, load_dataset

pytestmark = pytest.mark.unit


def table(ts: list[float]) -> EventTable:
    """Events of one user on as many items, in the order of a file."""
    rows = len(ts)
    return EventTable(
        prefix="t",
        lines=np.arange(1, rows + 1, dtype=np.int64),
        users=Codes.constant("u", rows),
        items=Codes.of(np.array([f"i{n}" for n in range(rows)], dtype=object)),
        actions=Codes.constant("view", rows),
        ts=np.array(ts, np.float64),
        values=np.full(rows, np.nan),
    )


def write(folder: Path, **files: str) -> Path:
    """Files of a folder; `__` in a name stands for the dot."""
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text, encoding="latin-1")
    return folder


def story(dataset: Dataset) -> list[tuple[str, str, str, float, float | None]]:
    return [(e.event_id, e.user_id, e.item_id, e.ts, e.value) for e in dataset.events]


HEAT_AND_BABE = [
    ("ml-2", "2", "20", 100.0, 4.0),
    ("ml-1", "1", "10", 200.0, 5.0),
    ("ml-3", "1", "20", 200.0, 3.0),
]


def test_equal_timestamps_keep_the_order_of_the_file() -> None:
    ordered = table([5.0, 1.0, 5.0, 1.0, 5.0]).in_time_order()
    assert [event.event_id for event in ordered] == ["t-2", "t-4", "t-1", "t-3", "t-5"]


def test_a_table_can_be_sliced_and_indexed_like_a_list() -> None:
    events = table([1.0, 2.0, 3.0])
    assert [event.ts for event in events[1:]] == [2.0, 3.0]
    assert events[-1] == list(events)[2]
    with pytest.raises(IndexError):
        events[3]


def test_events_of_a_table_pass_the_door_of_the_stream() -> None:
    for event in table([1.0, 2.0]):
        assert decode_event(encode(event), now_s=10.0, max_ahead_s=0.0) == event


@pytest.mark.parametrize("ts", [float("nan"), -1.0, float("inf")])
def test_a_time_that_is_none_is_named_by_its_line(ts: float) -> None:
    with pytest.raises(DatasetError, match=r"file\.csv: 1 rows have no usable time .* line 2"):
        table([1.0, ts]).checked("file.csv")


def test_movielens_100k_native(tmp_path: Path) -> None:
    flags = "|".join("1" if n in (1, 6) else "0" for n in range(19))
    none = "|".join("1" if n == 0 else "0" for n in range(19))
    folder = write(
        tmp_path,
        u__data="1\t10\t5\t200\n2\t20\t4\t100\n1\t20\t3\t200\n",
        u__item=f"10|Heat (1995)|01-Jan-1995||http|{flags}\n20|Caf\xe9 (1996)||||{none}\n",
        u__user="1|24|M|technician|85711\n",
    )
    dataset = load_dataset("movielens", folder)
    assert story(dataset) == HEAT_AND_BABE
    assert [(item.title, item.tags) for item in dataset.items] == [
        ("Heat (1995)", ["Action", "Crime"]),
        ("Café (1996)", []),
    ]
    assert dataset.users[0].attributes == {"age": 24, "gender": "M", "occupation": "technician"}
    assert {event.action for event in dataset.events} == {"rate"}


def test_movielens_1m_dat(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        ratings__dat="1::10::5::200\n2::20::4::100\n1::20::3::200\n",
        movies__dat="10::Alien: Heat (1995)::Action|Crime\n20::Babe (1995)::Drama\n",
    )
    dataset = load_dataset("movielens", folder)
    assert story(dataset) == HEAT_AND_BABE
    assert dataset.items[0].title == "Alien: Heat (1995)"


def test_movielens_csv(tmp_path: Path) -> None:
    folder = write(
        tmp_path,
        ratings__csv="userId,movieId,rating,timestamp\n1,10,5.0,200\n2,20,4.0,100\n1,20,3.0,200\n",
        movies__csv='movieId,title,genres\n10,"Heat, The (1995)",Action|Crime\n'
        "20,Babe (1995),(no genres listed)\n",
    )
    dataset = load_dataset("movielens", folder)
    # Line 1 is the header.
    assert [event.event_id for event in dataset.events] == ["ml-3", "ml-2", "ml-4"]
    assert dataset.items[0].title == "Heat, The (1995)"
    assert dataset.items[1].tags == []


def test_the_bundled_movielens_is_whole_and_recbole_is_not_imported() -> None:
    import sys

    dataset = load_dataset("movielens")
    assert "recbole" not in sys.modules
    assert (len(dataset.items), len(dataset.events), len(dataset.users)) == (1682, 100_000, 943)
    assert not dataset.synthetic
    heat = next(item for item in dataset.items if item.item_id == "273")
    assert heat.full_text() == "Heat (1995). Action, Crime, Thriller"
    times = [event.ts for event in dataset.events]
    assert times == sorted(times)
    assert len({event.event_id for event in dataset.events}) == 100_000


def test_a_damaged_ratings_file_is_a_dataset_error(tmp_path: Path) -> None:
    write(tmp_path, u__data="1\t10\t5\n", u__item="")
    with pytest.raises(DatasetError, match="is not a MovieLens folder we can read"):
        load_dataset("movielens", tmp_path)


def test_a_folder_without_movielens_says_what_it_found(tmp_path: Path) -> None:
    write(tmp_path, notes__txt="")
    with pytest.raises(DatasetError, match=r"expected u\.data.*found notes\.txt"):
        load_dataset("movielens", tmp_path)


def test_unknown_names_and_missing_paths_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="known are movielens"):
        load_dataset("netflix")
    with pytest.raises(DatasetError, match="needs a path"):
        load_dataset("tabular")
    with pytest.raises(DatasetError, match="takes no options"):
        load_dataset("movielens:seed=1", tmp_path)


def test_amazon_of_both_generations(tmp_path: Path) -> None:
    old = {"reviewerID": "A", "asin": "P1", "overall": 5.0, "unixReviewTime": 1_400_000_000}
    new = {"user_id": "B", "asin": "x", "parent_asin": "P2", "rating": 1.0, "timestamp": 15e11}
    with gzip.open(tmp_path / "Books.jsonl.gz", "wt") as file:
        file.write(json.dumps(new) + "\n" + json.dumps(old) + "\n")
    product = {"asin": "P1", "title": "A book", "description": ["Long", "text"], "category": ["B"]}
    (tmp_path / "meta_Books.jsonl").write_text(json.dumps(product) + "\n")
    dataset = load_dataset("amazon", tmp_path)
    assert story(dataset) == [
        ("amazon-2", "A", "P1", 1.4e9, 5.0),
        ("amazon-1", "B", "P2", 1.5e9, 1.0),
    ]
    assert dataset.items[0].full_text() == "A book. B. Long text"


def test_mind_takes_clicks_and_leaves_the_rest(tmp_path: Path) -> None:
    write(
        tmp_path,
        behaviors__tsv="1\tU1\t11/11/2019 9:05:58 AM\tN9\tN1-1 N2-0 N3-1\n",
        news__tsv="N1\tsports\tgolf\tA title\tAn abstract\turl\t[]\t[]\n",
    )
    dataset = load_dataset("mind", tmp_path)
    assert [(e.item_id, e.action) for e in dataset.events] == [("N1", "click"), ("N3", "click")]
    assert len({event.event_id for event in dataset.events}) == 2
    assert dataset.events[0].ts == 1_573_463_158.0
    assert dataset.items[0].full_text() == "A title. sports, golf. An abstract"
