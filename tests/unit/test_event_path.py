"""The event path on a real store: from decoded events to profiles on disk and ready messages."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from profiles.answers import Filters, Recommendation, Request, output_id
from profiles.catalog import Catalog
from profiles.events import Event
from profiles.items import Item
from profiles.metrics import WorkerMetrics
from profiles.rollout import in_canary
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import Records, decode_records
from profiles.store import PartitionStore
from profiles.wire import decode_json, key64
from stream.arms import Canary
from stream.codecs import Rules, decode_chunk
from stream.due import Waiting
from stream.event_path import EventPath
from stream.messages import Cause
from stream.publisher import Message
from stream.source import Outcome, Part, Source
from stream.words import Unread
from tests.unit.builders import (
    ACTIONS,
    LAYOUT,
    NOW_S,
    TEXT_DIM,
    at_once,
    make_catalog,
    make_event,
    make_record,
    make_release,
    make_space,
    read_words,
    unit_rows,
)

pytestmark = pytest.mark.unit

CODES = {name: at for at, name in enumerate(ACTIONS)}
RULES = Rules(CODES, max_bytes=10_000, max_ahead_s=1e9)


@dataclass
class Bench:
    """An event path over one partition, and shorthand to drive it."""

    path: EventPath
    source: Source
    metrics: WorkerMetrics
    offset: int = 0
    log: list[Event] = field(default_factory=list)

    def apply(self, *events: Event, at_s: float = NOW_S, behind: int = 0) -> Outcome:
        """Apply new events, which stand at the next offsets."""
        start, self.log = len(self.log), [*self.log, *events]
        return self.replay(start, at_s, behind)

    def replay(self, start: int, at_s: float = NOW_S, behind: int = 0) -> Outcome:
        """Apply the log from an offset on, as after a crash."""
        records = [make_record(n, event) for n, event in enumerate(self.log) if n >= start]
        decoded = decode_chunk(records, RULES, NOW_S)
        assert not decoded.dead
        part = Part(self.source, decoded, len(self.log), behind)
        found = self.path.apply([part], at_s)
        while isinstance(found, Unread):
            self.path.note_read(read_words(found))
            found = self.path.apply([part], at_s)
        return found[0]

    def ask(self, user: str, **request: object) -> Recommendation:
        asked = Request("r1", user, **request)  # type: ignore[arg-type]  # the test's own words
        cause = Cause("request", "r1", "requests-id", 0, 3)
        answers = self.path.answer(self.source, [(user.encode(), asked, cause)], NOW_S)
        assert not isinstance(answers, Unread)
        return read(answers[0])

    def record(self, user: str) -> Records:
        (payload,) = self.source.store.get_many([user.encode()])
        assert payload is not None
        return decode_records(LAYOUT, [payload])[0]

    def stored(self) -> dict[bytes, bytes]:
        return dict(self.source.store.scan())

    def sweep_all(self, count: int = 2) -> tuple[list[bytes | None], list[tuple[bytes, str]], int]:
        """Sweep to the end: users rebuilt, interests wanted, slices taken."""
        after: bytes | None = None
        rebuilt: list[bytes | None] = []
        wanted: list[tuple[bytes, str]] = []
        for slices in range(1, 1000):
            found = self.path.upkeep.sweep(self.source, after, count, NOW_S)
            assert not isinstance(found, Unread)
            messages, after, wanting = found
            rebuilt += [message.key for message in messages]
            wanted += [(user, text) for user, text, _ in wanting]
            assert len(messages) <= count
            if after is None:
                return rebuilt, wanted, slices
        raise AssertionError("the sweep does not end")

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def read(message: Message) -> Recommendation:
    assert message.value is not None
    return decode_json(message.value, Recommendation)


def names(recommendation: Recommendation) -> list[str]:
    return [item.item_id for item in recommendation.items]


OpenBench = Callable[..., Bench]


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[OpenBench]:
    opened: list[Source] = []

    def make(catalog: Catalog | None = None, **settings: float | str) -> Bench:
        over = make_catalog(30) if catalog is None else catalog
        metrics = WorkerMetrics(CollectorRegistry())
        serving = ServingSettings(**{"k": 5, **settings})
        path = EventPath(LAYOUT, serving, CODES, over, metrics)
        path.space = make_space(over)
        store = PartitionStore(tmp_path / f"partition-{len(opened)}")
        source = Source(0, store, "events", "events-id")
        opened.append(source)
        return Bench(path, source, metrics)

    yield make
    for source in opened:
        source.store.close()


@pytest.fixture
def bench(open_bench: OpenBench) -> Bench:
    return open_bench()


# --- events -------------------------------------------------------------------------------------


def test_a_first_event_brings_a_profile_and_a_recommendation_at_once(bench: Bench) -> None:
    event = make_event("ann", 1, "i7")
    outcome = bench.apply(event)

    (message,), (changed,) = outcome.outputs, outcome.changelog
    assert message.key == changed.key == b"ann"
    assert bench.stored() == {b"ann": changed.value}
    assert bench.source.store.watermark.applied == {"events": 1}
    assert bench.source.store.watermark.count == bench.source.store.check() == 1

    told = read(message)
    release_id = bench.path.serving.release_id
    assert told.release_id == told.profile_release_id == release_id
    assert told.output_id == output_id("events-id", 0, 0, release_id)
    assert (told.user_id, told.cause, told.cause_id) == ("ann", "event", event.event_id)
    assert (told.cause_partition, told.cause_offset) == (0, 0)
    assert (told.produced_at, told.event_ts) == (NOW_S, event.ts)
    assert told.profile_version == int(bench.record("ann")["revision"][0])
    assert len(told.items) == 5
    assert "i7" not in names(told)
    scores = [item.score for item in told.items]
    assert scores == sorted(scores, reverse=True)


def test_a_recommendation_names_the_events_that_carried_it_each_once(bench: Bench) -> None:
    outcome = bench.apply(*(make_event("ann", n, item) for n, item in enumerate(("i7", "i7"))))
    listed = read(outcome.outputs[0]).items
    assert {item.reasons[0].kind for item in listed} >= {"history"}
    for item in listed:
        (reason,) = item.reasons
        if reason.kind == "popular":  # neither of the two raises its score
            continue
        assert (reason.kind, reason.item_id, reason.title) == ("history", "i7", "Title 7")
        assert reason.tag == ("song" if int(item.item_id[1:]) % 2 else None)
        assert 0 < reason.weight <= 1


def test_one_chunk_gives_each_user_one_recommendation_for_the_last_event(bench: Bench) -> None:
    outcome = bench.apply(
        make_event("ann", 1, "i1"), make_event("bob", 1, "i2"), make_event("ann", 2, "i3")
    )
    told = {entry.user_id: entry.cause_offset for entry in map(read, outcome.outputs)}
    assert told == {"ann": 2, "bob": 1}


def test_within_the_interval_the_recommendation_waits_and_is_flushed_when_due(
    open_bench: OpenBench,
) -> None:
    bench = open_bench(user_interval_s=10.0)
    bench.apply(make_event("ann", 1, "i1"))
    assert bench.apply(make_event("ann", 2, "i2"), at_s=NOW_S + 1).outputs == []
    assert bench.apply(make_event("ann", 3, "i3"), at_s=NOW_S + 2).outputs == []
    assert bench.path.flush_due(bench.source, NOW_S + 9.9) == Outcome([], [])

    flushed = bench.path.flush_due(bench.source, NOW_S + 10)
    told = read(flushed.outputs[0])
    assert (told.cause_offset, told.cause_id) == (2, "ann-3")
    assert not {"i1", "i2", "i3"} & set(names(told))
    assert bench.stored() == {b"ann": flushed.changelog[0].value}
    assert bench.path.flush_due(bench.source, NOW_S + 99) == Outcome([], [])
    # The interval runs anew from the flush.
    assert bench.apply(make_event("ann", 4, "i4"), at_s=NOW_S + 11).outputs == []
    assert bench.apply(make_event("ann", 5, "i5"), at_s=NOW_S + 20).outputs != []
    assert bench.source.owed.users == {}


def test_a_deferred_recommendation_is_of_the_release_that_serves_when_it_is_flushed(
    open_bench: OpenBench,
) -> None:
    bench = open_bench(user_interval_s=10.0)
    bench.apply(make_event("ann", 1, "i1"))
    bench.apply(make_event("ann", 2, "i2"), at_s=NOW_S + 1)
    bench.path.space = make_space(bench.path.catalog, seed=5)
    told = read(bench.path.flush_due(bench.source, NOW_S + 10).outputs[0])
    assert told.release_id == told.profile_release_id == bench.path.space.release_id


def test_a_worker_that_is_behind_applies_first_and_then_answers_each_user_once(
    open_bench: OpenBench,
) -> None:
    bench = open_bench(backlog_records=100, backlog_hold_s=30.0)
    for number in range(3):
        events = [make_event(user, number, f"i{number}") for user in ("ann", "bob")]
        assert bench.apply(*events, behind=500).outputs == []
    assert int(bench.record("ann")["events"][0]) == 3
    assert bench.path.flush_due(bench.source, NOW_S + 1).outputs == []
    (caught_up,) = bench.apply(make_event("ann", 3, "i3"), at_s=NOW_S + 2, behind=0).outputs
    (flushed,) = bench.path.flush_due(bench.source, NOW_S + 2).outputs
    assert (read(caught_up).user_id, read(caught_up).cause_offset) == ("ann", 6)
    assert (read(flushed).user_id, read(flushed).cause_offset) == ("bob", 5)
    assert bench.path.flush_due(bench.source, NOW_S + 99).outputs == []


def test_recommendations_are_held_back_for_so_long_and_no_longer(open_bench: OpenBench) -> None:
    bench = open_bench(backlog_records=100, backlog_hold_s=30.0)
    bench.apply(make_event("ann", 0, "i0"), behind=500)
    assert bench.path.flush_due(bench.source, NOW_S + 29).outputs == []
    assert len(bench.path.flush_due(bench.source, NOW_S + 30).outputs) == 1
    assert len(bench.apply(make_event("bob", 0), at_s=NOW_S + 31, behind=400).outputs) == 1


def test_a_worker_that_stops_answers_everyone_who_waits(open_bench: OpenBench) -> None:
    bench = open_bench(backlog_records=100, backlog_hold_s=30.0)
    bench.apply(*(make_event(user, 0, "i0") for user in users(3)), behind=500)
    outcome = bench.path.flush_due(bench.source, NOW_S, everything=True)
    assert [message.key for message in outcome.outputs] == [user.encode() for user in users(3)]
    assert bench.stored() == {message.key: message.value for message in outcome.changelog}


def test_a_replayed_chunk_says_the_same_again_and_changes_nothing(bench: Bench) -> None:
    first = bench.apply(make_event("ann", 1, "i1"), make_event("bob", 1, "i2"))
    before = bench.stored()
    again = bench.replay(0, at_s=NOW_S + 100)
    assert bench.stored() == before
    assert again.changelog == first.changelog
    for told, retold in zip(map(read, first.outputs), map(read, again.outputs), strict=True):
        assert retold.cause == "replay"
        assert msgspec.structs.replace(retold, cause="event", produced_at=NOW_S) == told
    assert bench.metric("driftline_duplicate_events_total", kind="offset") == 2
    assert bench.source.store.check() == 2


def test_an_id_that_comes_again_at_a_new_offset_is_skipped_and_answered_again(
    bench: Bench,
) -> None:
    event = make_event("ann", 1, "i1")
    told = read(bench.apply(event).outputs[0])
    before = bench.stored()
    retold = read(bench.apply(event, at_s=NOW_S + 50).outputs[0])
    assert (retold.output_id, retold.cause) == (told.output_id, "replay")
    assert (retold.items, retold.cause_offset) == (told.items, told.cause_offset)
    assert bench.stored() == before
    assert bench.source.store.watermark.applied == {"events": 2}
    assert bench.metric("driftline_duplicate_events_total", kind="id") == 1


def test_a_replay_of_events_that_caused_nothing_says_nothing(bench: Bench) -> None:
    bench.apply(make_event("ann", 1, "i1"), make_event("ann", 2, "i2"))
    (told,) = map(read, bench.replay(0).outputs)
    assert told.cause_offset == 1


def test_an_event_of_another_topic_under_the_old_name_is_new(bench: Bench) -> None:
    bench.apply(make_event("ann", 1, "i1"))
    bench.source.topic_id = "made anew"
    bench.log = []
    bench.apply(make_event("ann", 2, "i2"))
    assert int(bench.record("ann")["events"][0]) == 2
    assert bench.record("ann")["topic"][0] == key64("made anew")
    assert bench.source.store.watermark.topic_ids == {"events": "made anew"}


def test_an_empty_chunk_moves_the_watermark_alone(bench: Bench) -> None:
    bench.apply(make_event("ann", 1, "i1"))
    before = bench.stored()
    decoded = decode_chunk([make_record(1, b"bad", "ann")], RULES, NOW_S)
    assert bench.path.apply([Part(bench.source, decoded, 2)], NOW_S) == [Outcome([], [])]
    assert bench.stored() == before
    assert bench.source.store.watermark.applied == {"events": 2}
    assert bench.source.store.watermark.count == 1


def test_a_user_who_saw_the_whole_catalogue_gets_an_empty_list(open_bench: OpenBench) -> None:
    bench = open_bench(make_catalog(3))
    outcome = bench.apply(*(make_event("ann", n, f"i{n}") for n in range(3)))
    assert read(outcome.outputs[0]).items == []


def test_prequential_metrics_count_what_was_ranked(open_bench: OpenBench) -> None:
    bench = open_bench(prequential_share=1.0)
    bench.apply(*(make_event("ann", n, f"i{n}") for n in range(20)))
    release = bench.path.serving.release_id
    assert bench.metric("driftline_prequential_events_total", release=release) == 20
    hits = bench.metric("driftline_prequential_hits_total", release=release)
    assert 0 < bench.metric("driftline_prequential_ndcg_total", release=release) <= hits <= 20
    assert bench.metric("driftline_events_applied_total", action="click") == 20


# --- requests -----------------------------------------------------------------------------------


def test_an_answer_obeys_k_filters_and_exclusions_and_changes_nothing(bench: Bench) -> None:
    bench.apply(make_event("ann", 1, "i0"))
    before = bench.stored()
    whole = names(bench.ask("ann", k=100))
    assert sorted(whole) == sorted(f"i{n}" for n in range(1, 30))
    assert names(bench.ask("ann", k=3)) == whole[:3]
    tales = names(bench.ask("ann", k=100, filters=Filters(any_tags=["tale"])))
    assert tales == [name for name in whole if int(name[1:]) % 2 == 0]
    songs = names(bench.ask("ann", k=100, filters=Filters(no_tags=["tale"])))
    assert songs == [name for name in whole if int(name[1:]) % 2]
    assert names(bench.ask("ann", k=100, exclude=[*whole[:7], "unheard of"])) == whole[7:]
    assert "i0" in names(bench.ask("ann", k=100, filters=Filters(exclude_seen=False)))
    assert names(bench.ask("ann", filters=Filters(any_tags=["no such tag"]))) == []
    bench.path.catalog.withdraw(whole[0])
    assert names(bench.ask("ann", k=2)) == whole[1:3]
    assert bench.stored() == before


def test_a_stranger_is_answered_without_getting_a_profile(bench: Bench) -> None:
    told = bench.ask("nobody", k=4)
    assert len(told.items) == 4
    assert {reason.kind for item in told.items for reason in item.reasons} == {"popular"}
    assert told.profile_release_id == told.release_id
    assert (told.cause, told.cause_id, told.cause_offset) == ("request", "r1", 3)
    assert told.output_id == output_id("requests-id", 0, 3, told.release_id)
    assert bench.stored() == {}


def test_a_stale_profile_is_answered_in_the_serving_space(bench: Bench) -> None:
    bench.apply(make_event("ann", 1, "i1"))
    bench.path.space = make_space(bench.path.catalog, seed=5)
    told = bench.ask("ann")
    assert told.profile_release_id == told.release_id == bench.path.space.release_id


def test_with_an_empty_catalogue_a_request_gets_an_empty_answer(open_bench: OpenBench) -> None:
    bench = open_bench()
    bench.apply(make_event("ann", 1, "i1"))
    nothing = Catalog()
    path = EventPath(LAYOUT, ServingSettings(), CODES, nothing, bench.metrics)
    path.space = Space(make_release([Item("i1")], seed=4), nothing, LAYOUT.seen_bytes)
    bench.path = path
    assert bench.ask("ann").items == []


# --- declared interests -------------------------------------------------------------------------


def declare(bench: Bench, texts: dict[str, str], seed: int = 0) -> list[Message]:
    users = [(user.encode(), text) for user, text in texts.items()]
    vectors = unit_rows(len(users), TEXT_DIM, seed)
    return bench.path.upkeep.declare(bench.source, users, vectors, bench.path.serving, NOW_S)


def test_a_declared_interest_changes_what_a_new_user_is_recommended(bench: Bench) -> None:
    before = names(bench.ask("ann", k=30))
    (changed,) = declare(bench, {"ann": "songs, 音乐"})
    assert names(bench.ask("ann", k=30)) != before
    assert bench.stored() == {b"ann": changed.value}
    assert bench.source.store.check() == 1
    (_, tails) = decode_records(LAYOUT, [changed.value or b""])
    assert tails[0].decode() == "songs, 音乐"


def test_an_interest_outlives_events_and_can_be_taken_back(bench: Bench) -> None:
    declare(bench, {"ann": "songs"})
    bench.apply(make_event("ann", 1, "i1"))
    bench.apply(make_event("ann", 2, "i2"))
    assert decode_records(LAYOUT, list(bench.stored().values()))[1] == [b"songs"]
    assert bench.record("ann")["interest"].any()
    declare(bench, {"ann": ""})
    assert decode_records(LAYOUT, list(bench.stored().values()))[1] == [b""]
    assert not bench.record("ann")["interest"].any()
    assert bench.record("ann")["interest_release"][0] == 0
    assert int(bench.record("ann")["events"][0]) == 2


def test_an_interest_that_was_encoded_in_the_old_space_does_not_count(bench: Bench) -> None:
    old = bench.path.serving
    bench.path.space = make_space(bench.path.catalog, seed=5)
    before = bench.ask("ann", k=30).items
    bench.path.upkeep.declare(bench.source, [(b"ann", "songs")], unit_rows(1, TEXT_DIM), old, NOW_S)
    assert bench.ask("ann", k=30).items == before
    assert bench.sweep_all()[1] == [(b"ann", "songs")]


def test_a_partition_that_closed_meanwhile_takes_no_interest(bench: Bench) -> None:
    bench.source.closed = True
    bench.source.store.close()
    assert declare(bench, {"ann": "songs"}) == []
    assert bench.path.upkeep.sweep(bench.source, None, 8, NOW_S) == ([], None, [])
    bench.source.owed.users[b"ann"] = Waiting(NOW_S, 0, "e", 1, 0.0)
    assert bench.path.flush_due(bench.source, NOW_S) == Outcome([], [])


# --- the sweep ----------------------------------------------------------------------------------


def users(count: int) -> Sequence[str]:
    return [f"user-{number:03d}" for number in range(count)]


@pytest.mark.parametrize("count", [1, 3, 10, 1000])
def test_a_sweep_rebuilds_every_stale_profile_once_and_ends(bench: Bench, count: int) -> None:
    bench.apply(*(make_event(user, 1, "i1") for user in users(10)))
    declare(bench, {user: f"text of {user}" for user in users(4)})
    bench.path.space = make_space(bench.path.catalog, seed=5)
    bench.apply(make_event("user-005", 2, "i2"))  # rebuilt by touch

    rebuilt, wanted, _ = bench.sweep_all(count)
    assert rebuilt == [user.encode() for user in users(10) if user != "user-005"]
    assert wanted == [(user.encode(), f"text of {user}") for user in users(4)]
    for user in users(10):
        assert bench.record(user)["release"][0] == bench.path.space.key
    declare(bench, dict((user.decode(), text) for user, text in wanted))
    assert bench.sweep_all(count)[:2] == ([], [])
    assert bench.source.store.check() == 10


def test_an_interest_is_encoded_again_even_if_an_event_rebuilt_the_profile_first(
    bench: Bench,
) -> None:
    declare(bench, {"ann": "songs"})
    bench.path.space = make_space(bench.path.catalog, seed=5)
    bench.apply(make_event("ann", 1, "i1"))
    assert bench.sweep_all()[1] == [(b"ann", "songs")]


def test_a_sweep_of_current_profiles_writes_nothing_and_looks_far_at_a_time(bench: Bench) -> None:
    bench.apply(*(make_event(user, 1, "i1") for user in users(100)))
    before = bench.stored()
    assert bench.sweep_all(count=2) == ([], [], 2)
    assert bench.stored() == before


def test_a_sweep_of_an_empty_store_is_one_step(bench: Bench) -> None:
    assert bench.sweep_all() == ([], [], 1)


# --- erasure ------------------------------------------------------------------------------------


def test_an_erased_user_is_a_stranger_again(open_bench: OpenBench) -> None:
    bench = open_bench(user_interval_s=10.0)
    stranger = bench.ask("ann", k=30).items
    bench.apply(make_event("ann", 1, "i1"), make_event("bob", 1, "i2"))
    bench.apply(make_event("ann", 2, "i2"), at_s=NOW_S + 1)
    assert bench.path.upkeep.erase(bench.source, [b"ann", b"nobody"], NOW_S) == (
        [Message(b"ann", None), Message(b"nobody", None)],
        1,
    )
    assert list(bench.stored()) == [b"bob"]
    assert bench.source.store.check() == 1
    assert bench.ask("ann", k=30).items == stranger
    assert bench.path.flush_due(bench.source, NOW_S + 99) == Outcome([], [])
    bench.apply(make_event("ann", 3, "i3"))
    assert int(bench.record("ann")["events"][0]) == 1


def test_only_the_named_user_is_touched_by_an_event(bench: Bench) -> None:
    bench.apply(make_event("ann", 1, "i1"), make_event("bob", 1, "i2"))
    before = bench.stored()[b"bob"]
    bench.apply(make_event("ann", 2, "i2"))
    assert bench.stored()[b"bob"] == before
    assert not np.array_equal(bench.record("ann")["profile"], bench.record("bob")["profile"])


# --- large catalogues ---------------------------------------------------------------------------


def test_a_sample_of_recommendations_tells_the_recall_of_the_index(open_bench: OpenBench) -> None:
    bench = open_bench(user_interval_s=0.0, recall_share=0.5)
    space = bench.path.serving
    space.finish_index(space.begin_index()())
    for number in range(4):
        bench.apply(make_event("ann", number))
    # Two of four recommendations, the best five items of each; so few items are ranked exactly.
    assert bench.metric("driftline_candidates_checked_total") == 10.0
    assert bench.metric("driftline_candidates_found_total") == 10.0


# --- a canary beside the serving release ----------------------------------------------------------


USERS = [f"user-{number}" for number in range(24)]


def canary_beside(bench: Bench, share: float = 0.4) -> tuple[set[str], set[str]]:
    """Start a canary.  Returns: who it serves, and who not."""
    bench.path.canary = Canary(make_space(bench.path.catalog, seed=7), share)
    chosen = in_canary([u.encode() for u in USERS], bench.path.canary.space.release_id, share)
    inside = {user for user, is_in in zip(USERS, chosen.tolist(), strict=True) if is_in}
    assert 3 < len(inside) < 21
    return inside, set(USERS) - inside


def assert_same_profile(one: Records, other: Records) -> None:
    """Equal but for rounding: a matrix product's last bit depends on how many rows it has."""
    for name in one.dtype.names or ():
        if np.issubdtype(one[name].dtype, np.floating):
            np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-5)
        else:
            assert one[name].tobytes() == other[name].tobytes(), name


