"""From raw records to columns: a bad record gets a reason, and its neighbours go on."""

from __future__ import annotations

import json

import numpy as np
import pytest

from profiles.catalog import Catalog
from profiles.event_keys import event_keys
from profiles.events import Event
from profiles.items import Item
from profiles.wire import encode, key64
from stream.chunks import Record
from stream.codecs import Rules, decode_chunk, drop_unknown, to_batch, unknown_items
from tests.unit.builders import ACTIONS, NOW_S, make_event, make_record

pytestmark = pytest.mark.unit

CODES = {name: at for at, name in enumerate(ACTIONS)}
RULES = Rules(CODES, max_bytes=400, max_ahead_s=300.0)
GOOD = encode(make_event("ann", 1))

BAD: dict[str, list[Record]] = {
    "empty": [make_record(0, None, "ann"), make_record(0, b"", "ann")],
    "malformed": [make_record(0, GOOD[:-1], "ann"), make_record(0, b"\xff", "ann")],
    "invalid": [
        make_record(0, b"{}", "ann"),
        make_record(0, json.dumps({**json.loads(GOOD), "ts": "now"}).encode(), "ann"),
    ],
    "oversized": [make_record(0, GOOD + b" " * 400, "ann")],
    "wrong-key": [
        make_record(0, GOOD, "bob"),
        make_record(0, GOOD, None),
        make_record(0, GOOD, ""),
    ],
    "unknown-action": [make_record(0, make_event("ann", 1, action="sneeze"))],
    "future-dated": [make_record(0, make_event("ann", 1, ts=NOW_S + 301))],
    "bad-time": [make_record(0, make_event("ann", 1, ts=-1.0))],
    "bad-text": [
        make_record(0, make_event("ann\x00", 1), "ann"),
        make_record(0, make_event("ann", 1, event_id="a\x00b")),
        make_record(0, make_event("ann", 1, item="a\x00b")),
    ],
    "bad-value": [make_record(0, make_event("ann", 1, value=1e300))],
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_record_gets_its_reason_and_its_neighbours_survive(reason: str) -> None:
    before, after = make_record(1, make_event("ann", 1)), make_record(9, make_event("bob", 1))
    for bad in BAD[reason]:
        decoded = decode_chunk([before, bad, after], RULES, NOW_S)
        assert [(letter.record, letter.reason) for letter in decoded.dead] == [(bad, reason)]
        assert decoded.dead[0].detail
        assert decoded.records == [before, after]
        assert decoded.users == [b"ann", b"bob"]


def test_a_chunk_of_bad_records_only_is_an_empty_batch() -> None:
    catalog = Catalog()
    decoded = decode_chunk([bad for kind in BAD.values() for bad in kind], RULES, NOW_S)
    assert decoded.events == []
    assert drop_unknown(decoded, catalog) is decoded
    columns = to_batch([decoded], catalog, CODES)
    batch = columns.batch
    assert columns.users == []
    assert all(len(getattr(batch, name)) == 0 for name in batch.__slots__)


def test_the_columns_of_a_batch_say_what_the_events_said(catalog: Catalog) -> None:
    events = [
        make_event("ann", 1, "i3", action="like", value=2.5),
        make_event("bob", 1, "i1", action="hide"),
        make_event("ann", 2, "i3", value=-4.0),
    ]
    records = [make_record(offset, event) for offset, event in zip((5, 6, 9), events, strict=True)]
    columns = to_batch([decode_chunk(records, RULES, NOW_S)], catalog, CODES)
    batch = columns.batch
    assert columns.users == [b"ann", b"bob"]
    assert batch.users.tolist() == [0, 1, 0]
    assert batch.offsets.tolist() == [5, 6, 9]
    assert batch.event_keys.tolist() == event_keys([event.event_id for event in events]).tolist()
    assert batch.item_rows.tolist() == [3, 1, 3]
    assert batch.item_keys.tolist() == [key64(event.item_id) for event in events]
    assert [ACTIONS[code] for code in batch.actions.tolist()] == ["like", "hide", "click"]
    assert batch.values.tolist() == [2.5, 0.0, -4.0]
    assert batch.ts.tolist() == [event.ts for event in events]


@pytest.mark.parametrize("value", [1e30, -1e30, 65_519.0, 65_520.0, 1e-30, 4.1])
def test_a_value_is_used_as_the_history_can_keep_it(catalog: Catalog, value: float) -> None:
    """Warnings are errors here: an overflow to infinity would not pass."""
    decoded = decode_chunk([make_record(0, make_event("ann", 1, value=value))], RULES, NOW_S)
    batch = to_batch([decoded], catalog, CODES).batch
    assert batch.values.dtype == np.float32
    assert np.isfinite(batch.values).all()
    assert batch.values.astype(np.float16).tolist() == batch.values.tolist()


def test_events_of_unknown_items_wait_and_then_die_alone(catalog: Catalog) -> None:
    events = [make_event("ann", n, item) for n, item in enumerate(["i1", "new", "nowhere", "i2"])]
    records = [make_record(offset, event) for offset, event in enumerate(events)]
    decoded = decode_chunk([*records, BAD["malformed"][0]], RULES, NOW_S)
    assert unknown_items(decoded, catalog) == {"new", "nowhere"}
    assert len(decoded.events) == 4

    catalog.put(Item("new"))
    assert unknown_items(decoded, catalog) == {"nowhere"}
    known = drop_unknown(decoded, catalog)
    assert [event.item_id for event in known.events] == ["i1", "new", "i2"]
    assert known.records == [records[0], records[1], records[3]]
    assert known.users == [b"ann"] * 3
    assert [letter.reason for letter in known.dead] == ["malformed", "unknown-item"]
    assert known.dead[1].record is records[2]
    assert unknown_items(known, catalog) == set()


def test_an_event_of_a_withdrawn_item_is_still_an_event(catalog: Catalog) -> None:
    catalog.withdraw("i1")
    event: Event = make_event("ann", 1, "i1")
    assert not unknown_items(decode_chunk([make_record(0, event)], RULES, NOW_S), catalog)


def test_a_chunk_is_decoded_as_its_records_one_by_one() -> None:
    """The look in columns may pass nothing that the judgement of one event would not."""
    bad = [record for kind in BAD.values() for record in kind]
    good = [make_record(n, make_event(f"u{n % 3}", n)) for n in range(5)]
    mixed = [record for pair in zip(bad, (good * 9)[: len(bad)], strict=True) for record in pair]
    for chunk in (good, bad, mixed, mixed[::-1]):
        whole = decode_chunk(chunk, RULES, NOW_S)
        single = [decode_chunk([record], RULES, NOW_S) for record in chunk]
        assert whole.records == [record for one in single for record in one.records]
        assert whole.users == [user for one in single for user in one.users]
        told = {id(letter.record): letter.reason for one in single for letter in one.dead}
        assert {id(letter.record): letter.reason for letter in whole.dead} == told
