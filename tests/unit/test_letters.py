"""Dead letters: what was refused comes out as it went in, and a user's are told from the rest."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stream.codecs import DeadLetter
from stream.letters import (
    PREFIX,
    Headers,
    Original,
    is_tombstone,
    original_of,
    place,
    standing,
    to_record,
    told,
    users_in,
)
from stream.letters_of_users import Found
from stream.oracle.records import Raw
from stream.publisher import Message
from tests.unit.builders import make_record

pytestmark = pytest.mark.unit

headers = st.lists(st.tuples(st.sampled_from(["trace", "ce_id", PREFIX + "offset"]), st.binary()))


def letter(
    offset: int,
    key: bytes | None,
    value: bytes | None,
    sent: Headers = (),
    at: int | None = None,
) -> Raw:
    """As a worker would write it, standing at `at`."""
    record = make_record(offset, value, key)
    record.headers = tuple(sent)
    made = to_record(DeadLetter(record, "malformed", "no JSON"), "shop.events.v1", 3)
    return Raw(3, offset if at is None else at, 0, made[0], made[1], tuple(made[2]))


def old_letter(offset: int, key: bytes | None, value: bytes | None) -> Raw:
    """As workers wrote them before: under the original's key."""
    told = {"topic": b"shop.events.v1", "offset": b"%d" % offset}
    return Raw(3, offset, 0, key, value, tuple((PREFIX + n, v) for n, v in told.items()))


def tombstone(offset: int, key: bytes) -> Raw:
    return Raw(3, offset, 0, key, None)


@given(st.none() | st.binary(), st.none() | st.binary(), headers)
def test_what_was_refused_comes_out_as_it_went_in(
    key: bytes | None, value: bytes | None, sent: Sequence[tuple[str, bytes]]
) -> None:
    found = letter(7, key, value, sent)
    # What a compacted topic takes: a key of its own, and no null.
    assert found.key == b"3/7"
    assert found.value is not None
    own = [pair for pair in sent if not pair[0].startswith(PREFIX)]
    assert original_of(found) == Original(key, value, own)
    assert (told(found, "offset"), told(found, "exception.class.name")) == ("7", "malformed")
    assert len({name for name, _ in found.headers if name.startswith(PREFIX)}) == len(
        [name for name, _ in found.headers if name.startswith(PREFIX)]
    )


@pytest.mark.parametrize("value", [b"{", b"", None])
@pytest.mark.parametrize("key", [b"ann", None])
def test_letters_of_before_are_read_as_they_are(key: bytes | None, value: bytes | None) -> None:
    found = old_letter(7, key, value)
    assert original_of(found) == Original(key, value, [])
    assert not is_tombstone(found)


def test_a_tombstone_deletes_the_letter_before_it_and_not_the_one_behind() -> None:
    topic = [
        letter(5, b"ann", b"{", at=0),
        letter(6, b"bob", b"{", at=1),
        old_letter(2, b"cid", None),
        tombstone(3, place(3, 5)),
        letter(5, b"ann", b"{again", at=4),
        tombstone(5, place(3, 6)),
        old_letter(6, b"cid", b"["),
    ]
    found = list(standing(iter(topic), iter(topic)))
    assert [original_of(raw).key for raw in found] == [b"cid", b"ann", b"cid"]
    assert original_of(found[1]).value == b"{again"


@pytest.mark.parametrize(
    ("key", "value", "is_hers"),
    [
        (b"ann", b"not JSON at all", True),
        (b"bob", b'{"user_id": "ann", "ts": 1', True),
        (None, b'{"user_id":"\\u0061nn"}', True),
        (b"bob", b'{"user_id":"bob","context":{"friend":"ann"}}', True),
        (b"bob", b'{"user_id":"annette","item_id":"an"}', False),
        (b"annette", b"ann", False),
        (b"bob", None, False),
    ],
)
def test_a_letter_is_hers_by_its_key_or_a_string_in_its_payload(
    key: bytes | None, value: bytes | None, is_hers: bool
) -> None:
    users = {b"ann", b"somebody"}
    assert users_in(letter(1, key, value), users) == ({b"ann"} if is_hers else set())


@given(st.text(min_size=1, max_size=8).filter(lambda text: "\x00" not in text))
def test_an_id_is_found_however_json_writes_it(user: str) -> None:
    try:
        name = user.encode()
    except UnicodeEncodeError:
        return
    for is_ascii in (True, False):
        payload = json.dumps({"user_id": user}, ensure_ascii=is_ascii).encode()
        assert users_in(letter(1, b"x" * 20, payload), {name}) == {name}


def test_an_erasure_sends_one_tombstone_for_each_of_her_letters_and_spares_others() -> None:
    found, topic = Found(), "shop.events.v1.dlq"
    for raw in (
        letter(1, b"ann", b"{"),
        letter(2, b"bob", b'{"user_id":"ann"}'),
        letter(3, b"bob", b"{"),
        old_letter(4, b"ann", b"["),
        old_letter(5, b"ann", b"{"),
        old_letter(6, b"bob", b'["ann"]'),  # its key is all of bob's old letters'
        tombstone(7, b"ann"),
    ):
        found.take(topic, 3, raw, {b"ann"})
    keys = [b"3/1", b"3/2", b"ann"]
    assert found.tombstones == {(topic, 3): [Message(key, None) for key in keys]}
    assert found.counts == {b"ann": 4}
