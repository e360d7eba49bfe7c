"""What the learner remembers, forgets on request, and takes up again after a kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from rocksdict import Options, Rdict

from learner.disk import Disk, new_batch
from learner.graduation import is_exam_user
from learner.histories import HISTORY_EVENTS
from learner.records import Row, example_from_bytes
from learner.replay import ReplayBuffer
from learner.reservoir import USER, Reservoir
from learner.sampling import Segment
from profiles.errors import LearnerError, StoreError
from profiles.wire import key64

TOPIC = "events"
LENGTH = 8


def open_buffer(directory: Path, buffer_bytes: int = 10**7, seed: int = 1) -> ReplayBuffer:
    return ReplayBuffer(
        directory,
        buffer_bytes=buffer_bytes,
        sequence_length=LENGTH,
        seed=seed,
        actions=["rate", "view"],
    )


@pytest.fixture
def buffer(tmp_path: Path) -> Iterator[ReplayBuffer]:
    opened = open_buffer(tmp_path / "buffer")
    yield opened
    opened.close()


def row(offset: int, user: int, item: int = 0, ts: float | None = None) -> Row:
    return Row(
        partition=0, offset=offset, user=user, item=item or offset + 1, action=0, value=4.0,
        ts=float(offset) if ts is None else ts, event_id=key64(f"event {offset}"),
    )  # fmt: skip


def feed(buffer: ReplayBuffer, rows: Sequence[Row]) -> int:
    return buffer.ingest(TOPIC, rows, {0: rows[-1].offset + 1})


def dump(directory: Path) -> dict[bytes, bytes]:
    """Every key and value of a closed buffer."""
    db = Rdict(str(directory), Options(raw_mode=True))
    try:
        return dict(db.items())  # type: ignore[arg-type]
    finally:
        db.close()


def everything(segments: Sequence[Segment]) -> list[tuple[object, ...]]:
    return [
        (s.user, s.skipped, s.first_target, s.items.tolist(), s.ts.tolist(), s.orders.tolist())
        for s in segments
    ]


def test_fresh_events_come_back_with_their_context(buffer: ReplayBuffer) -> None:
    feed(buffer, [row(offset, user=7) for offset in range(5)])
    buffer.finish_round(buffer.next_order, (1e18, 0), 1)
    feed(buffer, [row(offset, user=7) for offset in range(5, 8)])

    [segment] = buffer.fresh()

    assert segment.items.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert (segment.first_target, segment.skipped, buffer.fresh_events) == (5, 0, 3)


def test_a_replayed_offset_is_skipped(buffer: ReplayBuffer) -> None:
    rows = [row(offset, user=offset % 2) for offset in range(6)]
    assert feed(buffer, rows) == 6

    assert feed(buffer, rows) == 0
    assert buffer.fresh_events == 6
    assert buffer.offsets(TOPIC, [0, 1]) == {0: 6}


def test_a_replayed_event_id_is_skipped(buffer: ReplayBuffer) -> None:
    first = row(0, user=1)
    again = Row(0, 1, first.user, first.item, 0, 4.0, 9.0, first.event_id)

    assert feed(buffer, [first, again, row(2, user=1)]) == 2


def test_offsets_move_past_messages_that_were_not_events(buffer: ReplayBuffer) -> None:
    buffer.ingest(TOPIC, [], {0: 17, 3: 4})

    assert buffer.offsets(TOPIC, [0, 1, 3]) == {0: 17, 3: 4}


def test_equal_times_keep_their_order_and_late_events_find_their_place(
    buffer: ReplayBuffer,
) -> None:
    feed(buffer, [row(0, 1, ts=5.0), row(1, 1, ts=5.0), row(2, 1, ts=1.0), row(3, 1, ts=5.0)])

    [segment] = buffer.fresh()

    assert segment.items.tolist() == [3, 1, 2, 4]


def test_a_long_history_is_bounded_and_its_unlearned_part_becomes_examples(
    buffer: ReplayBuffer,
) -> None:
    total = HISTORY_EVENTS + 20
    feed(buffer, [row(offset, user=1) for offset in range(total)])

    [segment] = buffer.fresh()
    examples = buffer.replay(10_000, np.random.default_rng(0))
    targets = [item for e in examples for item in e.items[e.first_target :].tolist()]

    assert len(segment.items) == HISTORY_EVENTS
    assert segment.skipped == 20
    assert sorted(targets) == list(range(1, 21))
    assert buffer.fresh_events == HISTORY_EVENTS


def test_finished_rounds_become_examples_and_held_out_parts_become_exams(
    buffer: ReplayBuffer,
) -> None:
    sitting, other = 1 << 17, 5
    assert is_exam_user(sitting)
    assert not is_exam_user(other)
    feed(buffer, [row(offset, user=(sitting, other)[offset % 2]) for offset in range(20)])

    buffer.finish_round(buffer.next_order, (15.0, 0), period=3)

    examples = buffer.replay(10_000, np.random.default_rng(0))
    trained = sorted(int(ts) for e in examples for ts in e.ts[e.first_target :])
    exams = buffer.draw_exams(10_000, np.random.default_rng(0))
    asked = sorted(int(ts) for e in exams[3] for ts in e.ts[e.first_target :])
    assert asked == [16, 18]
    assert trained == sorted(set(range(20)) - {16, 18})
    assert (buffer.fresh_events, buffer.fresh(), buffer.rounds) == (0, [], 1)


def test_exams_are_drawn_evenly_over_periods_and_only_the_drawn_ones_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sitting = [user << 8 for user in range(4_000) if is_exam_user(user << 8)][:90]
    buffer = open_buffer(tmp_path / "exams")
    try:
        offset = 0
        for period, users in ((1, sitting[:70]), (2, sitting[70:])):
            first = buffer.next_order
            feed(buffer, [row(offset + at, user=user) for at, user in enumerate(users)])
            offset += len(users)
            buffer.finish_round(buffer.next_order, (-1.0, first), period)
        read: list[bytes] = []

        def reading(payload: bytes) -> tuple[Segment, int]:
            read.append(payload)
            return example_from_bytes(payload)

        monkeypatch.setattr("learner.replay.example_from_bytes", reading)

        exams = buffer.draw_exams(20, np.random.default_rng(0))
    finally:
        buffer.close()

    assert {period: len(segments) for period, segments in exams.items()} == {1: 10, 2: 10}
    assert {s.user for s in exams[1]} <= set(sitting[:70])
    assert {s.user for s in exams[2]} <= set(sitting[70:])
    assert len(read) == 20


def test_events_that_arrive_during_a_round_stay_fresh(buffer: ReplayBuffer) -> None:
    feed(buffer, [row(offset, user=1) for offset in range(4)])
    upto = buffer.next_order
    feed(buffer, [row(offset, user=1) for offset in range(4, 7)])

    buffer.finish_round(upto, (1e18, 0), 1)

    [segment] = buffer.fresh()
    assert segment.items[segment.first_target :].tolist() == [5, 6, 7]
    assert buffer.fresh_events == 3


def test_the_byte_bound_holds_and_the_least_active_go_first(tmp_path: Path) -> None:
    bound = 65_536
    buffer = open_buffer(tmp_path / "small", buffer_bytes=bound)
    try:
        for start in range(0, 4_000, 200):
            feed(buffer, [row(offset, user=offset // 4) for offset in range(start, start + 200)])
            buffer.finish_round(buffer.next_order, (1e18, 0), 1)
            assert buffer.size_bytes <= bound
        assert buffer.context([0]) == []
        assert len(buffer.context([999])) == 1
        assert buffer.past.held == buffer.past.slots
    finally:
        buffer.close()


def test_every_example_ever_offered_is_as_likely_to_be_held(tmp_path: Path) -> None:
    """Chi-square over 40 bins of 2,000 examples, 30 seeded runs of 100 slots."""
    held = np.zeros(2_000)
    for seed in range(30):
        disk = Disk(tmp_path / str(seed))
        reservoir = Reservoir(b"r", disk, 100 * (16 + 64), 16, seed)
        for start in range(0, 2_000, 250):
            batch = new_batch()
            for number in range(start, start + 250):
                reservoir.offer(batch, USER.pack(number % 50) + USER.pack(number))
            disk.write(batch)
            reservoir.written()
        assert reservoir.held == 100
        for _, example in reservoir.all():
            held[USER.unpack(example[8:])[0]] += 1
        disk.close()
    bins = held.reshape(40, 50).sum(axis=1)
    expected = 30 * 100 / 40

    chi_square = float(((bins - expected) ** 2 / expected).sum())

    # 39 degrees of freedom: 99.9% lie below 72.1, 0.1% below 16.
    assert 16.0 < chi_square < 72.1


def test_erasing_leaves_no_byte_of_the_user_under_any_key(tmp_path: Path) -> None:
    directory = tmp_path / "buffer"
    buffer = open_buffer(directory)
    user, other = key64("user to forget") | 1 << 17, 5
    for start in (0, 100, 200):
        rows = [row(start + n, user=(user, other)[n % 2]) for n in range(100)]
        feed(buffer, rows)
        buffer.finish_round(buffer.next_order, (start + 60.0, 0), 1)
        buffer.note_release(f"r{start}", buffer.next_order)
    feed(buffer, [row(300, user), row(301, other)])

    report = buffer.erase([user, key64("never seen")])

    counts, releases = report[user]
    assert all(count > 0 for count in counts.values())
    assert releases == ["r0", "r100", "r200"]
    assert report[key64("never seen")][1] == []
    assert buffer.fresh_events == 1
    buffer.close()
    needle = USER.pack(user)
    assert not [k for k, v in dump(directory).items() if needle in k or needle in v]
    assert not [f for f in directory.iterdir() if needle in f.read_bytes()]
    reopened = open_buffer(directory)
    assert {segment.user for segment in reopened.fresh()} == {other}
    reopened.close()


def test_releases_are_named_though_nothing_of_the_user_is_left_in_the_buffer(
    tmp_path: Path,
) -> None:
    buffer = open_buffer(tmp_path / "b", buffer_bytes=4_096)
    feed(buffer, [row(0, user=7)])
    buffer.finish_round(buffer.next_order, (1e18, 0), 1)
    buffer.note_release("r1", buffer.next_order)
    for start in range(1, 2_000, 100):  # pushes her out of histories and reservoirs
        feed(buffer, [row(offset, user=offset + 100) for offset in range(start, start + 100)])
        buffer.finish_round(buffer.next_order, (1e18, 0), 1)
    buffer.close()
    buffer = open_buffer(tmp_path / "b", buffer_bytes=4_096)
    (counts, releases) = buffer.erase([7])[7]
    assert sum(counts.values()) == 0
    assert releases == ["r1"]
    assert buffer.erase([7])[7][1] == []
    buffer.close()


def test_going_back_makes_what_came_since_fresh_again(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path / "b")
    for start, name in ((0, "r1"), (10, "r2")):
        feed(buffer, [row(offset, user=offset % 2) for offset in range(start, start + 10)])
        buffer.finish_round(buffer.next_order, (1e18, 0), 1)
        buffer.note_release(name, buffer.next_order)
    feed(buffer, [row(20, user=0)])
    assert buffer.fresh_events == 1
    assert buffer.learned_by("r1") == 11
    buffer.rewind(buffer.learned_by("r1") or 1)
    assert buffer.fresh_events == sum(len(s.items) - s.first_target for s in buffer.fresh()) == 11
    assert buffer.learned_by("r2") is None
    buffer.rewind(1)
    assert buffer.fresh_events == 21
    buffer.close()


def test_who_was_erased_is_known_after_a_restart(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path)
    buffer.erase([3, 2**63 + 1], {3: 1_000, 2**63 + 1: 2_000, 4: 3_000})
    buffer.erase([3], {3: 4_000})
    buffer.close()
    again = open_buffer(tmp_path)
    assert again.erased_at_ms() == {3: 4_000, 2**63 + 1: 2_000}
    again.close()


def test_erased_slots_are_filled_again(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path / "b", buffer_bytes=65_536)
    for start in range(0, 1_000, 100):
        feed(buffer, [row(offset, user=offset % 10) for offset in range(start, start + 100)])
        buffer.finish_round(buffer.next_order, (1e18, 0), 1)
    full = buffer.past.held
    buffer.erase([3])
    assert buffer.past.held < full

    for start in range(1_000, 5_000, 100):
        feed(buffer, [row(offset, user=10 + offset % 10) for offset in range(start, start + 100)])
        buffer.finish_round(buffer.next_order, (1e18, 0), 1)

    assert full - 3 <= buffer.past.held <= buffer.past.slots
    assert buffer.past.held == len(list(buffer.past.all()))
    buffer.close()


def test_a_killed_learner_goes_on_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    rows = [row(offset, user=offset % 23) for offset in range(1_200)]

    def run(directory: Path, reopen_every: int) -> list[tuple[object, ...]]:
        buffer = open_buffer(directory, buffer_bytes=65_536)
        for turn, start in enumerate(range(0, 1_200, 100)):
            feed(buffer, rows[start : start + 100])
            if turn % 3 == 2:
                buffer.finish_round(buffer.next_order, (start + 50.0, 0), turn)
            if reopen_every and turn % reopen_every == 0:
                buffer.close()
                buffer = open_buffer(directory, buffer_bytes=65_536, seed=99)
        found = everything([*buffer.fresh(), *buffer.replay(10**6, np.random.default_rng(0))])
        buffer.close()
        return found

    assert run(tmp_path / "whole", 0) == run(tmp_path / "broken", 2)


def test_a_round_half_finished_is_finished_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    buffer = open_buffer(tmp_path / "b")
    feed(buffer, [row(offset, user=offset % 600) for offset in range(1_800)])
    real = buffer._disk.write
    writes: list[object] = []

    def dies_after_two(batch: object) -> None:
        if len(writes) == 2:
            raise StoreError("power cut")
        writes.append(batch)
        real(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(buffer._disk, "write", dies_after_two)
    with pytest.raises(StoreError):
        buffer.finish_round(buffer.next_order, (1e18, 0), 1)
    buffer.close()

    reopened = open_buffer(tmp_path / "b")

    examples = reopened.replay(10**6, np.random.default_rng(0))
    targets = [item for e in examples for item in e.items[e.first_target :].tolist()]
    assert sorted(targets) == list(range(1, 1_801))
    assert (reopened.rounds, reopened.fresh()) == (1, [])
    reopened.close()


def test_a_lowered_bound_empties_the_slots_outside(tmp_path: Path) -> None:
    buffer = open_buffer(tmp_path / "b", buffer_bytes=300_000)
    feed(buffer, [row(offset, user=offset % 97) for offset in range(3_000)])
    buffer.finish_round(buffer.next_order, (1e18, 0), 1)
    buffer.close()

    smaller = open_buffer(tmp_path / "b", buffer_bytes=65_536)

    assert smaller.past.held == len(list(smaller.past.all())) <= smaller.past.slots
    smaller.close()


def test_other_actions_are_refused_with_the_remedy(tmp_path: Path) -> None:
    open_buffer(tmp_path / "b").close()

    with pytest.raises(LearnerError, match="restore the settings"):
        ReplayBuffer(
            tmp_path / "b", buffer_bytes=65_536, sequence_length=8, seed=1, actions=["view"]
        )


def test_a_second_learner_on_one_buffer_is_refused(tmp_path: Path, buffer: ReplayBuffer) -> None:
    with pytest.raises(StoreError, match="only one learner"):
        open_buffer(tmp_path / "buffer")
