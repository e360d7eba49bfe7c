"""The door from bytes to a message: what passes it is well-formed, what does not has a reason."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from profiles.answers import decode_request, output_id
from profiles.erasures import decode_erasure
from profiles.errors import BadMessage
from profiles.events import Event, decode_event
from profiles.items import decode_item, decode_user
from profiles.notices import decode_notice
from profiles.wire import MAX_CONTEXT_FIELDS, MAX_ID_LENGTH, check_key, encode, key64

pytestmark = pytest.mark.unit

NOW_S = 1_700_000_000.0
GOOD = {"event_id": "e1", "user_id": "u1", "item_id": "i1", "action": "view", "ts": 1.6e9}

texts = st.text(st.characters(codec="utf-8", exclude_characters="\x00"), min_size=1, max_size=20)
times = st.floats(min_value=0, max_value=NOW_S)


# Any: what JSON can hold.
def event_bytes(**changes: Any) -> bytes:
    """A good event with some fields changed."""
    return json.dumps({**GOOD, **changes}).encode()


def decode(payload: bytes | None) -> Event:
    return decode_event(payload, now_s=NOW_S, max_ahead_s=300.0)


def reason(payload: bytes | None) -> str:
    with pytest.raises(BadMessage) as bad:
        decode(payload)
    return bad.value.reason


def test_a_good_event_passes_whole() -> None:
    event = decode(event_bytes(value=4, session_id="s", context={"page": 3, "ab": None}))
    assert (event.value, event.session_id, event.context) == (4.0, "s", {"page": 3, "ab": None})


def test_fields_we_do_not_know_are_ignored() -> None:
    assert decode(event_bytes(colour="green")) == decode(event_bytes())


@pytest.mark.parametrize("payload", [None, b""])
def test_no_payload_is_empty(payload: bytes | None) -> None:
    assert reason(payload) == "empty"


@pytest.mark.parametrize(
    "payload",
    [
        b"not json",
        b"\xff\xfe",
        event_bytes()[:-1],
        event_bytes() + b"x",
        event_bytes(ts=float("nan")),  # NaN and Infinity are no JSON
        event_bytes(ts=float("inf")),
        event_bytes(value=float("-inf")),
        b'{"event_id":"\\ud800"}',  # a lone surrogate, which no UTF-8 reader can hold
        b'{"event_id":"\xed\xa0\x80"}',  # the same, as bytes
        b'{"event_id":"a\x00b"}',
        b'{"deep":' * 100_000,
        b'{"deep":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
    ids=lambda payload: repr(payload[:24]),
)
def test_what_is_not_json_is_malformed(payload: bytes) -> None:
    assert reason(payload) == "malformed"


@pytest.mark.parametrize(
    "payload",
    [
        b"[]",
        b"3",
        b"{}",
        event_bytes(user_id=None),
        event_bytes(user_id=7),
        event_bytes(user_id=""),
        event_bytes(user_id="u" * (MAX_ID_LENGTH + 1)),
        event_bytes(session_id="s" * (MAX_ID_LENGTH + 1)),
        event_bytes(ts="2020-01-01"),
        event_bytes(ts=None),
        event_bytes(value="five"),
        event_bytes(value=True),
        event_bytes(context={"nested": {}}),
        event_bytes(context={str(n): n for n in range(MAX_CONTEXT_FIELDS + 1)}),
        event_bytes().replace(b"1600000000.0", b"1e400"),
        event_bytes().replace(b"1600000000.0", b"9" * 400),
        event_bytes(context={"n": 1}).replace(b": 1}", b": " + b"9" * 5000 + b"}"),
    ],
    ids=lambda payload: repr(payload[:60]),
)
def test_what_does_not_fit_the_schema_is_invalid(payload: bytes) -> None:
    assert reason(payload) == "invalid"


@pytest.mark.parametrize("field", ["event_id", "user_id", "item_id", "action"])
def test_a_nul_in_an_id_is_bad_text(field: str) -> None:
    assert reason(event_bytes(**{field: "a\x00b"})) == "bad-text"


def test_the_letters_u0000_after_a_backslash_are_no_nul() -> None:
    assert decode(event_bytes(item_id="\\u0000")).item_id == "\\u0000"


@pytest.mark.parametrize("value", [1e31, -1e31, 1e308])
def test_a_value_that_float32_cannot_keep_is_bad(value: float) -> None:
    assert reason(event_bytes(value=value)) == "bad-value"


def test_an_event_may_be_a_little_ahead_and_no_more() -> None:
    assert decode(event_bytes(ts=NOW_S + 299)).ts == NOW_S + 299
    assert reason(event_bytes(ts=NOW_S + 301)) == "future-dated"
    assert reason(event_bytes(ts=NOW_S * 1000)) == "future-dated"  # milliseconds by mistake
    assert reason(event_bytes(ts=1e308)) == "future-dated"


def test_a_time_before_1970_is_bad() -> None:
    assert reason(event_bytes(ts=-1)) == "bad-time"


def test_infinite_item_vectors_cannot_enter() -> None:
    with pytest.raises(BadMessage) as bad:
        decode_item(b'{"item_id":"i","vectors":{"image":[1.0,1e300]}}')
    assert bad.value.reason == "bad-value"


@given(
    st.builds(
        Event,
        event_id=texts,
        user_id=texts,
        item_id=texts,
        action=texts,
        ts=times,
        value=st.none() | st.floats(-1e30, 1e30),
        session_id=st.none() | texts,
        context=st.none() | st.dictionaries(texts, st.booleans() | st.none() | texts, max_size=4),
    )
)
def test_an_event_survives_its_encoding(event: Event) -> None:
    assert decode(encode(event)) == event


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=10,
)
nearly_events = st.dictionaries(st.sampled_from(sorted(GOOD)), json_values, max_size=2).map(
    lambda changes: json.dumps({**GOOD, **changes}).encode()
)


@given(st.binary() | json_values.map(lambda value: json.dumps(value).encode()) | nearly_events)
@example(b"\xef\xbb\xbf{}")
@example(b'"\\ud800\\u0000"')
def test_whatever_the_bytes_the_door_passes_them_or_raises_bad_message(payload: bytes) -> None:
    event: Event | None = None
    with contextlib.suppress(BadMessage):
        event = decode(payload)
    if event is not None:
        assert decode(encode(event)) == event
    for door in (decode_item, decode_user, decode_request, decode_erasure, decode_notice):
        with contextlib.suppress(BadMessage):
            encode(door(payload))


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_a_key_holds_no_nul_and_no_lone_surrogate(text: str) -> None:
    with pytest.raises(BadMessage) as bad:
        check_key(text)
    assert bad.value.reason == "bad-text"


@given(st.text())
def test_a_key64_is_never_the_zero_that_means_none(text: str) -> None:
    assert 0 < key64(text) < 2**64


def test_output_ids_tell_their_causes_apart() -> None:
    ids = {output_id(t, p, o, r) for t in "ab" for p in (0, 1) for o in (0, 1) for r in "cd"}
    assert len(ids) == 16
