"""Whatever bytes arrive, a decoder gives a message or a reason, never anything else.

Bytes are drawn by Hypothesis and, cheaper and many more, made from good messages by a seeded
mutator: bits, cuts, repetitions, and tokens that parsers trip over.  What a worker accepts or
refuses is compared with the oracle's own rules, written a second time on plain `json`: two
readings of the contract that disagree anywhere would make a worker and its oracle disagree.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from profiles.answers import Filters, Request, decode_request
from profiles.config import load_settings
from profiles.erasures import Erasure, decode_erasure
from profiles.errors import BadMessage
from profiles.events import Event, decode_event
from profiles.items import Item, User, decode_item, decode_user
from profiles.notices import ReleaseNotice, decode_notice
from profiles.wire import encode
from stream.codecs import Rules, decode_chunk
from stream.oracle.catalogue import read_catalogue
from stream.oracle.ledger import keep_ledger
from stream.oracle.records import Raw
from tests.faults.record import Record
from tests.unit.builders import ACTIONS, NOW_S, make_record

pytestmark = pytest.mark.unit

SHORT, LONG = 20_000, 1_000_000
CHUNK = 50
REASONS = {"empty", "malformed", "invalid", "bad-text", "bad-value", "bad-time", "future-dated"}
RULES = Rules({name: at for at, name in enumerate(ACTIONS)}, 10_000, 300.0)
EVENT = Event("e1", "u1", "i1", "click", NOW_S, 4.5, "s1", {"page": "home", "n": 3, "ok": True})
GOOD: tuple[tuple[msgspec.Struct, Callable[[bytes], msgspec.Struct]], ...] = (
    (EVENT, lambda payload: decode_event(payload, now_s=NOW_S, max_ahead_s=300.0)),
    (
        Item("i1", "Title", "Text", ["tale"], {"year": 1999}, vectors={"image": [0.5, 1.0]}),
        decode_item,
    ),
    (User("u1", "old songs", {"age": 7}), decode_user),
    (Request("r1", "u1", 5, Filters(["tale"], ["song"], False), ["i2"]), decode_request),
    (Erasure("x1", "u1", NOW_S, "asked"), decode_erasure),
    (ReleaseNotice("r00001-0", "serving", 1, "file:///x", metrics={"ndcg": 0.1}), decode_notice),
)
TOKENS = (
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\xef\xbb\xbf",
    ),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0", b"0x1", b"1" * 400, b"1e-400"),
    *(
        b'"\\ud800"',
        b'"\\u0000"',
        b'"\\udc00\\ud800"',
        b"[" * 2_000,
        b'{"a":' * 2_000,
        b" " * 3_000,
    ),
    *(b'"ts":-1', b'"value":1e31', b'"event_id":""', b'"user_id":' + b'"u' * 300 + b'"'),
)


def mutated(chance: random.Random, good: bytes) -> bytes:
    """One to four small harms."""
    payload = bytearray(good)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(payload) + 1)
        end = min(len(payload), at + chance.randint(1, 12))
        match chance.randrange(6):
            case 0 if payload:
                payload[at % len(payload)] ^= 1 << chance.randrange(8)
            case 1:
                del payload[at:end]
            case 2:
                payload[at:at] = payload[at:end]
            case 3:
                payload[at:end] = chance.choice(TOKENS)
            case 4:
                payload[at:at] = chance.choice(TOKENS)
            case _:
                del payload[at:]
    return bytes(payload)


def check(decode: Callable[[bytes], msgspec.Struct], payload: bytes) -> bool:
    """Whether it was accepted; nothing but a `BadMessage` may be raised."""
    try:
        message = decode(payload)
    except BadMessage as error:
        refused = error
    else:
        assert decode(encode(message)) == message
        return True
    assert refused.reason in REASONS
    assert str(refused).encode("utf-8", "backslashreplace")  # it goes into a header
    return False


@pytest.mark.parametrize(("good", "decode"), GOOD, ids=[type(good).__name__ for good, _ in GOOD])
@pytest.mark.timeout(3600)
def test_no_harm_to_a_message_is_more_than_a_refusal(
    good: msgspec.Struct,
    decode: Callable[[bytes], msgspec.Struct],
    request: pytest.FixtureRequest,
    record: Record,
) -> None:
    count = LONG if request.config.getoption("--long") else SHORT
    chance, payload = random.Random(11), encode(good)
    assert check(decode, payload)
    accepted = sum(check(decode, mutated(chance, payload)) for _ in range(count // len(GOOD) + 1))
    assert 0 < accepted < count  # the mutator leaves some as they should be
    record.note(f"mutated {type(good).__name__}s", count // len(GOOD) + 1, accepted=accepted)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=8,
)
event_like = st.fixed_dictionaries(
    {},
    optional={
        name: json_values | st.sampled_from(["u1", "click", "i1", 1.0, NOW_S, -1, 1e31])
        for name in Event.__struct_fields__
    },
)


def as_json(value: Any) -> bytes:
    """JSON as Python writes it: with NaN, Infinity and lone surrogates where there are any."""
    import json

    return json.dumps(value).encode()


@settings(max_examples=300)
@given(st.binary(max_size=200) | event_like.map(as_json) | json_values.map(as_json))
@example(b'{"event_id":"e","user_id":"u1","item_id":"i1","action":"click","ts":1e999}')
@example(b'{"event_id":"e","user_id":"u1","item_id":"i1","action":"click","ts":true}')
@example(b"\xef\xbb\xbf{}")
def test_any_bytes_are_a_message_or_a_reason(payload: bytes) -> None:
    for _, decode in GOOD:
        check(decode, payload)
    decoded = decode_chunk([make_record(0, payload, "u1")], RULES, NOW_S)
    assert len(decoded.events) + len(decoded.dead) == 1


def made_settings() -> Any:
    return load_settings(
        actions={"click": 0.5, "hide": -1.0, "like": 1.0}, serving={"max_message_bytes": 10_000}
    )


CATALOGUE = read_catalogue([Raw(0, 0, 0, b"i1", encode(Item("i1", "Title")))])
SETTINGS = made_settings()


@pytest.mark.timeout(3600)
def test_worker_and_oracle_read_the_contract_alike(
    request: pytest.FixtureRequest, record: Record
) -> None:
    count = (LONG if request.config.getoption("--long") else SHORT) // 4
    chance, good = random.Random(13), encode(EVENT)
    seen: Counter[str] = Counter()
    for _ in range(count // CHUNK):
        payloads = [mutated(chance, good) for _ in range(CHUNK)]
        seen += compare(payloads)
    assert seen["fine"] > 0
    assert len(seen) >= 6, seen
    record.note("mutated Events, worker against oracle", count // CHUNK * CHUNK)


@pytest.mark.parametrize(
    "field",
    [
        rb'"\udc00\ud800":{"page":"home"}',
        rb'"more":"\ud800"',
        rb'"more":[{"\ud800":1}]',
        rb'"\ud83d\ude00":1',
        b'"\xff":1',
        b'"more":"\xff"',
    ],
)
def test_worker_and_oracle_agree_on_text_that_is_none_in_a_field_of_no_meaning(
    field: bytes,
) -> None:
    compare([encode(EVENT)[:-1] + b"," + field + b"}"])


@settings(max_examples=200)
@given(st.lists(event_like.map(as_json), min_size=1, max_size=5))
def test_worker_and_oracle_agree_on_what_looks_like_an_event(payloads: list[bytes]) -> None:
    compare(payloads)


def compare(payloads: list[bytes]) -> Counter[str]:
    """Dead at the worker is dead for the oracle, and the other way round; what came of them."""
    records = [make_record(at, payload, "u1") for at, payload in enumerate(payloads)]
    decoded = decode_chunk(records, RULES, NOW_S)
    told = {(0, letter.record.offset): letter.reason for letter in decoded.dead}
    raws = [Raw(0, at, int(NOW_S * 1000), b"u1", each) for at, each in enumerate(payloads)]
    ledger = keep_ledger(raws, CATALOGUE, SETTINGS, told)
    # Items are the catalogue's business, which comes after decoding.
    dead = {place for place, reason in ledger.dead.items() if reason != "unknown-item"}
    differing = [payloads[at] for _, at in dead ^ told.keys()]
    assert not differing, differing[:3]
    return Counter(told.values()) + Counter(fine=len(decoded.events))