def everybody(number: int) -> list[Event]:
    return [
        make_event(user, number, f"i{(at * 5 + number * 3) % 30}") for at, user in enumerate(USERS)
    ]


def test_each_user_of_a_canary_meets_one_release_only_and_the_output_names_it(
    open_bench: OpenBench,
) -> None:
    bench = open_bench(user_interval_s=0.0)
    bench.apply(*everybody(0))
    serving = bench.path.serving
    inside, _ = canary_beside(bench)
    assert bench.path.canary is not None
    canary = bench.path.canary.space

    outcome = bench.apply(*everybody(1), *everybody(2))
    made = [read(message) for message in outcome.outputs]
    assert {each.user_id for each in made} == set(USERS)
    for each in made:
        mine = canary if each.user_id in inside else serving
        assert each.release_id == each.profile_release_id == mine.release_id
        assert int(bench.record(each.user_id)["release"][0]) == int(mine.key)


def test_a_canary_changes_nothing_for_the_users_it_does_not_serve(open_bench: OpenBench) -> None:
    alone, beside = open_bench(), open_bench()
    _, outside = canary_beside(beside)
    for number in range(3):
        alone.apply(*everybody(number))
        beside.apply(*everybody(number))
    for user in outside:
        assert_same_profile(beside.record(user), alone.record(user))


