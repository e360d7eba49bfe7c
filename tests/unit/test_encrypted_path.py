"""The event path with encryption on: the same profiles and answers, none of them in the clear."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from profiles.answers import Recommendation, Request
from profiles.errors import SealError
from profiles.key_file import VersionedKeys
from profiles.key_store import KeyMap, KeyStore
from profiles.sealing import PROFILE, RECOMMENDATION, MasterKeys, is_sealed
from profiles.state import decode_records, empty_records, encode_records
from profiles.store import PartitionStore, Watermark
from profiles.wire import decode_json
from stream.codecs import Rules, decode_chunk
from stream.event_path import EventPath
from stream.messages import Cause
from stream.restore import absorb
from stream.source import Outcome, Part, Source
from tests.unit.builders import (
    ACTIONS,
    LAYOUT,
    NOW_S,
    at_once,
    make_event,
    make_path,
    make_record,
    make_space,
)

pytestmark = pytest.mark.unit

SERVICE = MasterKeys(VersionedKeys({1: bytes(range(32))}))
CODES = {name: at for at, name in enumerate(ACTIONS)}
EVENTS = [
    make_event(user, number, f"i{number + 3}") for number in range(5) for user in ("ann", "bob")
]

OpenSource = Callable[..., Source]


@pytest.fixture
def open_source(tmp_path: Path) -> Iterator[OpenSource]:
    opened: list[Source] = []

    def make(name: str = "a", *, encrypted: bool = True) -> Source:
        store = PartitionStore(tmp_path / name / "partition-0")
        keys = KeyStore(tmp_path / name / "keys-0", SERVICE) if encrypted else None
        opened.append(Source(0, store, "events", "events-id", keys=keys))
        return opened[-1]

    yield make
    for source in opened:
        source.store.close()
        if source.keys is not None:
            source.keys.close()


@pytest.fixture
def path() -> EventPath:
    return make_path()


def play(path: EventPath, source: Source, start: int = 0) -> Outcome:
    """Apply EVENTS from an offset on, as a chunk."""
    records = [make_record(n, event) for n, event in enumerate(EVENTS) if n >= start]
    decoded = decode_chunk(records, Rules(CODES, 10_000, 1e9), NOW_S)
    return at_once(path.apply([Part(source, decoded, len(EVENTS))], NOW_S))[0]


def readers(source: Source, outcome: Outcome | None = None) -> KeyMap:
    """Who follows the keys topic."""
    keys = KeyMap(SERVICE)
    for message in [*(outcome.keys if outcome else ()), *source.take_keys()]:
        keys.take(message.key, message.value)
    return keys


def test_profiles_and_answers_are_those_of_a_plain_worker_and_none_is_in_the_clear(
    path: EventPath, open_source: OpenSource
) -> None:
    plain, secret = open_source("plain", encrypted=False), open_source()
    expected, outcome = play(path, plain), play(path, secret)
    keys = readers(secret, outcome)
    for ours, theirs in ((outcome.changelog, PROFILE), (outcome.outputs, RECOMMENDATION)):
        assert ours
        for message, other in zip(
            ours,
            expected.changelog if theirs == PROFILE else expected.outputs,
            strict=True,
        ):
            assert is_sealed(message.value)
            assert message.key is not None
            opened = keys.sealer.open(theirs, message.key, message.value)
            assert (message.key, opened) == (other.key, other.value)
    stored = dict(secret.store.scan())
    assert all(map(is_sealed, stored.values()))
    # What was applied goes on from what is stored.
    assert play(path, secret).outputs
    assert path._metrics.registry.get_sample_value(
        "driftline_duplicate_events_total", {"kind": "offset"}
    ) == len(EVENTS)


def test_another_worker_restores_what_it_can_open_and_counts_what_it_cannot(
    path: EventPath, open_source: OpenSource
) -> None:
    first, second = open_source("a"), open_source("b")
    outcome = play(path, first)
    assert second.keys is not None
    sent = [(message.key or b"", message.value) for message in outcome.keys]
    kept = [pair for pair in sent if pair[0].startswith(b"bob")]
    second.keys.absorb(kept, len(sent))
    log = [(message.key or b"", message.value) for message in outcome.changelog]
    assert absorb(second.store, LAYOUT, log, len(log), second.keys) == 1
    assert [user for user, _ in second.store.scan()] == [b"bob"]
    assert second.store.check() == second.store.watermark.count == 1
    (payload,), _ = second.stored([b"bob"])
    assert decode_records(LAYOUT, [payload or b""])[0]["events"][0] == 5
    # Swapped between users, neither opens.
    swapped = [(log[0][0], log[1][1]), (log[1][0], log[0][1])]
    assert absorb(second.store, LAYOUT, swapped, 9, second.keys) == 2


def test_an_answer_to_a_stranger_brings_her_key_along(
    path: EventPath, open_source: OpenSource
) -> None:
    source = open_source()
    asked = (b"new", Request("r1", "new"), Cause("request", "r1", "requests-id", 0, 3))
    (answer,) = at_once(path.answer(source, [asked], NOW_S))
    opened = readers(source).sealer.open(RECOMMENDATION, b"new", answer.value)
    assert decode_json(opened or b"", Recommendation).user_id == "new"


def test_a_profile_whose_key_is_gone_is_begun_anew_and_counted_once(
    path: EventPath, open_source: OpenSource
) -> None:
    source = open_source()
    play(path, source)
    assert source.keys is not None
    source.keys.remove([b"ann"])
    play(path, source)
    assert source.store.check() == source.store.watermark.count == 2
    (ann, bob), fresh = source.stored([b"ann", b"bob"])
    assert fresh == [False, False]
    assert decode_records(LAYOUT, [ann or b"", bob or b""])[0]["events"].tolist() == [5, 5]


def test_plain_profiles_are_sealed_by_their_next_event(
    path: EventPath, open_source: OpenSource
) -> None:
    source = open_source()
    source.store.write(
        [b"ann"],
        encode_records(LAYOUT, empty_records(LAYOUT, 1)),
        Watermark(count=1),
    )
    play(path, source)
    assert all(is_sealed(payload) for _, payload in source.store.scan())
    assert source.store.check() == 2


def test_a_sweep_reads_what_is_sealed(path: EventPath, open_source: OpenSource) -> None:
    source = open_source()
    play(path, source)
    assert at_once(path.upkeep.sweep(source, None, 10, NOW_S))[0] == []
    path.space = make_space(path.catalog, seed=5)
    messages, after, _ = at_once(path.upkeep.sweep(source, None, 10, NOW_S))
    assert (len(messages), after) == (2, None)
    assert at_once(path.upkeep.sweep(source, None, 10, NOW_S))[0] == []


def test_encrypted_profiles_without_a_master_key_say_what_is_missing(
    path: EventPath, open_source: OpenSource
) -> None:
    source = open_source()
    play(path, source)
    with pytest.raises(SealError, match=r"privacy\.encryption"):
        decode_records(LAYOUT, [payload for _, payload in source.store.scan()])
