"""An erased user stays erased: whatever is read again, whoever writes late, wherever restored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import pytest

from profiles.fences import Fence, Fences, record_of
from profiles.key_file import VersionedKeys
from profiles.key_store import KeyStore
from profiles.sealing import MasterKeys
from profiles.store import PartitionStore
from stream.admission import admit
from stream.codecs import Rules, decode_chunk
from stream.erasing import erase_user
from stream.event_path import EventPath
from stream.publisher import Message
from stream.restore import absorb
from stream.source import Outcome, Part, Source
from tests.unit.builders import ACTIONS, LAYOUT, NOW_S, at_once, make_event, make_path, make_record

pytestmark = pytest.mark.unit

ITEMS = 30
"""Of the catalogue of `make_path`."""
SERVICE = MasterKeys(VersionedKeys({1: bytes(range(32))}))
CODES = {name: at for at, name in enumerate(ACTIONS)}
RULES = Rules(CODES, 10_000, 1e9)
Mode = Literal["accept", "forget", "refuse"]
OpenSource = Callable[[str], Source]


@pytest.fixture
def path() -> EventPath:
    return make_path()


@pytest.fixture(params=["plain", "encrypted"])
def open_source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenSource]:
    opened: list[Source] = []

    def make(name: str) -> Source:
        store = PartitionStore(tmp_path / name / "partition-0")
        keys = None
        if request.param == "encrypted":
            keys = KeyStore(tmp_path / name / "keys-0", SERVICE)
        opened.append(Source(0, store, "events", "events-id", keys=keys))
        return opened[-1]

    yield make
    for source in opened:
        source.store.close()
        if source.keys is not None:
            source.keys.close()


class Kafka:
    """What was sent, in order."""

    def __init__(self) -> None:
        self.keys: list[tuple[bytes, bytes | None]] = []
        self.changelog: list[tuple[bytes, bytes | None]] = []

    def take(self, outcome: Outcome) -> None:
        for log, messages in ((self.keys, outcome.keys), (self.changelog, outcome.changelog)):
            log += [(message.key or b"", message.value) for message in messages]

    def restored_by(self, source: Source) -> Source:
        if source.keys is not None:
            source.keys.absorb(self.keys, len(self.keys))
        source.fences.take(source.store.fences())
        absorb(
            source.store, LAYOUT, self.changelog, len(self.changelog), source.keys, source.fences
        )
        source.store.check()
        return source


def apply(
    path: EventPath,
    source: Source,
    users: list[str],
    start: int = 0,
    mode: Mode = "accept",
) -> tuple[Outcome, list[str]]:
    """Apply one event of each, the first at offset `start`.  Also: reasons of dead letters."""
    records = [
        make_record(start + at, make_event(user, start + at, f"i{(start + at) % ITEMS}"))
        for at, user in enumerate(users)
    ]
    decoded = decode_chunk(records, RULES, NOW_S)
    if source.fences:
        decoded, _ = admit(decoded, source.fences, source.topic_key, mode)
    part = Part(source, decoded, start + len(users))
    (outcome,) = at_once(path.apply([part], NOW_S))
    return outcome, [letter.reason for letter in decoded.dead]


def stored(source: Source) -> list[bytes]:
    return [user for user, _ in source.store.scan()]


def test_events_read_again_do_not_bring_an_erased_user_back(
    path: EventPath,
    open_source: OpenSource,
) -> None:
    source, kafka = open_source("a"), Kafka()
    kafka.take(apply(path, source, ["ann", "bob"])[0])
    outcome, erased = erase_user(source, b"ann", end=2, request=0, now_s=NOW_S)
    kafka.take(outcome)
    assert erased["profiles"] == 1
    assert outcome.outputs == [Message(b"ann", None)]
    apply(path, source, ["ann", "bob"])
    assert stored(source) == [b"bob"]
    # Neither here, nor at the next owner, nor where the store is rebuilt.
    elsewhere = kafka.restored_by(open_source("b"))
    assert stored(elsewhere) == [b"bob"]
    apply(path, elsewhere, ["ann", "bob"])
    assert stored(elsewhere) == [b"bob"]
    # What comes afterwards begins anew, and survives a restore.
    kafka.take(apply(path, elsewhere, ["ann"], start=2)[0])
    assert stored(kafka.restored_by(open_source("c"))) == [b"ann", b"bob"]


def test_the_late_record_of_a_suspended_worker_is_passed_over(
    path: EventPath,
    open_source: OpenSource,
) -> None:
    owner, suspended, kafka = open_source("a"), open_source("b"), Kafka()
    kafka.take(apply(path, owner, ["ann", "bob"])[0])
    kafka.restored_by(suspended)
    late, _ = apply(path, suspended, ["ann"], start=2)
    kafka.take(erase_user(owner, b"ann", end=3, request=0, now_s=NOW_S)[0])
    kafka.take(late)
    assert stored(kafka.restored_by(open_source("c"))) == [b"bob"]


@pytest.mark.parametrize(("mode", "reasons"), [("forget", []), ("refuse", ["erased"])])
def test_later_events_are_forgotten_or_refused_without_their_contents(
    path: EventPath,
    open_source: OpenSource,
    mode: Mode,
    reasons: list[str],
) -> None:
    source = open_source("a")
    apply(path, source, ["ann", "bob"])
    erase_user(source, b"ann", end=2, request=0, now_s=NOW_S)
    _, dead = apply(path, source, ["bob", "ann"], start=2, mode=mode)
    assert dead == reasons
    assert stored(source) == [b"bob"]
    records = [make_record(9, make_event("ann", 9, "i1"))]
    decoded = decode_chunk(records, RULES, NOW_S)
    admitted, counts = admit(decoded, source.fences, source.topic_key, mode)
    assert sum(counts.values()) == 1
    for letter in admitted.dead:
        assert (letter.record.key, letter.record.value, letter.record.offset) == (None, None, 9)
        assert "ann" not in letter.detail


@pytest.mark.parametrize(
    ("mode", "late"), [("accept", "malformed"), ("forget", None), ("refuse", "erased")]
)
def test_what_cannot_be_used_of_hers_leaves_no_letter_with_its_contents(
    path: EventPath, open_source: OpenSource, mode: Mode, late: str | None
) -> None:
    source = open_source("a")
    apply(path, source, ["ann", "bob"])
    erase_user(source, b"ann", end=4, request=0, now_s=NOW_S)
    records = [
        make_record(offset, b"not JSON", user)
        for offset, user in ((2, "ann"), (3, "bob"), (4, "ann"))
    ]
    admitted, counts = admit(
        decode_chunk(records, RULES, NOW_S), source.fences, source.topic_key, mode
    )
    assert counts["before"] == 1
    letters = {letter.record.offset: letter for letter in admitted.dead}
    assert letters[3].record.value == b"not JSON"
    assert (letters[4].reason if 4 in letters else None) == late
    if late == "erased":
        assert (letters[4].record.key, letters[4].record.value) == (None, None)


def test_a_repeated_request_sends_the_same_again_and_leaves_what_began_since(
    path: EventPath,
    open_source: OpenSource,
) -> None:
    source = open_source("a")
    apply(path, source, ["ann", "bob"])
    first, _ = erase_user(source, b"ann", end=2, request=5, now_s=NOW_S)
    again, erased = erase_user(source, b"ann", end=4, request=5, now_s=NOW_S + 9)
    assert again == first
    assert erased["profiles"] == 0
    assert source.store.check() == source.store.watermark.count == 1
    apply(path, source, ["ann"], start=2)
    assert erase_user(source, b"ann", end=9, request=5, now_s=NOW_S)[0].outputs == []
    assert stored(source) == [b"ann", b"bob"]
    # A new request is one.
    assert erase_user(source, b"ann", end=9, request=6, now_s=NOW_S)[1]["profiles"] == 1
    assert stored(source) == [b"bob"]


def test_no_file_of_the_store_holds_an_erased_user(
    path: EventPath,
    open_source: OpenSource,
    tmp_path: Path,
) -> None:
    source, name = open_source("a"), "ann-0123456789"
    others = [f"user-{number}" for number in range(200)]
    apply(path, source, [name, *others])
    source.store.flush()
    apply(path, source, [name, *others], start=300)
    erase_user(source, name.encode(), end=600, request=0, now_s=NOW_S)
    source.purge([name.encode()])
    for file in tmp_path.rglob("*"):
        assert not file.is_file() or name.encode() not in file.read_bytes(), file
    assert source.store.check() == len(others)


def test_fences_of_another_topic_do_not_hold_its_events_back() -> None:
    fences = Fences()
    fences.take([record_of(b"ann", Fence(1, 10, 0, 0.0)), (b"bob", b"x")])
    assert fences.holds_back(b"ann", 1, 9)
    assert not fences.holds_back(b"ann", 1, 10)
    assert not fences.holds_back(b"ann", 2, 9)
    assert not fences.holds_back(b"bob", 1, 0)
