"""The data keys of one partition's users, on this machine's disk, beside the profiles they seal.

The `keys` topic is the durable copy, one record for each key (`user NUL id`, an id in hexadecimal;
no user id holds a NUL).  A key is written here before the first profile under it, and sent before
it; what Kafka may not have got is sent again when the partition opens.  The store is apart from
the profiles' so that a copy of those is of no use without it: leave it out of backups.

When the newest master key is another, all keys are wrapped anew as the partition opens: its owner
alone writes them, so a key that an erasure took away cannot come back.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from profiles.errors import StoreCorruptError
from profiles.sealing import (
    ID_BYTES,
    PROFILE,
    RECOMMENDATION,
    KeyService,
    Sealer,
    master_version,
)
from profiles.store import PartitionStore, StoreMemory

BLOCK = 4096


class _Key(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`in_topic`: it was read from there."""

    name: bytes
    wrapped: bytes
    in_topic: bool


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[_Key])


def topic_key(user: bytes, name: bytes) -> bytes:
    """Key of a data key's record.

    >>> topic_key(b"u1", bytes(8))
    b'u1\\x000000000000000000'
    """
    return user + b"\x00" + name.hex().encode()


def from_topic_key(key: bytes) -> tuple[bytes, bytes] | None:
    """User and id; None for a record that is not ours."""
    user, _, name = key.rpartition(b"\x00")
    try:
        found = bytes.fromhex(name.decode("ascii"))
    except ValueError:
        return None
    return (user, found) if user and len(found) == ID_BYTES else None


