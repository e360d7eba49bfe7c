"""A profile as bytes: what goes in comes out, and what does not fit is said to be damaged."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.scale.synthetic import profiles, typical_events
from profiles.config import Settings
from profiles.errors import StoreCorruptError
from profiles.history import read_history
from profiles.state import (
    RecordLayout,
    bloom_slots,
    decode_records,
    empty_records,
    encode_records,
    mark_seen,
    was_seen,
)
from profiles.store import PartitionStore, Watermark
from tests.unit.builders import LAYOUT, random_records

pytestmark = pytest.mark.unit

layouts = st.builds(
    RecordLayout,
    dim=st.integers(1, 9),
    layers=st.integers(1, 3),
    history=st.integers(1, 9),
    recent_ids=st.integers(1, 5),
    seen_bytes=st.integers(1, 40),
)


@given(layouts, st.integers(0, 5), st.integers(0, 99))
def test_records_survive_their_encoding(layout: RecordLayout, users: int, seed: int) -> None:
    records = random_records(layout, users, seed)
    payloads = encode_records(layout, records)
    assert [len(payload) for payload in payloads] == [layout.whole_bytes] * users
    decoded, tails = decode_records(layout, payloads)
    assert decoded.tobytes() == records.tobytes()
    assert tails == [b""] * users


@given(layouts, st.lists(st.integers(0, 12), max_size=5), st.text(max_size=5))
def test_what_is_stored_ends_with_the_last_remembered_event(
    layout: RecordLayout, events: list[int], interest: str
) -> None:
    records = random_records(layout, len(events))
    records["events"] = events
    for row, count in enumerate(events):
        records["history"][row, count:] = 0
    tails = [interest.encode() if row % 2 else b"" for row in range(len(events))]
    payloads = encode_records(layout, records, tails)
    whole = layout.whole_bytes
    assert [len(payload) - len(tail) for payload, tail in zip(payloads, tails, strict=True)] == [
        whole - layout.event_bytes * max(0, layout.history - count) for count in events
    ]
    decoded, again = decode_records(layout, payloads)
    assert decoded.tobytes() == records.tobytes()
    assert again == tails


@given(st.lists(st.tuples(st.integers(0, 12), st.sampled_from([0, 1, 2**40])), max_size=5))
def test_what_the_rate_cap_knows_costs_those_of_whom_it_knows_something_eight_bytes(
    users: list[tuple[int, int]],
) -> None:
    records = random_records(LAYOUT, len(users))
    for row, (count, _) in enumerate(users):
        records["events"][row] = count
        records["history"][row, count:] = 0
    tails = [b"tents" if row % 2 else b"" for row in range(len(users))]
    plain = encode_records(LAYOUT, records, tails)
    records["used_until_us"] = [known for _, known in users]
    payloads = encode_records(LAYOUT, records, tails)
    for (_, known), payload, before in zip(users, payloads, plain, strict=True):
        assert len(payload) == len(before) + 8 * bool(known)
        assert known or payload == before
    decoded, again = decode_records(LAYOUT, payloads)
    assert decoded.tobytes() == records.tobytes()
    assert again == tails
    # What lacks its last byte is damaged, not read as something else.
    if users and users[0][1]:
        with pytest.raises(StoreCorruptError, match="a stored profile has"):
            decode_records(LAYOUT, [payloads[0][: len(payloads[0]) - len(tails[0]) - 1]])


@given(st.lists(st.text(max_size=5), min_size=1, max_size=5))
def test_tails_survive_beside_their_records(texts: list[str]) -> None:
    records = random_records(LAYOUT, len(texts))
    tails = [text.encode("utf-8", "surrogatepass") for text in texts]
    decoded, again = decode_records(LAYOUT, encode_records(LAYOUT, records, tails))
    assert decoded.tobytes() == records.tobytes()
    assert again == tails


def test_decoded_records_can_be_written_without_touching_the_payload() -> None:
    payload = encode_records(LAYOUT, random_records(LAYOUT, 1))[0]
    before = bytes(payload)
    decoded, _ = decode_records(LAYOUT, [payload])
    decoded["events"] = 7
    assert payload == before


def test_a_profile_at_default_settings_takes_two_kilobytes_on_disk_and_mostly_one(
    tmp_path: Path,
) -> None:
    settings = Settings()
    layout = RecordLayout.of(settings)
    chance = np.random.default_rng(0)
    users = 2_000
    names = [f"user-{at}".encode() for at in range(users)]
    taken = {}
    for kind, events in (
        ("full", np.full(users, 200)),
        ("typical", typical_events(users, chance)),  # 30 events on average
    ):
        store = PartitionStore(tmp_path / kind)
        records = profiles(layout, events, 1, 1, chance)
        store.write(names, encode_records(layout, records), Watermark(count=users))
        store.flush()
        store.compact()
        store.close()
        files = (tmp_path / kind).glob("*.sst")
        taken[kind] = sum(file.stat().st_size for file in files) / users

    assert taken["full"] <= 2048
    assert taken["typical"] <= 1024


def test_vectors_in_float16_take_half_and_nothing_else_changes() -> None:
    half = replace(LAYOUT, precision="float16")
    records = random_records(LAYOUT, 3)
    for name in ("state", "profile"):
        records[name] = np.random.default_rng(1).normal(size=records[name].shape)
    halved = empty_records(half, 3)
    for name in LAYOUT.dtype.names or ():
        if name != "layout":
            halved[name] = records[name]

    back, _ = decode_records(half, encode_records(half, halved))

    vectors = (LAYOUT.layers + 1) * LAYOUT.dim
    assert LAYOUT.dtype.itemsize - half.dtype.itemsize == 2 * vectors
    np.testing.assert_allclose(back["profile"], records["profile"], rtol=1e-3, atol=1e-6)
    np.testing.assert_array_equal(back["history"], records["history"])


def test_a_record_of_the_other_precision_is_refused() -> None:
    half = replace(LAYOUT, precision="float16")
    with pytest.raises(StoreCorruptError, match="restore the old settings"):
        decode_records(half, encode_records(LAYOUT, random_records(LAYOUT, 1)))


def test_a_new_profile_has_applied_and_emitted_nothing() -> None:
    blank = empty_records(LAYOUT, 2)
    assert blank["events"].tolist() == [0, 0]
    assert blank["offset"].tolist() == blank["emit_offset"].tolist() == [-1, -1]


@pytest.mark.parametrize("lengths", [(-1,), (0, -1), (-1, 1)])
@pytest.mark.parametrize("events", [0, 3, 99])
def test_a_payload_that_is_too_short_is_damage_with_a_remedy(
    lengths: tuple[int, ...], events: int
) -> None:
    records = empty_records(LAYOUT, 1)
    records["events"] = events
    payload = encode_records(LAYOUT, records)[0]
    payloads = [(payload + bytes(9))[: len(payload) + extra] for extra in lengths]
    with pytest.raises(StoreCorruptError, match=r"bytes.*topic prefix.*restore the old settings"):
        decode_records(LAYOUT, payloads)


@pytest.mark.parametrize("field", ["version", "layout"])
def test_a_payload_of_another_version_or_layout_is_damage_with_a_remedy(field: str) -> None:
    records = empty_records(LAYOUT, 3)
    records[field][1] += 2
    with pytest.raises(StoreCorruptError, match=r"1 of 3 .* version or layout.*topic prefix"):
        decode_records(LAYOUT, encode_records(LAYOUT, records))


@pytest.mark.parametrize("field", ["dim", "layers", "history", "recent_ids", "seen_bytes"])
def test_every_size_has_its_part_in_the_layout_byte(field: str) -> None:
    bigger = [replace(LAYOUT, **{field: getattr(LAYOUT, field) + more}) for more in range(40)]
    assert len({layout.checksum for layout in bigger}) > 30


def test_the_layout_byte_is_the_same_in_every_process() -> None:
    program = (
        "from profiles.state import RecordLayout;"
        f"print(RecordLayout({LAYOUT.dim}, {LAYOUT.layers}, {LAYOUT.history},"
        f"{LAYOUT.recent_ids}, {LAYOUT.seen_bytes}).checksum)"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(told.stdout) == LAYOUT.checksum


# --- the ring of remembered events --------------------------------------------------------------

happenings = st.lists(
    st.tuples(
        st.integers(1, 2**64 - 1), st.integers(0, 2), st.floats(-9, 9), st.integers(0, 10**6)
    ),
    max_size=15,
)


@given(st.lists(happenings, max_size=4), st.integers(1, 7))
def test_the_ring_reads_like_the_last_events_of_a_list(
    users: list[list[tuple[int, int, float, int]]], size: int
) -> None:
    layout = replace(LAYOUT, history=size)
    records = empty_records(layout, len(users))
    for row, events in enumerate(users):
        for number, (item, action, value, ts) in enumerate(events):
            slot = number % size
            records["history"]["item"][row, slot] = item
            records["history"]["action"][row, slot] = action
            records["history"]["value"][row, slot] = value
            records["history"]["ts"][row, slot] = ts
        records["events"][row] = len(events)

    history = read_history(records)

    kept = [events[-size:] for events in users]
    longest = max(map(len, kept), default=0)
    assert history.mask.shape == (len(users), longest)
    for row, events in enumerate(kept):
        missing = longest - len(events)
        assert history.mask[row].tolist() == [False] * missing + [True] * len(events)
        assert not history.items[row, :missing].any()
        assert history.items[row, missing:].tolist() == [item for item, *_ in events]
        assert history.actions[row, missing:].tolist() == [action for _, action, *_ in events]
        values = [value for _, _, value, _ in events]
        np.testing.assert_array_equal(
            history.values[row, missing:], np.array(values, records["history"]["value"].dtype)
        )
        times = [float(ts) for *_, ts in events]
        gaps = [np.nan, *(max(b - a, 0.0) for a, b in itertools.pairwise(times))]
        np.testing.assert_array_equal(history.gaps_s[row, missing:], gaps[: len(events)])
        assert np.isnan(history.gaps_s[row, :missing]).all()


# --- the filter of seen items -------------------------------------------------------------------


@given(
    st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=60, unique=True),
    st.integers(1, 64),
)
def test_the_filter_never_forgets_an_item(keys: list[int], seen_bytes: int) -> None:
    slots = bloom_slots(np.array(keys, np.uint64), seen_bytes)
    seen = np.zeros((2, seen_bytes), np.uint8)
    for slot in slots:
        mark_seen(seen, np.zeros(1, np.intp), slot[None])
    assert was_seen(seen, slots)[0].all()
    assert not was_seen(seen, slots)[1].any()
    np.testing.assert_array_equal(was_seen(seen, np.stack([slots, slots])), was_seen(seen, slots))


def test_of_a_hundred_seen_items_fewer_than_one_in_twenty_others_is_mistaken() -> None:
    keys = np.random.default_rng(3).integers(0, 2**64, size=20_100, dtype=np.uint64)
    slots = bloom_slots(keys, seen_bytes=256)
    seen = np.zeros((1, 256), np.uint8)
    for slot in slots[:100]:
        mark_seen(seen, np.zeros(1, np.intp), slot[None])
    assert was_seen(seen, slots[100:]).mean() < 0.05
