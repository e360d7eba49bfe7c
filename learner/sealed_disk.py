"""The replay buffer's disk with its contents sealed: each user's events with a key of hers.

Keys of entries stay as they are: pseudonyms and slots.  Values of histories, conversations and
examples are sealed; an example's pseudonym, which stands first, stays readable, because its slot
must be found when it is replaced.  The keys are the learner's own, in a store of their own: it
neither waits for the workers' nor shares them, and an erasure destroys both.  Rounds are sealed
with one key each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from learner.disk import Disk, new_batch
from learner.reservoir import USER, Batch
from profiles.errors import SealError
from profiles.key_store import KeyStore
from profiles.sealing import EXAMPLE, KeyService, Vault

ROUND = b"round"
"""Name of the present round's key: no pseudonym has five bytes."""


class LearnerKeys:
    """The learner's keys.  Raises: StoreError, SealError for a wrong master key."""

    def __init__(self, directory: Path, service: KeyService) -> None:
        self._keys = KeyStore(directory, service, has_topic=False)
        try:
            self._keys.check()
            self._keys.refresh()
        except BaseException:
            self._keys.close()
            raise

    def seal(self, user: bytes, payload: bytes) -> bytes:
        """A user's events, sealed."""
        return self._keys.sealer.seal_many(EXAMPLE, [user], [payload])[0]

    def open_many(self, users: Sequence[bytes], payloads: Sequence[bytes]) -> list[bytes]:
        """The inverse.  Raises: SealError for what was changed, or whose key is gone."""
        opened = self._keys.sealer.open_many(EXAMPLE, users, payloads)
        if missing := opened.count(None):
            raise SealError(
                f"{missing} entries of the replay buffer do not open with the keys beside it; move "
                "the learner's directory away to learn anew from the events that are still there"
            )
        return [payload for payload in opened if payload is not None]

    def round_vault(self) -> Vault:
        """What seals the files of the present round."""
        return self._keys.sealer.own_cipher(ROUND)

    def forget_round(self) -> None:
        """The round's files are not wanted any more, nor is any copy of them."""
        self._keys.remove([ROUND])

    def forget(self, users: Sequence[int]) -> None:
        """Destroy users' keys."""
        self._keys.remove([USER.pack(user) for user in users])

    def close(self) -> None:
        """Release the directory."""
        self._keys.close()


class SealedDisk(Disk):
    """A `Disk` whose histories and examples are sealed on the way in, opened on the way out."""

    def __init__(self, directory: Path, keys: LearnerKeys) -> None:
        super().__init__(directory)
        self._keys = keys

    def new_batch(self) -> Batch:
        return _SealingBatch(self._keys)

    def get(self, key: bytes) -> bytes | None:
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return self._opened(keys, super().get_many(keys))

    def scan(self, prefix: bytes, start: bytes | None = None) -> Iterator[tuple[bytes, bytes]]:
        for key, value in super().scan(prefix, start):
            (opened,) = self._opened([key], [value])
            assert opened is not None, "there was a value"
            yield key, opened

    def write(self, batch: Batch) -> None:
        super().write(batch.inner if isinstance(batch, _SealingBatch) else batch)

    def _opened(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> list[bytes | None]:
        opened = list(values)
        heads = [_head(key, value) for key, value in zip(keys, values, strict=True)]
        sealed = [at for at, head in enumerate(heads) if head is not None]
        parts = [(*head, at) for at in sealed if (head := heads[at]) is not None]
        bodies = self._keys.open_many([part[0] for part in parts], [part[2] for part in parts])
        for (_, front, _, at), body in zip(parts, bodies, strict=True):
            opened[at] = front + body
        return opened


class _SealingBatch:
    """A batch that seals what is put into it; rocksdict writes `inner`."""

    def __init__(self, keys: LearnerKeys) -> None:
        self._keys = keys
        self.inner = new_batch()

    def put(self, key: bytes, value: bytes) -> None:
        head = _head(key, value)
        if head is not None:
            user, front, body = head
            value = front + self._keys.seal(user, body)
        self.inner.put(key, value)

    def delete(self, key: bytes) -> None:
        self.inner.delete(key)


def _head(key: bytes, value: bytes | None) -> tuple[bytes, bytes, bytes] | None:
    """(user, what stays readable, what is sealed) of what is a user's; None for other entries."""
    if value is None:
        return None
    kind = key[:1]
    if kind in (b"h", b"c"):
        return key[1:], b"", value
    if kind in (b"r", b"q"):
        return value[: USER.size], value[: USER.size], value[USER.size :]
    return None
