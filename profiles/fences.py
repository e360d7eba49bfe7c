"""What stays of an erased user: where her erasure stood, so that nothing older brings her back.

A fence is a record of the changelog under `NUL erased NUL fingerprint`, which no user id can be,
and so goes wherever the profiles go: it survives restart, rebalance and a rebuilt store.  It names
the end of the events partition when the user was erased.  Events before it are never applied again,
whatever makes a worker read them again; a profile that had come no further, written late by a
worker that was away, is passed over.

The fingerprint is a hash of the id and no more anonymous than that: without it nobody could tell
that an event is hers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import msgspec

PREFIX = b"\x00erased\x00"
FINGERPRINT_BYTES = 16


class Fence(msgspec.Struct, frozen=True, array_like=True):
    """`topic`: `key64` of the events topic's identity; `offset`: its partition's end at the time;
    `request`: the erasure's own offset; `keys`: topic keys of the data keys destroyed with it, by
    their ids alone; `erased_at`: Unix seconds."""

    topic: int
    offset: int
    request: int
    erased_at: float
    keys: list[bytes] = []


class Fences:
    """Fences of one partition, by fingerprint.  Few of them: all are in memory."""

    def __init__(self) -> None:
        self._by_print: dict[bytes, Fence] = {}

    def __bool__(self) -> bool:
        return bool(self._by_print)

    def take(self, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Take records of the changelog or of a store in; those that are no fences are ignored."""
        for key, value in records:
            if key.startswith(PREFIX) and value is not None:
                self._by_print[key[len(PREFIX) :]] = msgspec.msgpack.decode(value, type=Fence)

    def of(self, user: bytes) -> Fence | None:
        """The fence of a user, if she was erased."""
        return self._by_print.get(fingerprint(user)) if self._by_print else None

    def holds_back(self, user: bytes, topic: int, offset: int) -> bool:
        """Whether an event at this place, or a profile that had come so far, is from before."""
        fence = self.of(user)
        return fence is not None and fence.topic == topic and offset < fence.offset


def is_fence(key: bytes) -> bool:
    """Whether a record's key is a fence's."""
    return key.startswith(PREFIX)


def record_of(user: bytes, fence: Fence) -> tuple[bytes, bytes]:
    """Key and value of a fence."""
    return PREFIX + fingerprint(user), msgspec.msgpack.encode(fence)


def fingerprint(user: bytes) -> bytes:
    """What a fence knows of a user.

    >>> fingerprint(b"u1") == fingerprint(b"u1") != fingerprint(b"u2")
    True
    """
    return hashlib.blake2b(user, digest_size=FINGERPRINT_BYTES, person=b"erased user").digest()
