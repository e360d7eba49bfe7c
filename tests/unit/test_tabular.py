"""Any table becomes a data set, by guess or by mapping, or says which column it lacks."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from profiles.errors import DatasetError
from stream.datasets import load_dataset
from stream.datasets.tabular import seconds

pytestmark = pytest.mark.unit


def csv(folder: Path, text: str, name: str = "log.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_common_names_are_guessed(tmp_path: Path) -> None:
    path = csv(tmp_path, "User ID,product_id,event_time,event_type\n007,a,2020-01-01,view\n")
    (event,) = load_dataset("tabular", path).events
    assert (event.user_id, event.item_id, event.action) == ("007", "a", "view")
    assert (event.event_id, event.ts, event.value) == ("log-2", 1_577_836_800.0, None)


def test_a_mapping_overrides_guesses_and_can_be_a_constant(tmp_path: Path) -> None:
    path = csv(tmp_path, "who,user_id,what,ts,secs\nann,x,b,10,3.5\n")
    mapping = {"user_id": "who", "item_id": "what", "action": "=watch", "value": "secs"}
    dataset = load_dataset("tabular", path, mapping)
    (event,) = dataset.events
    assert (event.user_id, event.item_id, event.action, event.value) == ("ann", "b", "watch", 3.5)
    assert [item.item_id for item in dataset.items] == ["b"]


def test_users_and_items_can_be_constants_too(tmp_path: Path) -> None:
    path = csv(tmp_path, "item,ts\nb,10\n")
    (event,) = load_dataset("tabular", path, {"user_id": "=me"}).events
    assert event.user_id == "me"


def test_a_missing_column_is_named_with_what_was_found(tmp_path: Path) -> None:
    path = csv(tmp_path, "who,item,ts\nann,b,10\n")
    with pytest.raises(DatasetError, match=r"no column for user_id; found who, item, ts"):
        load_dataset("tabular", path)
    with pytest.raises(DatasetError, match=r"'visitor', mapped to user_id, is missing; found who"):
        load_dataset("tabular", path, {"user_id": "visitor"})
    with pytest.raises(DatasetError, match=r"unknown fields usr;"):
        load_dataset("tabular", path, {"usr": "who"})


def test_a_rating_column_makes_the_action_rate(tmp_path: Path) -> None:
    path = csv(tmp_path, "user;item;timestamp;rating\n1;2;3;4.5\n1;3;4;\n")
    events = list(load_dataset("tabular", path).events)
    assert [(e.action, e.value) for e in events] == [("rate", 4.5), ("rate", None)]


def test_items_of_a_folder_bring_their_texts(tmp_path: Path) -> None:
    csv(tmp_path, "user,item,ts\n1,b,1\n1,zzz,2\n", "events.csv")
    csv(tmp_path, "id\ttitle\tgenres\n b\tx\ty\nb\tHeat\tCrime|Drama\n", "items.tsv")
    items = {item.item_id: item for item in load_dataset("tabular", tmp_path).items}
    assert items["b"].full_text() == "Heat. Crime, Drama"
    assert items["zzz"].title == "zzz"  # known by its id alone


def test_parquet_keeps_ids_whole(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "user_id": [1, 2],
            "item_id": [10.0, 20.0],
            "timestamp": pd.to_datetime(["2020-01-02", "2020-01-01"]),
        }
    )
    path = tmp_path / "log.parquet"
    frame.to_parquet(path)
    events = list(load_dataset("tabular", path).events)
    assert [(e.user_id, e.item_id, e.ts) for e in events] == [
        ("2", "20", 1_577_836_800.0),
        ("1", "10", 1_577_923_200.0),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "1700000000",
        "1700000000.0",
        "1700000000000",
        "1700000000000000",
        "1700000000000000000",
        "2023-11-14T22:13:20Z",
        "2023-11-14 22:13:20",
        "2023-11-14T23:13:20+01:00",
    ],
)
def test_every_way_to_write_a_time_is_understood(text: str) -> None:
    assert seconds(pd.Series([text, text])).tolist() == [1.7e9, 1.7e9]


@pytest.mark.parametrize("second", ["yesterday", "2020-01-01"])
def test_a_time_that_fits_nothing_is_shown(second: str) -> None:
    with pytest.raises(DatasetError, match="is not a number, others are"):
        seconds(pd.Series(["10", second]))
    with pytest.raises(DatasetError, match="neither numbers nor ISO 8601"):
        seconds(pd.Series(["soon", second]))


def test_a_row_without_a_user_is_named_by_its_line(tmp_path: Path) -> None:
    path = csv(tmp_path, "user,item,ts\n1,b,1\n,b,2\n")
    with pytest.raises(DatasetError, match=r"1 rows have no user .* line 3"):
        load_dataset("tabular", path)


@pytest.mark.parametrize(("name", "content"), [("a.csv", b""), ("a.parquet", b"PAR1, not really")])
def test_a_file_that_is_no_table_is_a_dataset_error(
    tmp_path: Path, name: str, content: bytes
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DatasetError, match="cannot be read as CSV or Parquet"):
        load_dataset("tabular", tmp_path / name)
