"""Changes of profiles that no event brings: declared interests, and a swap's sweep.

Like the event path, all of it runs on the state thread and leaves changelog messages to be sent.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec
import numpy as np

from profiles.layers import Floats
from profiles.metrics import WorkerMetrics
from profiles.said import Tail, read_tail
from profiles.space import Space
from profiles.updater import interest_move
from stream.arms import rebuild_stale
from stream.publisher import Message
from stream.source import Source
from stream.stored_profiles import StoredProfiles
from stream.words import Unread, late, unread

if TYPE_CHECKING:
    from stream.event_path import EventPath


class Upkeep:
    """Of the profiles that `path` serves."""

    def __init__(self, path: EventPath, stored: StoredProfiles, metrics: WorkerMetrics) -> None:
        self._path = path
        self._stored = stored
        self._metrics = metrics
        fields = stored.layout.dtype.fields
        assert fields is not None, "a record has fields"
        self._release_places = [fields[name][1] for name in ("release", "interest_release")]

    def declare(
        self,
        source: Source,
        users: Sequence[tuple[bytes, str]],
        texts: Floats,
        space: Space,
        now_s: float,
    ) -> list[Message]:
        """Store declared interests, encoded by the language model of `space`.

        Shapes: texts (len(users), T).
        """
        if source.closed:  # while the texts were encoded
            return []
        gone, users, texts = self._nothing_left(source, users, texts, now_s)
        if not users:
            return gone
        names = [user for user, _ in users]
        loaded = self._stored.load(source, names)
        mine = [arm for arm in self._path.arms(names) if arm.space is space]
        waits = set(late(mine, loaded.records, loaded.tails))
        ready = np.array([row for row in range(len(names)) if row not in waits], dtype=np.intp)
        rebuild_stale(loaded.records, mine, self._path.catalog, ready)
        vectors = interest_move(space.head, texts)
        declared = np.array([bool(text) for _, text in users])
        loaded.records["interest"] = np.where(declared[:, None], vectors, 0.0)
        loaded.records["interest_release"] = np.where(declared, space.key, np.uint64(0))
        loaded.records["revision"] += 1
        loaded.tails[:] = [
            Tail(text, read_tail(tail).texts).to_bytes()
            for (_, text), tail in zip(users, loaded.tails, strict=True)
        ]
        return gone + self._stored.save(source, loaded, now_s)

    def _nothing_left(
        self, source: Source, users: Sequence[tuple[bytes, str]], texts: Floats, now_s: float
    ) -> tuple[list[Message], list[tuple[bytes, str]], Floats]:
        """Users who withdraw their interests and have no event: no profile is kept, nor made.

        Returns: tombstones, and the other users with their texts.
        """
        empty = [user for user, text in users if not text]
        if not empty:
            return [], list(users), texts
        loaded = self._stored.load(source, empty)
        blank = {
            user for user, count in zip(empty, loaded.records["events"], strict=True) if not count
        }
        held = [user for user, new in zip(empty, loaded.fresh, strict=True) if not new]
        gone = [user for user in held if user in blank]
        keep = [at for at, (user, _) in enumerate(users) if user not in blank]
        tombstones = self.erase(source, gone, now_s)[0] if gone else []
        return tombstones, [users[at] for at in keep], texts[keep]

    def sweep(
        self, source: Source, after: bytes | None, count: int, now_s: float
    ) -> tuple[list[Message], bytes | None, list[tuple[bytes, str, Space]]] | Unread:
        """Rebuild the next slice of stale profiles.

        Returns: changelog messages, the last user looked at (None at the end), and users whose
        declared interests need encoding, each with the space that serves her; or what must be
        read before this slice.
        """
        if source.closed:
            return [], None, []
        users: list[bytes] = []
        last: bytes | None = None
        scanned, looked = source.store.scan(after), 0
        while block := list(itertools.islice(scanned, count)):
            names = [user for user, _ in block]
            payloads = source.opened(names, [payload for _, payload in block])
            for user, payload, key in zip(names, payloads, self._keys_of(names), strict=True):
                last, looked = user, looked + 1
                # Read straight from the bytes: most profiles are already rebuilt.
                if payload is not None and not self._is_current(payload, key):
                    users.append(user)
                if len(users) >= count or looked >= 32 * count:
                    break
            else:
                continue
            break
        else:
            last = None
        arms = self._path.arms(users)
        loaded = self._stored.load(source, users)
        if missing := unread(arms, loaded.records, loaded.tails):
            return missing
        rebuild_stale(loaded.records, arms, self._path.catalog)
        for arm in arms:
            arm.space.texts.trim()
        interests = loaded.records["interest_release"]
        wanting = [
            (users[at], declared, arm.space)
            for arm in arms
            for at in np.flatnonzero(arm.members & (interests != arm.space.key)).tolist()
            if (declared := read_tail(loaded.tails[at]).interests)
        ]
        self._metrics.profiles_rebuilt.labels("sweep").inc(len(users))
        return self._stored.save(source, loaded, now_s), last, wanting

    def erase(
        self, source: Source, users: Sequence[bytes], now_s: float
    ) -> tuple[list[Message], int]:
        """Delete profiles, and what is owed to their users.

        An erasure that a user asked for is `stream.erasing.forget`, which reaches further.
        Returns: changelog tombstones, how many existed.
        """
        found = sum(payload is not None for payload in source.store.get_many(users))
        for user in users:
            source.owed.users.pop(user, None)
        watermark = source.store.watermark
        source.store.write(
            users,
            [None] * len(users),
            msgspec.structs.replace(watermark, count=watermark.count - found, saved_at=now_s),
        )
        source.store.flush()
        return [Message(user, None) for user in users], found

    def _keys_of(self, users: Sequence[bytes]) -> list[int]:
        """Key of the space that serves each user; a block at a time, since arms are hashed."""
        keys = np.empty(len(users), dtype=np.uint64)
        for arm in self._path.arms(users):
            keys[arm.members] = arm.space.key
        return keys.tolist()

    def _is_current(self, payload: bytes, key: int) -> bool:
        """Whether profile and interest are of the space with this key.

        An event may have rebuilt the profile of a user whose interest still waits for its text
        to be encoded again.
        """
        release, interest = (
            int.from_bytes(payload[at : at + 8], "little") for at in self._release_places
        )
        return release == key and interest in (0, key)