def test_the_users_of_a_canary_are_served_as_if_its_release_served_everybody(
    open_bench: OpenBench,
) -> None:
    beside, whole = open_bench(), open_bench()
    for number in range(3):
        if number == 1:
            inside, _ = canary_beside(beside)
            whole.path.space = make_space(whole.path.catalog, seed=7)
        beside.apply(*everybody(number))
        whole.apply(*everybody(number))
    for user in inside:
        np.testing.assert_allclose(
            beside.record(user)["profile"], whole.record(user)["profile"], atol=1e-5
        )


def test_requests_held_outputs_and_interests_follow_the_arm(open_bench: OpenBench) -> None:
    bench = open_bench(user_interval_s=5.0)
    bench.apply(*everybody(0))
    bench.apply(*everybody(1), at_s=NOW_S + 1.0)  # held back
    inside, outside = canary_beside(bench)
    assert bench.path.canary is not None
    names = (bench.path.canary.space.release_id, bench.path.serving.release_id)
    for user, name in ((min(inside), names[0]), (min(outside), names[1])):
        answer = bench.ask(user)
        assert answer.release_id == answer.profile_release_id == name
    flushed = bench.path.flush_due(bench.source, NOW_S + 9.0)
    for message in flushed.outputs:
        told = read(message)
        assert told.release_id == told.profile_release_id
        assert told.release_id == names[0 if told.user_id in inside else 1]
    key = min(inside).encode()
    texts = np.ones((1, TEXT_DIM), dtype=np.float32)
    bench.path.upkeep.declare(bench.source, [(key, "songs")], texts, bench.path.canary.space, NOW_S)
    assert bench.record(min(inside))["interest_release"][0] == bench.path.canary.space.key


