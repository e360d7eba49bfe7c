"""Words of users: read before they count, remembered for the next release, and then forgotten."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from profiles.answers import Request
from profiles.errors import BadMessage
from profiles.events import Event, Saying, decode_event
from profiles.history import read_history
from profiles.layers import Floats
from profiles.metrics import WorkerMetrics
from profiles.said import TextMemory, read_tail, text_key
from profiles.settings.serving import ServingSettings
from profiles.state import decode_records
from profiles.store import PartitionStore
from profiles.wire import encode
from stream.arms import Canary
from stream.codecs import Rules, decode_chunk, drop_unknown, words_apart
from stream.delivery import Delivery
from stream.erasing import forget
from stream.event_path import EventPath
from stream.language_model import LanguageModel
from stream.messages import Cause
from stream.source import Part, Source
from stream.text_reader import TextReader
from stream.words import Unread
from tests.unit.builders import (
    ACTIONS,
    LAYOUT,
    NOW_S,
    START_S,
    make_catalog,
    make_event,
    make_record,
    make_space,
    read_words,
    word_vectors,
)
from tests.unit.test_event_path import Bench, names, read

pytestmark = pytest.mark.unit

CODES = {name: at for at, name in enumerate(ACTIONS)}
RULES = Rules(CODES, max_bytes=10_000, max_ahead_s=1e9)
MEMORY = TextMemory(texts=2, chars=12)
OpenBench = Callable[..., Bench]


@pytest.fixture
def open_bench(tmp_path: Path) -> Iterator[OpenBench]:
    opened: list[Source] = []

    def make(seed: int = 0, **serving: float) -> Bench:
        catalog, metrics = make_catalog(30), WorkerMetrics(CollectorRegistry())
        settings = ServingSettings.model_validate({"k": 5, **serving})
        path = EventPath(LAYOUT, settings, CODES, catalog, metrics, MEMORY)
        path.space = make_space(catalog, seed)
        source = Source(0, PartitionStore(tmp_path / f"{len(opened)}"), "events", "events-id")
        opened.append(source)
        return Bench(path, source, metrics)

    yield make
    for source in opened:
        source.store.close()


@pytest.fixture
def bench(open_bench: OpenBench) -> Bench:
    return open_bench()


def said(user: str, number: int, text: str, item: str = "") -> Event:
    return make_event(user, number, item, text=text)


def tail_of(bench: Bench, user: str) -> tuple[str, ...]:
    (payload,) = bench.source.store.get_many([user.encode()])
    assert payload is not None
    return read_tail(decode_records(LAYOUT, [payload])[1][0]).texts


# --- on the wire --------------------------------------------------------------------------------


def test_words_without_an_item_are_an_event() -> None:
    saying = Saying("e1", "ann", "click", START_S, "two-person tent")
    event = decode_event(encode(saying), now_s=NOW_S, max_ahead_s=0.0)
    assert (event.item_id, event.text) == ("", "two-person tent")
    assert decode_event(encode(event), now_s=NOW_S, max_ahead_s=0.0) == event


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (b'"text":7', "invalid"),
        (b'"text":""', "invalid"),
        (b'"text":null', "invalid"),
        (b'"text":" \\n "', "bad-text"),
        (b'"text":"' + b"x" * 2001 + b'"', "invalid"),
        (b'"text":"ok","item_id":7', "invalid"),
        (b'"text":"ok","item_id":"a\\u0000b"', "bad-text"),
    ],
)
def test_bad_words_are_a_dead_letter_and_their_neighbours_go_on(
    changes: bytes, reason: str
) -> None:
    payload = b'{"event_id":"e1","user_id":"ann","action":"click","ts":1.0,' + changes + b"}"
    with pytest.raises(BadMessage) as caught:
        decode_event(payload, now_s=NOW_S, max_ahead_s=0.0)
    assert caught.value.reason == reason
    good = said("ann", 1, "a tent")
    records = [make_record(0, payload, "ann"), make_record(1, good)]
    decoded = decode_chunk(records, RULES, NOW_S)
    assert [letter.reason for letter in decoded.dead] == [reason]
    assert decoded.events == [good]


def test_words_about_an_unknown_item_die_with_it_and_words_alone_do_not() -> None:
    records = [
        make_record(0, said("ann", 1, "a tent", "nowhere")),
        make_record(1, said("ann", 2, "boots")),
    ]
    left = drop_unknown(decode_chunk(records, RULES, NOW_S), make_catalog(3))
    assert [letter.reason for letter in left.dead] == ["unknown-item"]
    assert [event.text for event in left.events] == ["boots"]


def test_a_chunk_without_words_is_left_as_it_is() -> None:
    decoded = decode_chunk([make_record(0, make_event("ann", 1))], RULES, NOW_S)
    assert words_apart(decoded, MEMORY) is decoded


# --- applied ------------------------------------------------------------------------------------


def test_a_search_moves_the_profile_and_is_recommended_upon(bench: Bench) -> None:
    bench.apply(make_event("ann", 1, "i1"))
    before = bench.record("ann")["profile"].copy()
    outcome = bench.apply(said("ann", 2, "a tent"), at_s=NOW_S + 10)
    assert not np.allclose(bench.record("ann")["profile"], before)
    assert read(outcome.outputs[0]).cause_id == "ann-2"
    assert (int(bench.record("ann")["events"][0]), tail_of(bench, "ann")) == (2, ("a tent",))


def test_nothing_happens_before_the_words_are_read(bench: Bench) -> None:
    event = said("ann", 1, "a tent")
    decoded = decode_chunk([make_record(0, event)], RULES, NOW_S)
    part = Part(bench.source, decoded, 1)
    found = bench.path.apply([part], NOW_S)
    assert isinstance(found, Unread)
    assert [(space.release_id, texts) for space, texts in found.texts] == [
        (bench.path.serving.release_id, ["a tent"])
    ]
    assert bench.stored() == {}
    assert bench.source.store.watermark.applied == {}
    bench.path.note_read(read_words(found))
    assert not isinstance(bench.path.apply([part], NOW_S), Unread)


def test_words_that_many_users_say_are_read_once(bench: Bench) -> None:
    bench.apply(said("ann", 1, "a tent"))
    decoded = decode_chunk([make_record(1, said("ben", 1, " a tent"))], RULES, NOW_S)
    assert not isinstance(bench.path.apply([Part(bench.source, decoded, 2)], NOW_S), Unread)


def test_an_event_with_words_and_an_item_is_what_was_said_then_what_was_done(
    open_bench: OpenBench,
) -> None:
    both, apart = open_bench(), open_bench()
    both.apply(said("ann", 1, "a tent", "i3"))
    apart.apply(said("ann", 1, "a tent"))
    apart.apply(make_event("ann", 2, "i3", ts=START_S + 60.0))
    np.testing.assert_allclose(
        both.record("ann")["profile"], apart.record("ann")["profile"], atol=1e-6
    )
    assert both.record("ann")["events"][0] == 2
    assert both.record("ann")["seen"].tolist() == apart.record("ann")["seen"].tolist()
    # Produced twice, both parts are known, and the output goes out again under its own cause.
    again = both.apply(said("ann", 1, "a tent", "i3"), at_s=NOW_S + 10)
    assert both.record("ann")["events"][0] == 2
    assert [read(message).cause for message in again.outputs] == ["replay"]
    assert [read(message).cause_id for message in again.outputs] == ["ann-1"]


def test_words_are_never_an_item_that_was_seen_or_a_reason(bench: Bench) -> None:
    bench.apply(said("ann", 1, "a tent"))
    assert not bench.record("ann")["seen"].any()
    assert all(
        reason.kind == "popular" for item in bench.ask("ann").items for reason in item.reasons
    )


def test_a_user_who_says_nothing_has_the_record_she_had(bench: Bench) -> None:
    bench.apply(make_event("ann", 1, "i1"), said("ben", 1, "a tent"))
    (payload,) = bench.source.store.get_many([b"ann"])
    assert payload is not None
    records, tails = decode_records(LAYOUT, [payload])
    assert tails == [b""]
    assert len(payload) == LAYOUT.stored_bytes(records)[0]


def test_only_the_last_words_are_kept_and_of_each_only_its_beginning(bench: Bench) -> None:
    for number, text in enumerate(["one", "two", "three", "a long text that is cut"]):
        bench.apply(said("ann", number, text))
    assert tail_of(bench, "ann") == ("three", "a long text ")
    history = read_history(bench.record("ann"))
    kept = [0, 0, text_key("three"), text_key("a long text ")]
    assert history.items[0].tolist() == kept
    assert history.said[0].all()
    # What was done pushes words out of the ring in the end, and the tail follows.
    bench.apply(*(make_event("ann", 10 + number, f"i{number}") for number in range(6)))
    assert tail_of(bench, "ann") == ()


def test_interests_and_words_do_not_disturb_each_other(bench: Bench) -> None:
    path, source = bench.path, bench.source
    bench.apply(said("ann", 1, "a tent"))
    path.upkeep.declare(source, [(b"ann", "songs")], word_vectors(["songs"]), path.serving, NOW_S)
    assert tail_of(bench, "ann") == ("a tent",)
    bench.apply(said("ann", 2, "boots"))
    (payload,) = source.store.get_many([b"ann"])
    stored = read_tail(decode_records(LAYOUT, [payload or b""])[1][0])
    assert (stored.interests, stored.texts) == ("songs", ("a tent", "boots"))


def test_an_erased_users_words_leave_the_memory_too(bench: Bench) -> None:
    bench.apply(said("ann", 1, "my secret"), said("ben", 1, "a tent"))
    texts = bench.path.serving.texts
    forget(bench.path, bench.source, b"ann", end=9, request=0, now_s=NOW_S)
    assert texts.lacking(["my secret", "a tent"]) == ["my secret", "a tent"]
    bench.apply(said("ben", 2, "a tent"))  # which is read again
    assert tail_of(bench, "ben") == ("a tent",)


# --- at a swap ----------------------------------------------------------------------------------

STORY = (
    make_event("ann", 1, "i1"),
    said("ann", 2, "a tent"),
    make_event("ann", 3, "i2"),
    said("ann", 4, "boots", "i4"),
)


def swap(bench: Bench, seed: int = 5) -> None:
    was = bench.path.serving
    bench.path.previous, bench.path.space = was, make_space(bench.path.catalog, seed)


def test_an_erased_users_words_leave_the_release_before_too(bench: Bench) -> None:
    bench.apply(said("ann", 1, "my secret"))
    before = bench.path.serving
    swap(bench)
    assert before.texts.lacking(["my secret"]) == []
    forget(bench.path, bench.source, b"ann", end=9, request=0, now_s=NOW_S)
    assert before.texts.lacking(["my secret"]) == ["my secret"]


def test_a_profile_is_rebuilt_from_the_same_words_read_by_the_new_release(
    open_bench: OpenBench,
) -> None:
    was, fresh = open_bench(), open_bench(seed=5)
    was.apply(*STORY)
    fresh.apply(*STORY)
    swap(was)
    more = make_event("ann", 9, "i9")
    was.apply(more)
    fresh.apply(more)
    for name in ("state", "profile"):
        assert np.allclose(was.record("ann")[name], fresh.record("ann")[name], atol=1e-5)
    assert not np.allclose(was.record("ann")["profile"], 0.0)


def test_forgotten_words_are_passed_over_whoever_else_said_them(open_bench: OpenBench) -> None:
    alone, beside = open_bench(), open_bench()
    for made in (alone, beside):
        made.apply(said("ann", 1, "one"), said("ann", 2, "two"), said("ann", 3, "three"))
        swap(made)
    beside.apply(said("ben", 1, "one"))  # the new space has a vector of it
    for made in (alone, beside):
        made.apply(make_event("ann", 4, "i1"))
    np.testing.assert_allclose(
        alone.record("ann")["profile"], beside.record("ann")["profile"], atol=1e-6
    )


def test_the_sweep_asks_for_the_words_of_its_slice_and_then_rebuilds_it(bench: Bench) -> None:
    bench.apply(*STORY, make_event("ben", 1, "i1"))
    swap(bench)
    before = bench.stored()
    found = bench.path.upkeep.sweep(bench.source, None, 8, NOW_S)
    assert isinstance(found, Unread)
    assert found.texts[0][1] == ["a tent", "boots"]
    assert bench.stored() == before
    bench.path.note_read(read_words(found))
    assert [user for user in bench.sweep_all()[0]] == [b"ann", b"ben"]


def test_a_request_waits_for_the_words_of_a_stale_profile(bench: Bench) -> None:
    bench.apply(*STORY)
    swap(bench)
    asked = [(b"ann", Request("r1", "ann"), Cause("request", "r1", "requests-id", 0, 3))]
    found = bench.path.answer(bench.source, asked, NOW_S)
    assert isinstance(found, Unread)
    bench.path.note_read(read_words(found))
    assert names(bench.ask("ann"))


def test_what_is_owed_to_a_stale_profile_waits_for_the_sweep(open_bench: OpenBench) -> None:
    bench = open_bench(user_interval_s=60.0)
    bench.apply(*STORY, make_event("ben", 1, "i1"))
    bench.apply(make_event("ann", 8, "i8"), make_event("ben", 8, "i8"))
    swap(bench)
    later = bench.path.flush_due(bench.source, NOW_S + 120)
    assert [message.key for message in later.outputs] == [b"ben"]
    wanted = bench.path.upkeep.sweep(bench.source, None, 8, NOW_S)
    assert isinstance(wanted, Unread)
    bench.path.note_read(read_words(wanted))
    assert [m.key for m in bench.path.flush_due(bench.source, NOW_S + 120).outputs] == [b"ann"]


def test_an_interest_declared_to_a_stale_profile_does_not_wait_for_its_words(bench: Bench) -> None:
    path, source = bench.path, bench.source
    bench.apply(*STORY)
    swap(bench)
    path.upkeep.declare(source, [(b"ann", "songs")], word_vectors(["songs"]), path.serving, NOW_S)
    assert bench.record("ann")["release"][0] != path.serving.key
    assert bench.record("ann")["interest_release"][0] == path.serving.key


def test_each_arm_of_a_canary_reads_for_its_own_users(bench: Bench) -> None:
    catalog = bench.path.catalog
    bench.path.canary = Canary(make_space(catalog, seed=5), 0.5)
    events = [said(f"user-{n}", 1, f"words {n}") for n in range(20)]
    decoded = decode_chunk([make_record(n, each) for n, each in enumerate(events)], RULES, NOW_S)
    found = bench.path.apply([Part(bench.source, decoded, 20)], NOW_S)
    assert isinstance(found, Unread)
    (serving, ours), (canary, theirs) = found.texts
    assert (serving, canary) == (bench.path.serving, bench.path.canary.space)
    assert len(ours) + len(theirs) == 20
    assert not set(ours) & set(theirs)
    assert ours
    assert theirs


# --- the reader ---------------------------------------------------------------------------------


class CountingModel:
    """A language model that notes how much it is given at a time."""

    def __init__(self) -> None:
        self.slices: list[int] = []

    async def encode(self, adapter: Path, texts: list[str]) -> Floats:
        self.slices.append(len(texts))
        return word_vectors(texts)


class Watched:
    """What the reader needs of a delivery."""

    progress_at = -1.0


def test_a_long_reading_is_done_in_slices_and_counts_as_progress() -> None:
    metrics, model, watched = WorkerMetrics(CollectorRegistry()), CountingModel(), Watched()
    reader = TextReader(cast(LanguageModel, model), cast(Delivery, watched), metrics)
    space, texts = make_space(make_catalog(3)), [f"words {n}" for n in range(300)]
    ((place, read_texts, vectors),) = asyncio.run(reader.read(Unread([(space, texts)])))
    assert model.slices == [128, 128, 44]
    assert (place, read_texts) == (space, texts)
    assert np.array_equal(vectors, word_vectors(texts))
    assert watched.progress_at > 0
    assert metrics.registry.get_sample_value("driftline_texts_read_total") == 300
