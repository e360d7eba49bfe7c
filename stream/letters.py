"""A dead letter as a record: written by workers, read by everybody who looks at dead letters.

Its key is the place of the original, `PARTITION/OFFSET`, and what the original's key was stands in
a header: so every letter has a key of its own on a compacted topic, a letter that is sent again
replaces itself, and an erasure can delete one by a tombstone.  The value is the original's; one
that was null is empty here, with a header that says so, since null would be that tombstone.  All
our headers begin with Kafka Connect's prefix for errors, which dead-letter tools know.

Letters of before have the original's key, and no `key` header; they are read as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Protocol

import msgspec

if TYPE_CHECKING:  # whoever reads letters need not import Faust and the oracle
    from stream.codecs import DeadLetter
    from stream.oracle.records import Raw

PREFIX = "__connect.errors."
HAS_KEY, NO_KEY, NO_VALUE = "key", "no.key", "no.value"
Headers = Sequence[tuple[str, bytes]]

_STRING = re.compile(rb'"((?:[^"\\]|\\.)*)"')


class Record(Protocol):
    """A letter, of whichever client."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Headers: ...


class Original(msgspec.Struct, frozen=True):
    """The message that was refused, byte for byte, with its producer's own headers."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


def to_record(
    letter: DeadLetter, topic: str, partition: int
) -> tuple[bytes, bytes, list[tuple[str, bytes]]]:
    """Key, value and headers of a letter about a record of this topic and partition."""
    record = letter.record
    own: dict[str, bytes] = {
        "topic": topic.encode(),
        "partition": str(partition).encode(),
        "offset": str(record.offset).encode(),
        "exception.class.name": letter.reason.encode(),
        "exception.message": letter.detail.encode("utf-8", "backslashreplace"),
        "stage": b"VALUE_CONVERTER",
        **({NO_KEY: b""} if record.key is None else {HAS_KEY: record.key}),
        **({NO_VALUE: b""} if record.value is None else {}),
    }
    # Those of an earlier letter, where one was sent back with all its headers, are of the past.
    headers = [pair for pair in record.headers if not pair[0].startswith(PREFIX)]
    headers += [(PREFIX + name, value) for name, value in own.items()]
    return place(partition, record.offset), record.value or b"", headers


def place(partition: int, offset: int) -> bytes:
    """The key of the letter about the record there.

    >>> place(3, 1207)
    b'3/1207'
    """
    return b"%d/%d" % (partition, offset)


def told(record: Record, name: str) -> str:
    """One of our headers, as text; empty where it is missing."""
    return dict(record.headers).get(PREFIX + name, b"").decode("utf-8", "backslashreplace")


def is_tombstone(record: Record) -> bool:
    """Whether it deletes a letter; one of before about a null value has headers."""
    return record.value is None and not told(record, "topic")


def is_keyed_by_place(record: Record) -> bool:
    """Whether it has its own key, as letters of before have not."""
    names = {name for name, _ in record.headers}
    return not names.isdisjoint((PREFIX + HAS_KEY, PREFIX + NO_KEY))


def original_of(record: Record) -> Original:
    """What was refused."""
    ours = {name[len(PREFIX) :]: value for name, value in record.headers if _is_ours(name)}
    value = None if NO_VALUE in ours else record.value
    key = ours.get(HAS_KEY) if HAS_KEY in ours or NO_KEY in ours else record.key
    return Original(key, value, [pair for pair in record.headers if not _is_ours(pair[0])])


def _is_ours(name: str) -> bool:
    return name.startswith(PREFIX)


def standing(tombstones: Iterable[Raw], records: Iterable[Raw]) -> Iterator[Raw]:
    """The letters that no tombstone deleted.  Both are the records of one topic: it is read twice,
    since a tombstone stands behind what it deletes, and only tombstones are kept in memory."""
    gone = {(raw.partition, raw.key): raw.offset for raw in tombstones if is_tombstone(raw)}
    for raw in records:
        if not is_tombstone(raw) and raw.offset > gone.get((raw.partition, raw.key), -1):
            yield raw


def users_in(record: Record, users: AbstractSet[bytes]) -> AbstractSet[bytes]:
    """Which of these users a letter is about: by the original's key, or a string of its payload.

    What is wrong with a letter may be its key, and its payload need be no JSON.
    """
    original = original_of(record)
    found = {original.key} & users if original.key is not None else set()
    payload = original.value or b""
    for string in _STRING.findall(payload):
        if string in users:
            found.add(string)
        elif b"\\" in string and (unescaped := _unescaped(string)) in users:
            found.add(unescaped)
    return found


def _unescaped(string: bytes) -> bytes:
    try:
        return msgspec.json.decode(b'"' + string + b'"', type=str).encode()
    except (msgspec.DecodeError, UnicodeEncodeError):
        return string
