"""Each format becomes our events, and a bad line costs only itself.  All samples are synthetic."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from profiles.config import Settings
from profiles.errors import DatasetError, SettingsError
from profiles.events import Event
from profiles.items import Item
from stream.client.payloads import Contract
from stream.import_cli import told
from stream.importing import ImportOptions, ImportReport, import_file
from stream.importing.reading import Reject, Row, read_rows

pytestmark = pytest.mark.unit

SETTINGS = Settings()
CONTRACT = Contract.of(SETTINGS)

SEGMENT = [
    {
        "type": "track", "event": "Product Viewed", "userId": 7, "messageId": "m1",
        "timestamp": "2023-11-14T22:13:20.000Z",
        "properties": {"product_id": "tent-1", "name": "Tent", "category": "outdoor", "price": 9},
    },
    {
        "type": "track", "event": "Order Completed", "anonymousId": "a1", "messageId": "m2",
        "timestamp": "2023-11-14T22:13:21Z",
        "properties": {"order_id": "o", "products": [{"product_id": "i1"}, {"sku": "i2"}]},
    },
    {"type": "track", "event": "Product Removed", "userId": "u", "messageId": "m3"},
    {"type": "page", "userId": "u", "messageId": "m4"},
]  # fmt: skip
GA4 = [
    {
        "event_name": "add_to_cart", "event_timestamp": "1700000000000000",
        "user_pseudo_id": "browser.1", "device": {"category": "mobile"},
        "event_params": [{"key": "ga_session_id", "value": {"int_value": "42"}}],
        "items": [{"item_id": "i1", "item_name": "Lamp", "item_category": "light"}],
    },
    {"event_name": "page_view", "event_timestamp": "1700000000000000", "user_id": "ann"},
]  # fmt: skip
GORSE_CSV = (
    "feedback_type,user_id,item_id,time_stamp\n"
    "star,ann,repo:a,2023-11-14 22:13:20 +0000 UTC\n"
    'read,bob,"repo,b",2023-11-14T22:13:20Z\n'
)
PERSONALIZE = (
    "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE,EVENT_VALUE\n"
    "ann,i1,1700000000,Purchase,\nann,i2,1700000000,,4.5\nann,i3,1700000000,,\n"
)
AT_S = 1_700_000_000.0


def read(
    folder: Path, text: str, format_name: str, actions: dict[str, str] | None = None
) -> list[Row | Reject]:
    path = folder / "sample"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    return list(read_rows(path, format_name, actions or {}, CONTRACT))


def events(rows: list[Row | Reject]) -> list[Event]:
    assert all(isinstance(row, Row) for row in rows), rows
    return [event for row in rows if isinstance(row, Row) for event, _ in row.events]


def lines(*objects: object) -> str:
    return "\n".join(map(json.dumps, objects)) + "\n"


def test_segment_calls_become_events_an_order_one_per_product(tmp_path: Path) -> None:
    rows = read(tmp_path, lines(*SEGMENT), "segment")
    assert events(rows) == [
        Event("m1", "7", "tent-1", "view", AT_S),
        Event("m2-0", "a1", "i1", "purchase", AT_S + 1),
        Event("m2-1", "a1", "i2", "purchase", AT_S + 1),
    ]
    assert isinstance(rows[0], Row)
    assert rows[0].items == [Item("tent-1", "Tent", tags=["outdoor"])]
    assert [row.passed_over for row in rows if isinstance(row, Row)] == [
        "", "", "Product Removed", "page",
    ]  # fmt: skip


def test_ga4_events_get_their_users_session_and_a_stable_id(tmp_path: Path) -> None:
    rows = read(tmp_path, lines(*GA4), "ga4")
    (event,) = events(rows)
    assert (event.user_id, event.item_id, event.action) == ("browser.1", "i1", "cart")
    assert (event.ts, event.session_id) == (AT_S, "42")
    assert events(read(tmp_path, lines(*GA4), "ga4")) == [event]
    assert isinstance(rows[1], Row)
    assert rows[1].passed_over == "page_view"


def test_gorse_feedback_comes_as_csv_or_as_json_lines(tmp_path: Path) -> None:
    starred, seen = events(read(tmp_path, GORSE_CSV, "gorse"))
    assert (starred.user_id, starred.item_id, starred.action) == ("ann", "repo:a", "like")
    assert (seen.item_id, seen.action, seen.ts) == ("repo,b", "view", AT_S)
    feedback = {"FeedbackType": "fork", "UserId": "ann", "ItemId": "a", "Timestamp": "2023-11-14"}
    (forked,) = events(read(tmp_path, lines(feedback), "gorse", {"fork": "share"}))
    assert forked.action == "share"


def test_personalize_interactions_take_their_action_from_type_or_value(tmp_path: Path) -> None:
    found = events(read(tmp_path, PERSONALIZE, "personalize"))
    assert [(event.action, event.value) for event in found] == [
        ("purchase", None), ("rate", 4.5), ("view", None),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "1\t50\t5\t1700000000\n",
        "1::50::5::1700000000\n",
        "userId,movieId,rating,timestamp\n1,50,5.0,1700000000\n",
        "user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t50\t5\t1700000000\n",
    ],
)
def test_movielens_ratings_are_read_in_every_layout(tmp_path: Path, text: str) -> None:
    (event,) = events(read(tmp_path, text, "movielens"))
    assert (event.user_id, event.item_id, event.action) == ("1", "50", "rate")
    assert (event.value, event.ts) == (5.0, AT_S)


def test_a_bad_line_is_told_by_number_and_reason_and_its_neighbours_go_on(tmp_path: Path) -> None:
    good = "ann,i1,1700000000,like\n"
    text = (
        "USER_ID,ITEM_ID,TIMESTAMP,EVENT_TYPE\n" + good + "ann,i1,yesterday,like\n"
        "ann,i1,1700000000,sneeze\n,i1,1700000000,like\nann,i1\n\nann,i1,99999999999,like\n"
        'ann,"i1,1700000000,like\nann,\udcff,1700000000,like\n' + good
    )
    rows = read(tmp_path, text, "personalize")
    rejects = {row.line: row.reason for row in rows if isinstance(row, Reject)}
    assert rejects == {
        3: "bad-time", 4: "unknown-action", 5: "invalid", 6: "invalid", 8: "future-dated",
        9: "malformed", 10: "malformed",
    }  # fmt: skip
    assert [len(row.events) for row in rows if isinstance(row, Row)] == [1, 1]


def test_a_dry_run_reports_and_keeps_the_bad_lines(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl.gz"
    with gzip.open(path, "wt") as file:
        file.write(lines(*SEGMENT) + '{"type": "track"\n')
    rejects = tmp_path / "rejects.jsonl"
    options = ImportOptions("segment", rejects, items=True, dry_run=True)
    report = import_file(path, options, SETTINGS)
    assert (report.lines, report.events, report.items, report.rejected) == (5, 3, 1, 1)
    assert report.passed_over == {"Product Removed": 1, "page": 1}
    (kept,) = map(json.loads, rejects.read_text().splitlines())
    assert (kept["line"], kept["reason"], kept["text"]) == (5, "malformed", '{"type": "track"')
    text = told(report)
    assert "would send 3 events and 1 items; 1 lines were bad" in text
    assert "malformed 1" in text


def test_without_bad_lines_no_rejects_file_is_made(tmp_path: Path) -> None:
    path = tmp_path / "u.data"
    path.write_text("1\t50\t5\t1700000000\n")
    rejects = tmp_path / "rejects.jsonl"
    report: ImportReport = import_file(
        path, ImportOptions("movielens", rejects, dry_run=True), SETTINGS
    )
    assert (report.events, report.rejects_file) == (1, None)
    assert not rejects.exists()


@pytest.mark.parametrize(
    ("text", "format_name", "error", "says"),
    [
        ("user_id,item_id\n", "personalize", DatasetError, "no column for time"),
        ("\n", "segment", DatasetError, "is empty"),
        ("x\n", "csv", SettingsError, "known are segment"),
    ],
)
def test_a_file_of_another_form_is_refused_whole(
    tmp_path: Path, text: str, format_name: str, error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        read(tmp_path, text, format_name)
