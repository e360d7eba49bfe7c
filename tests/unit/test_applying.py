"""Batches of events applied to profiles: however the stream is cut, the profiles are the same.

The reference is the same code one event at a time, and, for duplicates and ranks, a few lines of
plain Python.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.applying import Applied, apply_batch
from profiles.catalog import Catalog
from profiles.events import Event
from profiles.items import Item
from profiles.rebuild import rebuild
from profiles.scoring import score_all
from profiles.space import Space
from profiles.state import Records, bloom_slots, empty_records, was_seen
from profiles.updater import profile_at_start, start_state
from profiles.wire import key64
from tests.unit.builders import (
    LAYOUT,
    TOPIC_KEY,
    make_batch,
    make_catalog,
    make_event,
    make_release,
    make_space,
    random_stream,
)

pytestmark = pytest.mark.unit

CATALOG = make_catalog(12)
SPACE = make_space(CATALOG)
Stream = list[tuple[int, int, Event]]


def apply(
    records: Records,
    stream: Stream,
    topic_key: int = TOPIC_KEY,
    share: float = 0.0,
    space: Space = SPACE,
    catalog: Catalog = CATALOG,
) -> Applied:
    return apply_batch(records, make_batch(catalog, stream), space, catalog, topic_key, share)


def one_by_one(stream: Stream, users: int) -> Records:
    records = empty_records(LAYOUT, users)
    for entry in stream:
        apply(records, [entry])
    return records


def assert_same(left: Records, right: Records) -> None:
    for name in left.dtype.names or ():
        if name in ("state", "profile"):
            np.testing.assert_allclose(left[name], right[name], atol=1e-5, err_msg=name)
        else:
            np.testing.assert_array_equal(left[name], right[name], err_msg=name)


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(0, 40), st.data())
def test_profiles_do_not_depend_on_how_the_stream_is_cut(
    seed: int, users: int, count: int, data: st.DataObject
) -> None:
    stream = random_stream(seed, users, count, items=len(CATALOG))
    cuts = data.draw(st.lists(st.integers(0, count), max_size=6).map(sorted))
    records = empty_records(LAYOUT, users)
    for start, end in zip([0, *cuts], [*cuts, count], strict=True):
        apply(records, stream[start:end], share=0.5)
    assert_same(records, one_by_one(stream, users))


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 30))
def test_each_event_is_applied_unless_its_id_is_among_the_users_last_applied(
    seed: int, users: int, count: int
) -> None:
    stream = random_stream(seed, users, count, items=len(CATALOG), repeats=0.5)
    applied = apply(empty_records(LAYOUT, users), stream)
    recent: dict[int, list[str]] = {user: [] for user in range(users)}
    fresh, repeated = [], []
    for at, (user, _, event) in enumerate(stream):
        if event.event_id in recent[user][-LAYOUT.recent_ids :]:
            repeated.append(at)
        else:
            fresh.append(at)
            recent[user].append(event.event_id)
    assert applied.applied.tolist() == fresh
    assert applied.repeated.tolist() == repeated
    assert not len(applied.replayed)


@given(st.integers(0, 2**32), st.integers(1, 30), st.data())
def test_a_replay_from_any_earlier_point_changes_nothing(
    seed: int, count: int, data: st.DataObject
) -> None:
    stream = random_stream(seed, 3, count, items=len(CATALOG))
    records = empty_records(LAYOUT, 3)
    first = apply(records, stream)
    before = records.tobytes()
    start = data.draw(st.integers(0, count))
    again = apply(records, stream[start:])
    assert records.tobytes() == before
    assert not len(again.applied)
    assert len(again.replayed) + len(again.repeated) == count - start
    # What moved a profile is known by its offset, whatever its id.
    assert {at - start for at in first.applied.tolist() if at >= start} <= set(
        again.replayed.tolist()
    )


def test_a_replayed_part_and_new_events_may_share_a_batch() -> None:
    stream: Stream = [(0, n, make_event("u0", n, f"i{n}")) for n in range(8)]
    records = empty_records(LAYOUT, 1)
    apply(records, stream[:5])
    applied = apply(records, stream[2:])
    assert applied.replayed.tolist() == [0, 1, 2]
    assert applied.applied.tolist() == [3, 4, 5]
    assert_same(records, one_by_one(stream, 1))


def test_the_same_id_at_a_new_offset_is_skipped_and_moves_no_offset() -> None:
    records = empty_records(LAYOUT, 1)
    event = make_event("u0", 1)
    apply(records, [(0, 7, event)])
    applied = apply(records, [(0, 8, event)])
    assert applied.repeated.tolist() == [0]
    assert (int(records["events"][0]), int(records["offset"][0])) == (1, 7)


def test_two_users_may_use_one_event_id() -> None:
    records = empty_records(LAYOUT, 2)
    applied = apply(records, [(user, user, make_event("shared", 1)) for user in (0, 1)])
    assert applied.applied.tolist() == [0, 1]


def test_a_topic_made_anew_counts_its_offsets_from_zero_again() -> None:
    records = empty_records(LAYOUT, 1)
    apply(records, [(0, 100, make_event("u0", 1))])
    low: Stream = [(0, 3, make_event("u0", 2))]
    assert not len(apply(records, low).applied)
    assert len(apply(records, low, topic_key=key64("made anew")).applied) == 1
    assert int(records["offset"][0]) == 3
    assert int(records["events"][0]) == 2


def test_a_hot_user_in_one_batch_ends_like_one_by_one() -> None:
    stream = [
        (0, n, make_event("u0", n, f"i{n * n % len(CATALOG)}", value=float(n % 7) - 3.0))
        for n in range(300)
    ]
    stream[150:150] = [(1, 1000, make_event("u1", 1)), (2, 1001, make_event("u2", 1))]
    records = empty_records(LAYOUT, 3)
    assert len(apply(records, stream).applied) == 302
    assert_same(records, one_by_one(stream, 3))
    assert records["events"].tolist() == [300, 1, 1]


def test_an_empty_batch_is_no_batch() -> None:
    records = empty_records(LAYOUT, 2)
    before = records.tobytes()
    applied = apply(records, [])
    assert not len(applied.applied)
    assert records.tobytes() == before
    assert not len(apply(empty_records(LAYOUT, 0), []).applied)


@given(st.integers(0, 2**32), st.integers(1, 20))
def test_prequential_ranks_are_those_just_before_each_event(seed: int, count: int) -> None:
    stream = random_stream(seed, 2, count, items=len(CATALOG))
    applied = apply(empty_records(LAYOUT, 2), stream, share=1.0)
    assert applied.ranked.tolist() == applied.applied.tolist()

    records = empty_records(LAYOUT, 2)
    for at, rank in zip(applied.ranked.tolist(), applied.ranks.tolist(), strict=True):
        user, _, event = stream[at]
        rebuild(records, np.flatnonzero(records["release"] != SPACE.key), SPACE, CATALOG)
        target = CATALOG.rows[event.item_id]
        scores = score_all(records["profile"][user][None], SPACE)[0]
        slots = bloom_slots(CATALOG.keys, LAYOUT.seen_bytes)
        seen = was_seen(records["seen"][user][None], slots)[0]
        rivals = [row for row in range(len(CATALOG)) if row != target and not seen[row]]
        # A rival may be a rounding error away from the target.
        sure = sum(scores[row] > scores[target] + 1e-4 for row in rivals)
        possible = sum(scores[row] > scores[target] - 1e-4 for row in rivals)
        assert sure <= rank <= possible
        apply(records, [stream[at]])


def test_which_events_are_ranked_is_chosen_by_their_id_alone() -> None:
    stream: Stream = [(0, n, make_event("u0", n)) for n in range(400)]
    whole = apply(empty_records(LAYOUT, 1), stream, share=0.25)
    assert 60 < len(whole.ranked) < 140
    records = empty_records(LAYOUT, 1)
    one_at_a_time = [apply(records, [entry], share=0.25) for entry in stream]
    single = [at for at, applied in enumerate(one_at_a_time) if len(applied.ranked)]
    assert single == whole.ranked.tolist()


# --- rebuilding in another space ----------------------------------------------------------------

OTHER = make_space(CATALOG, seed=5)


@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(0, 25))
def test_a_rebuilt_profile_is_the_one_that_the_remembered_events_make_from_nothing(
    seed: int, users: int, count: int
) -> None:
    stream = random_stream(seed, users, count, items=len(CATALOG))
    records = empty_records(LAYOUT, users)
    moved = [stream[at] for at in apply(records, stream).applied.tolist()]
    untouched = records.copy()
    rebuild(records, np.arange(users), OTHER, CATALOG)

    scratch = empty_records(LAYOUT, users)
    for user in range(users):
        last = [entry for entry in moved if entry[0] == user][-LAYOUT.history :]
        if last:
            apply(scratch, last, space=OTHER)
    rebuild(scratch, np.flatnonzero(scratch["release"] != OTHER.key), OTHER, CATALOG)
    np.testing.assert_allclose(records["state"], scratch["state"], atol=1e-5)
    np.testing.assert_allclose(records["profile"], scratch["profile"], atol=1e-5)
    assert (records["release"] == OTHER.key).all()
    assert (records["revision"] == untouched["revision"] + 1).all()
    changed = {"state", "profile", "release", "revision"}
    for name in set(records.dtype.names or ()) - changed:
        np.testing.assert_array_equal(records[name], untouched[name])


def test_profiles_kept_in_float16_stay_close_to_those_in_float32() -> None:
    stream = random_stream(seed=3, users=4, count=120, items=len(CATALOG))
    whole = empty_records(LAYOUT, 4)
    half = empty_records(replace(LAYOUT, precision="float16"), 4)
    for start in range(0, len(stream), 5):  # rounded after every batch
        for records in (whole, half):
            apply(records, stream[start : start + 5])

    assert half["profile"].dtype == np.float16
    np.testing.assert_array_equal(half["events"], whole["events"])
    np.testing.assert_allclose(half["profile"], whole["profile"], atol=0.02)
    np.testing.assert_allclose(half["state"], whole["state"], atol=0.02)


def test_more_users_than_a_slice_are_all_rebuilt() -> None:
    users = 600
    records = empty_records(LAYOUT, users)
    apply(records, [(user, user, make_event(f"u{user}", 0, "i3")) for user in range(users)])
    rebuild(records, np.arange(users), OTHER, CATALOG)
    one = empty_records(LAYOUT, 1)
    apply(one, [(0, 0, make_event("u0", 0, "i3"))], space=OTHER)
    np.testing.assert_allclose(records["profile"], np.repeat(one["profile"], users, 0), atol=1e-5)


def test_a_stale_profile_is_rebuilt_before_the_next_event_moves_it() -> None:
    stream: Stream = [(0, n, make_event("u0", n, f"i{n}")) for n in range(4)]
    records = empty_records(LAYOUT, 1)
    apply(records, stream[:3])
    expected = records.copy()
    rebuild(expected, np.array([0]), OTHER, CATALOG)
    apply(expected, stream[3:], space=OTHER)
    apply(records, stream[3:], space=OTHER)
    assert_same(records, expected)


def test_a_user_without_events_gets_the_start_profile() -> None:
    records = empty_records(LAYOUT, 2)
    apply(records, [(0, 0, make_event("u0", 0))])
    rebuild(records, np.array([0, 1]), OTHER, CATALOG)
    np.testing.assert_allclose(records["profile"][1], profile_at_start(OTHER.head, 1)[0], atol=1e-6)
    np.testing.assert_array_equal(records["state"][1], start_state(OTHER.head, 1)[0])
    assert not np.allclose(records["profile"][0], records["profile"][1])


def test_remembered_events_of_items_that_the_catalogue_lacks_are_passed_over() -> None:
    bigger = make_catalog(13)
    gone: Stream = [(0, 1, make_event("u0", 1, "i12"))]
    kept: Stream = [(0, n, make_event("u0", n, f"i{n}")) for n in (0, 2)]
    records = empty_records(LAYOUT, 2)
    space = make_space(bigger)
    apply(records, [kept[0], *gone, kept[1]], space=space, catalog=bigger)
    apply(records, [(1, 5, make_event("u1", 1, "i12"))], space=space, catalog=bigger)
    rebuild(records, np.array([0, 1]), OTHER, CATALOG)

    # The gap before the last event still counts from the event that is passed over.
    only = empty_records(LAYOUT, 1)
    apply(only, [kept[0]], space=OTHER)
    only["last_ts"] = gone[0][2].ts
    apply(only, [kept[1]], space=OTHER)
    np.testing.assert_allclose(records["profile"][0], only["profile"][0], atol=1e-5)
    np.testing.assert_allclose(records["profile"][1], profile_at_start(OTHER.head, 1)[0], atol=1e-6)


def test_an_item_without_a_vector_in_the_new_space_is_passed_over() -> None:
    partial = Space(make_release(CATALOG.items[:6], seed=5), CATALOG, LAYOUT.seen_bytes)
    records = empty_records(LAYOUT, 1)
    apply(records, [(0, 0, make_event("u0", 0, "i9"))])
    rebuild(records, np.array([0]), partial, CATALOG)
    np.testing.assert_array_equal(records["profile"], profile_at_start(OTHER.head, 1))


def test_with_an_empty_catalogue_a_rebuild_gives_the_start_profile() -> None:
    nothing = Catalog()
    space = Space(make_release([Item("elsewhere")], seed=5), nothing, LAYOUT.seen_bytes)
    records = empty_records(LAYOUT, 1)
    apply(records, [(0, 0, make_event("u0", 0))])
    rebuild(records, np.array([0]), space, nothing)
    np.testing.assert_array_equal(records["profile"], profile_at_start(OTHER.head, 1))