@pytest.mark.parametrize("ends", ["promoted", "refused"])
def test_a_sweep_brings_everybody_to_the_arm_they_belong_to_and_to_whatever_follows(
    open_bench: OpenBench, ends: str
) -> None:
    bench = open_bench()
    bench.apply(*everybody(0))
    inside, outside = canary_beside(bench)
    assert bench.path.canary is not None
    canary = bench.path.canary.space
    rebuilt, _, _ = bench.sweep_all(count=5)
    assert {key.decode() for key in rebuilt if key} == inside
    assert bench.sweep_all()[0] == []

    if ends == "promoted":
        bench.path.space, bench.path.canary = canary, None
    else:
        bench.path.canary = None
    rebuilt, _, _ = bench.sweep_all(count=5)
    assert {key.decode() for key in rebuilt if key} == (outside if ends == "promoted" else inside)
    for user in USERS:
        assert bench.record(user)["release"][0] == bench.path.serving.key


def test_live_outcomes_are_summed_by_release_and_taken_away_once(open_bench: OpenBench) -> None:
    bench = open_bench(prequential_share=1.0)
    inside, outside = canary_beside(bench)
    assert bench.path.canary is not None
    bench.apply(*everybody(0), *everybody(1))
    taken = bench.path.tally.take_outcomes()
    for space, users in ((bench.path.canary.space, inside), (bench.path.serving, outside)):
        events = sum(cell.events for cell in taken[space.release_id].messages())
        assert events == 2 * len(users)
        assert (
            bench.metric("driftline_prequential_events_total", release=space.release_id) == events
        )
    assert bench.path.tally.take_outcomes() == {}
    bench.replay(0)  # nothing is applied again, so nothing is counted again
    assert bench.path.tally.take_outcomes() == {}