class KeyStore:
    """Keys of one partition, and the sealer that uses them.  One thread owns it.

    `has_topic`: without it nothing is to be sent, and this store is the only copy (the learner's).
    Raises: as `PartitionStore`; SealError for a wrong master key.
    """

    def __init__(
        self,
        directory: Path,
        service: KeyService,
        sync_writes: bool = False,
        *,
        has_topic: bool = True,
        memory: StoreMemory | None = None,
    ) -> None:
        self._has_topic = has_topic
        self.store = PartitionStore(directory, sync_writes, memory)
        self._service = service
        self._unsent: deque[tuple[bytes, bytes]] = deque()
        self.sealer = Sealer(service, self)

    def get_many(self, users: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]:
        return [[(key.name, key.wrapped) for key in keys] for keys in self._keys(users)]

    def add(self, made: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        # Nothing is read: they have no key, or the sealer would have found it.
        first = [[_Key(name, wrapped, not self._has_topic)] for _, name, wrapped in made]
        self._put([user for user, _, _ in made], list(map(_ENCODER.encode, first)), len(made))
        if self._has_topic:
            self._unsent.extend((topic_key(user, name), wrapped) for user, name, wrapped in made)

    def take_unsent(self) -> list[tuple[bytes, bytes]]:
        """Records for the keys topic that nobody has taken yet; safe from another thread."""
        taken: list[tuple[bytes, bytes]] = []
        while self._unsent:
            taken.append(self._unsent.popleft())
        return taken

    def open_profiles(
        self, users: Sequence[bytes], stored: Sequence[bytes | None], store: PartitionStore
    ) -> list[bytes | None]:
        """Profiles of a store, opened; None where the key is gone.

        Raises: StoreCorruptError where one does not open; the store is rebuilt at the next start.
        """
        before = self.sealer.damaged
        opened = self.sealer.open_many(PROFILE, users, stored)
        if self.sealer.damaged > before:
            store.condemn()
            raise StoreCorruptError(
                f"store {store.directory}: {self.sealer.damaged - before} profiles do not open "
                "with their users' keys: changed, or moved from one user to another; start "
                "again, and the store is set aside and rebuilt from the changelog"
            )
        return opened

    def seal_outputs(self, users: Sequence[bytes], payloads: Sequence[bytes]) -> list[bytes]:
        """Recommendations, sealed."""
        return self.sealer.seal_many(RECOMMENDATION, users, payloads)

    def absorb(self, records: Sequence[tuple[bytes, bytes | None]], position: int) -> None:
        """Take records of the keys topic, in log order; `position` is the offset after them."""
        named = [(found, value) for key, value in records if (found := from_topic_key(key))]
        users = list(dict.fromkeys(user for (user, _), _ in named))
        changed = dict(zip(users, self._keys(users), strict=True))
        for (user, name), value in named:
            keys = [key for key in changed[user] if key.name != name]
            changed[user] = keys if value is None else [*keys, _Key(name, value, True)]
        self._write(changed, position)
        self.sealer.forget(users)

    def names(self, user: bytes) -> list[bytes]:
        """Ids of a user's keys."""
        return [key.name for key in self._keys([user])[0]]

    def remove(self, users: Sequence[bytes]) -> list[bytes]:
        """Destroy the keys of users, on the disk too.  Returns: topic keys for tombstones."""
        held = dict(zip(users, self._keys(users), strict=True))
        gone = [topic_key(user, key.name) for user, keys in held.items() for key in keys]
        self._write({user: [] for user in held})
        self.sealer.forget(users)
        taken = set(gone)
        self._unsent = deque(pair for pair in self._unsent if pair[0] not in taken)
        if gone:
            self.store.purge(users)
        return gone

    def refresh(self) -> int:
        """Send again what the topic may lack, and wrap anew what an older master key wrapped.

        Returns: how many keys were wrapped anew.  Raises: SealError when the master key is wrong.
        """
        rewrapped = 0
        changed: dict[bytes, list[_Key]] = {}
        for user, payload in self.store.scan():
            keys: list[_Key] = []
            for key in _DECODER.decode(payload):
                if not self._service.is_current(key.wrapped):
                    context = user + key.name
                    data_key = self._service.unwrap(key.wrapped, context)
                    (wrapped,) = self._service.wrap_many([data_key], [context])
                    keys.append(_Key(key.name, wrapped, not self._has_topic))
                    rewrapped += 1
                    changed[user] = keys
                else:
                    keys.append(key)
                if not keys[-1].in_topic:
                    self._unsent.append((topic_key(user, key.name), keys[-1].wrapped))
                    changed[user] = keys
            if len(changed) >= BLOCK:
                self._write(changed)
                changed = {}
        self._write(changed)
        return rewrapped

    def check(self) -> None:
        """That the store is whole and the master key right.  Raises: StoreCorruptError, SealError.

        One key is opened: with a wrong master key none would.
        """
        self.store.check()
        for user, payload in self.store.scan():
            for key in _DECODER.decode(payload):
                self._service.unwrap(key.wrapped, user + key.name)
                return

    def close(self) -> None:
        """Release the directory."""
        self.store.close()

    def _keys(self, users: Sequence[bytes]) -> list[list[_Key]]:
        found = self.store.get_many(users)
        return [[] if payload is None else _DECODER.decode(payload) for payload in found]

    def _write(self, changed: dict[bytes, list[_Key]], position: int | None = None) -> None:
        users = list(changed)
        after = [_ENCODER.encode(keys) if keys else None for keys in changed.values()]
        pairs = zip(self.store.get_many(users), after, strict=True)
        new = sum((now is not None) - (old is not None) for old, now in pairs)
        self._put(users, after, new, position)

    def _put(
        self,
        users: Sequence[bytes],
        after: Sequence[bytes | None],
        new: int,
        position: int | None = None,
    ) -> None:
        """`new`: how many more users have a key afterwards."""
        mark = self.store.watermark
        self.store.write(
            users,
            after,
            msgspec.structs.replace(
                mark,
                changelog=mark.changelog if position is None else position,
                count=mark.count + new,
                saved_at=time.time(),
            ),
        )


class KeyMap:
    """Keys in memory, for whoever reads topics and writes none: fed with the keys topic whole.

    About 300 bytes a user.
    """

    def __init__(self, service: KeyService) -> None:
        self._held: dict[bytes, list[tuple[bytes, bytes]]] = {}
        self.sealer = Sealer(service, self)

    def take(self, key: bytes | None, wrapped: bytes | None) -> None:
        """Take one record of the keys topic in."""
        found = from_topic_key(key or b"")
        if found is None:
            return
        user, name = found
        kept = [pair for pair in self._held.get(user, []) if pair[0] != name]
        if wrapped is not None:
            kept.append((name, wrapped))
        if kept:
            self._held[user] = kept
        else:
            self._held.pop(user, None)
        self.sealer.forget([user])

    def get_many(self, users: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]:
        return [self._held.get(user, []) for user in users]

    def add(self, made: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        raise NotImplementedError("whoever only reads makes no keys")

    def versions(self) -> dict[int, int]:
        """How many data keys each version of the master key wraps."""
        counts: dict[int, int] = {}
        for keys in self._held.values():
            for _, wrapped in keys:
                version = master_version(wrapped)
                counts[version] = counts.get(version, 0) + 1
        return dict(sorted(counts.items()))
