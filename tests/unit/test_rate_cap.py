"""The cap on a user's rate: what it lets pass, and that nothing but the log decides.

The reference counts in plain words: an allowance of n that grows by n a minute, and one record,
however many events it is in a profile, uses one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry

from profiles.events import Event
from profiles.judging import judge
from profiles.metrics import WorkerMetrics
from profiles.rate_cap import MINUTE_US, RateCap
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records, decode_records, empty_records
from profiles.store import PartitionStore
from stream.chunks import Record
from stream.codecs import Rules, decode_chunk, to_batch, words_apart
from stream.event_path import EventPath
from stream.source import Part, Source
from stream.words import Unread
from tests.unit.builders import (
    ACTIONS,
    LAYOUT,
    NOW_S,
    make_catalog,
    make_event,
    make_record,
    make_space,
    read_words,
)

pytestmark = pytest.mark.unit

CATALOG = make_catalog(12)
SPACE = make_space(CATALOG)
CODES = {name: at for at, name in enumerate(ACTIONS)}
RULES = Rules(CODES, 10_000, 1e9)
CAP = RateCap(3)
GAPS_MS = st.sampled_from([0, 0, 0, 1, 5_000, 19_999, 20_000, 60_000, 600_000])


@dataclass(frozen=True, slots=True)
class Sent:
    """An event of one of two users; `again`: the id of her event so many before."""

    user: int
    gap_ms: int
    has_item: bool
    text: str | None
    again: int = 0


def _is_something(sent: Sent) -> bool:
    return sent.has_item or sent.text is not None


sent_events = st.lists(
    st.builds(
        Sent,
        user=st.integers(0, 1),
        gap_ms=GAPS_MS,
        has_item=st.booleans(),
        text=st.sampled_from([None, None, "tents", "boots"]),
        again=st.sampled_from([0, 0, 0, 1, 2]),
    ).filter(_is_something),
    max_size=25,
)


def records_of(sent: list[Sent]) -> list[Record]:
    found, now_ms, numbers = [], int(NOW_S * 1000), [0, 0]
    for offset, one in enumerate(sent):
        now_ms += one.gap_ms
        number = max(0, numbers[one.user] - one.again) if one.again else numbers[one.user]
        numbers[one.user] = max(numbers[one.user], number + 1)
        event = make_event(
            f"u{one.user}", number, f"i{offset % 12}" if one.has_item else "", text=one.text
        )
        found.append(make_record(offset, event, timestamp_ms=now_ms))
    return found


def expected(records: list[Record], per_minute: int) -> dict[str, list[tuple[int, bool]]]:
    """(offset, whether it is words) of each user's events that count."""
    counted: dict[str, list[tuple[int, bool]]] = {}
    rings: dict[str, list[tuple[str, bool]]] = {}
    left: dict[str, tuple[int, int]] = {}  # in ms of the minute, and as of when
    for record in records:
        event = decode_chunk([record], RULES, NOW_S * 2).events[0]
        ring = rings.setdefault(event.user_id, [])
        kinds = ([True] if event.text else []) + ([False] if event.item_id else [])
        new = [kind for kind in kinds if (event.event_id, kind) not in ring[-LAYOUT.recent_ids :]]
        if not new:
            continue
        saved, since_ms = left.get(event.user_id, (60_000, record.timestamp))
        saved = min(60_000, saved + record.timestamp - since_ms)
        may = saved >= 60_000 // per_minute
        left[event.user_id] = (saved - may * (60_000 // per_minute), record.timestamp)
        if may:
            ring += [(event.event_id, kind) for kind in new]
            counted.setdefault(event.user_id, []).extend((record.offset, kind) for kind in new)
    return counted


def make_path(per_minute: int, space: Space = SPACE) -> EventPath:
    serving = ServingSettings(k=3, user_events_per_minute=per_minute, user_interval_s=0.0)
    path = EventPath(LAYOUT, serving, CODES, CATALOG, WorkerMetrics(CollectorRegistry()))
    path.space = space
    return path


def apply(path: EventPath, source: Source, records: list[Record]) -> None:
    if not records:
        return
    part = Part(source, decode_chunk(records, RULES, NOW_S * 2), records[-1].offset + 1)
    while isinstance(wanted := path.apply([part], NOW_S), Unread):
        path.note_read(read_words(wanted))


def stored(source: Source) -> dict[str, bytes]:
    return {user.decode(): payload for user, payload in source.store.scan()}


@given(sent_events, st.lists(st.integers(0, 25), max_size=4), st.integers(0, 25), st.booleans())
def test_what_counts_is_told_by_the_log_alone_however_it_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    sent: list[Sent],
    cuts: list[int],
    back: int,
    is_restarted: bool,
) -> None:
    """Cut anywhere, read again from anywhere, by the same worker or from its store alone."""
    records = records_of(sent)
    folder = tmp_path_factory.mktemp("store")
    source = Source(0, PartitionStore(folder), "events", "topic-1")
    path, start = make_path(CAP.per_minute), 0
    for end in [*sorted(min(cut, len(records)) for cut in cuts), len(records)]:
        apply(path, source, records[start:end])
        start = max(0, end - back) if end < len(records) else end
        if is_restarted:
            source.store.close()
            source = Source(0, PartitionStore(folder), "events", "topic-1")
            path = make_path(CAP.per_minute)
    apply(path, source, records[max(0, len(records) - back) :])
    counted = expected(records, CAP.per_minute)
    held = stored(source)
    source.store.close()
    assert held.keys() - counted.keys() == set() or not any(
        decode_records(LAYOUT, [held[user]])[0]["events"][0] for user in held.keys() - counted
    )
    for user, events in counted.items():
        record, _ = decode_records(LAYOUT, [held[user]])
        assert record["events"][0] == len(events)
        assert record["offset"][0] == events[-1][0]
        ring = record["history"][0]
        said = [
            bool(ring["action"][number % len(ring)] & 0x80)
            for number in range(max(0, len(events) - len(ring)), len(events))
        ]
        assert said == [kind for _, kind in events[-len(ring) :]]


def columns(events: list[tuple[int, int, Event]], records: Records) -> list[tuple[int, ...]]:
    """(offset, appended ms, event) to which of them count, as positions; the profile is written
    by hand, so that only the verdict is looked at."""
    chunk = [make_record(at, event, timestamp_ms=ms) for at, ms, event in events]
    decoded = words_apart(decode_chunk(chunk, RULES, NOW_S * 2), make_path(1)._memory)
    made = to_batch([decoded], CATALOG, CODES)
    verdict = judge(records, made.batch, 1, RateCap(1))
    return [
        (int(made.batch.offsets[at]), int(made.batch.item_rows[at] >= 0)) for at in verdict.applied
    ]


def test_words_and_an_act_of_one_record_count_once_and_together() -> None:
    both = make_event("u0", 0, "i1", text="tents")
    later = make_event("u0", 1, "i2", text="boots")
    records = empty_records(LAYOUT, 1)
    assert columns([(0, 10**9, both), (1, 10**9, later)], records) == [(0, 0), (0, 1)]
    records["used_until_us"] = 10**12 + MINUTE_US  # used up
    assert columns([(0, 10**9, both), (1, 10**9, later)], records) == []
    assert columns([(0, 10**9 + 60_000, both)], records) == [(0, 0), (0, 1)]


def test_a_refused_event_leaves_no_trace_and_is_counted_once(tmp_path: Path) -> None:
    source = Source(0, PartitionStore(tmp_path), "events", "topic-1")
    path = make_path(2)
    first = [make_record(at, make_event("u0", at, f"i{at}")) for at in range(2)]
    apply(path, source, first)
    before = stored(source)
    # A fifth is written with words: they are not even read.
    flood = [make_record(at, make_event("u0", at, "i5")) for at in range(2, 5)]
    flood.append(make_record(5, make_event("u0", 5, "i6", text="never read")))
    apply(path, source, flood)
    after, _ = decode_records(LAYOUT, [stored(source)["u0"]])
    was, _ = decode_records(LAYOUT, [before["u0"]])
    assert after.tobytes() == was.tobytes()
    assert SPACE.texts.lacking(["never read"])
    counter = path._metrics.registry.get_sample_value(
        "driftline_events_refused_total", {"reason": "rate"}
    )
    assert counter == 4
    # Her neighbour is not touched, and a minute later she is heard again.
    minute_ms = int(NOW_S * 1000) + 60_000
    apply(
        path,
        source,
        [
            make_record(6, make_event("u1", 0, "i1")),
            make_record(7, make_event("u0", 6, "i7"), timestamp_ms=minute_ms),
        ],
    )
    counts = {
        user: int(decode_records(LAYOUT, [payload])[0]["events"][0])
        for user, payload in stored(source).items()
    }
    assert counts == {"u0": 3, "u1": 1}
    source.store.close()


def test_a_clock_that_was_set_back_locks_nobody_out() -> None:
    hour_ms = 3_600_000
    used_us = CAP.used_until_us(0, NOW_MS + hour_ms)
    assert CAP.used_until_us(used_us, NOW_MS) > 0
    assert CAP.used_until_us(used_us, NOW_MS + hour_ms - 100) > 0


@given(st.integers(1, 60_000), st.lists(GAPS_MS, max_size=40))
def test_no_minute_holds_more_than_what_was_saved_and_what_was_earned(
    per_minute: int, gaps_ms: list[int]
) -> None:
    cap, used_us, now_ms = RateCap(per_minute), 0, NOW_MS
    passed: list[int] = []
    for gap_ms in gaps_ms:
        now_ms += gap_ms
        if after_us := cap.used_until_us(used_us, now_ms):
            used_us = after_us
            passed.append(now_ms)
    for begin in passed:
        within = sum(begin <= at < begin + 60_000 for at in passed)
        assert within <= 2 * per_minute


def test_without_a_cap_nothing_is_kept_of_it(tmp_path: Path) -> None:
    source = Source(0, PartitionStore(tmp_path), "events", "topic-1")
    apply(make_path(5), source, [make_record(0, make_event("u0", 0, "i0"))])
    assert stored(source)["u0"][0] == 3
    apply(make_path(0), source, [make_record(1, make_event("u0", 1, "i1"))])
    assert stored(source)["u0"][0] == 2
    source.store.close()


NOW_MS = int(NOW_S * 1000)


def test_alone_or_among_others_an_event_gets_the_same_verdict() -> None:
    chunk = [make_record(at, make_event("u0", at, f"i{at}")) for at in range(5)]
    decoded = decode_chunk(chunk, RULES, NOW_S * 2)
    whole = to_batch([decoded], CATALOG, CODES).batch
    together = judge(empty_records(LAYOUT, 1), whole, 1, CAP)
    records, one_by_one = empty_records(LAYOUT, 1), []
    for at in range(5):
        verdict = judge(records, whole.take(np.array([at])), 1, CAP)
        records["used_until_us"] = verdict.used_until_us
        one_by_one.append(bool(verdict.refused[0]))
    assert together.refused.tolist() == one_by_one == [False] * 3 + [True] * 2
    assert together.used_until_us.tolist() == records["used_until_us"].tolist()
    assert replace(together, refused=np.zeros(5, np.bool_)).applied.tolist() == list(range(5))