def test_an_exploring_worker_logs_propensities_and_repeats_itself_word_for_word(
    open_bench: OpenBench,
) -> None:
    bench = open_bench(user_interval_s=0.0, exploration="epsilon", exploration_epsilon=0.5)
    plain = open_bench(user_interval_s=0.0)
    outcome = bench.apply(*everybody(0))
    made = {message.key: read(message) for message in outcome.outputs}
    best = {message.key: read(message) for message in plain.apply(*everybody(0)).outputs}
    explored = 0
    for user, told in made.items():
        for item, first in zip(told.items, best[user].items, strict=True):
            assert 0 < item.propensity < 1
            explored += item.item_id != first.item_id
        assert len({item.item_id for item in told.items}) == len(told.items)
        assert all(item.propensity == 1.0 for item in best[user].items)
    assert explored > len(made)
    again = {m.key: read(m) for m in bench.replay(0, NOW_S + 60.0).outputs}
    assert again.keys() == made.keys()
    for user, told in again.items():
        assert told.output_id == made[user].output_id
        assert told.items == made[user].items


# --- rounds -------------------------------------------------------------------------------------


def test_partitions_of_one_round_come_out_as_if_each_had_been_alone(open_bench: OpenBench) -> None:
    """The same user in both, too (a producer that chose partitions itself); one is behind."""
    catalog = make_catalog(30)
    chance = np.random.default_rng(3)
    together = open_bench(catalog)
    benches = [open_bench(catalog) for _ in range(4)]
    for number, bench in enumerate(benches):
        bench.source.number = number % 2
    mine, theirs = [bench.source for bench in benches[:2]], benches[2:]
    for turn in range(4):
        parts: list[Part] = []
        expected: list[Outcome] = []
        for at, users in enumerate((["ann", "bob", "eve"], ["ann", "zoe"])):
            events = [
                make_event(users[chance.integers(len(users))], n, f"i{chance.integers(30)}")
                for n in range(5 * turn, 5 * turn + 5)
            ]
            records = [make_record(5 * turn + n, event) for n, event in enumerate(events)]
            decoded, end = decode_chunk(records, RULES, NOW_S), 5 * turn + 5
            parts.append(Part(mine[at], decoded, end, behind=10_000 * at))
            alone = Part(theirs[at].source, decoded, end, behind=10_000 * at)
            expected += at_once(theirs[at].path.apply([alone], NOW_S + turn))
        done = at_once(together.path.apply(parts, NOW_S + turn))
        for found, wanted in zip(done, expected, strict=True):
            assert [message.key for message in found.changelog] == [
                message.key for message in wanted.changelog
            ]
            assert list(map(rows_shown, found.outputs)) == list(map(rows_shown, wanted.outputs))
    for one, other in zip(mine, (bench.source for bench in theirs), strict=True):
        assert one.store.watermark.applied == other.store.watermark.applied == {"events": 20}
        assert one.owed.users.keys() == other.owed.users.keys()
        left, right = dict(one.store.scan(None)), dict(other.store.scan(None))
        assert left.keys() == right.keys()
        for user, payload in left.items():
            stored, wanted_as = (decode_records(LAYOUT, [p])[0] for p in (payload, right[user]))
            assert_same_profile(stored, wanted_as)
    assert mine[1].owed.users, "the one that is behind holds its outputs back"


def rows_shown(message: Message) -> tuple[str, int, list[str]]:
    """Whom an output is for, which partition's event caused it, and the items in order."""
    told = read(message)
    return told.user_id, told.cause_partition, [item.item_id for item in told.items]
