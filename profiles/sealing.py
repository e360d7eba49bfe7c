"""What is kept of a user, sealed with a key of her own: AES-256-GCM, by `cryptography`.

    0xE1 | key id (8) | nonce (12) | ciphertext and tag

The user and what the payload is for are authenticated with it: a record that is put under another
user's name does not open.  Data keys are random, wrapped by the master key (`KeyService`), and kept
apart from what they seal (`KeyTable`), so that taking the key away makes every copy unreadable.  A
user may have several: two workers that did not know of each other may each have made one.  Each
sealed payload names its own.

What surprised us: a sealed profile costs 2 us, the object that holds its key 1.5 us to make and
1 KB to keep.  Hence the bounded cache.  And asking the kernel for 12 random bytes costs as much as
sealing a small record, hence one draw for many (docs/decisions/0053).
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from profiles.errors import SealError
from profiles.key_file import KEY_BYTES, VersionedKeys, read_keys
from profiles.settings.privacy import PrivacySettings

MAGIC = b"\xe1"
"""No payload of ours begins so: a record begins with its version, a message with a brace."""
ID_BYTES = 8
NONCE_BYTES = 12
HEAD_BYTES = len(MAGIC) + ID_BYTES + NONCE_BYTES
VERSION_BYTES = 4
CACHED_USERS = 20_000

PROFILE = b"profile\x00"
RECOMMENDATION = b"recommendation\x00"
EXAMPLE = b"example\x00"
FILE = b"file\x00"

Held = tuple[tuple[bytes, AESGCM], ...]
"""A user's keys at hand, the newest last: how a payload under each begins, and what opens it."""


class KeyService(Protocol):
    """Wraps and unwraps data keys: what a KMS does.  `context` must be the same for both."""

    def wrap_many(self, data_keys: Sequence[bytes], contexts: Sequence[bytes]) -> list[bytes]:
        """Data keys, each wrapped by itself and readable only by this service."""
        ...

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """The inverse.  Raises: SealError for a wrong master key or a damaged text."""
        ...

    def is_current(self, wrapped: bytes) -> bool:
        """Whether it was wrapped by the newest master key: others are to be wrapped again."""
        ...


class KeyTable(Protocol):
    """Where wrapped data keys are: of each user `(id, wrapped)`, the one for what is new last."""

    def get_many(self, users: Sequence[bytes]) -> list[list[tuple[bytes, bytes]]]: ...
    def add(self, made: Sequence[tuple[bytes, bytes, bytes]]) -> None:
        """Keep the first keys of users who have none: (user, id, wrapped), a user once."""
        ...


class MasterKeys:
    """The key service over a key file: AES-256-GCM under the newest version, which is named."""

    def __init__(self, keys: VersionedKeys) -> None:
        self._newest = keys.newest
        self._ciphers = {version: AESGCM(key) for version, key in keys.by_version.items()}

    @classmethod
    def of(cls, settings: PrivacySettings) -> MasterKeys | None:
        """The service that these settings name; None where nothing is encrypted.

        Raises: SettingsError.
        """
        if not settings.encryption:
            return None
        keys = read_keys("privacy.master", settings.master_key_file, settings.master_keys)
        assert keys is not None, "the settings were checked"
        return cls(keys)

    def wrap_many(self, data_keys: Sequence[bytes], contexts: Sequence[bytes]) -> list[bytes]:
        version = self._newest.to_bytes(VERSION_BYTES, "big")
        cipher = self._ciphers[self._newest]
        nonces = _random(NONCE_BYTES, len(data_keys))
        return [
            version + nonce + cipher.encrypt(nonce, data_key, context)
            for nonce, data_key, context in zip(nonces, data_keys, contexts, strict=True)
        ]

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        version = master_version(wrapped)
        cipher = self._ciphers.get(version)
        if cipher is None:
            raise SealError(
                f"a data key is wrapped by version {version} of the master key, which "
                f"is not among those given ({', '.join(map(str, sorted(self._ciphers)))}); add it "
                "to privacy.master_key_file again"
            )
        body = wrapped[VERSION_BYTES:]
        try:
            return cipher.decrypt(body[:NONCE_BYTES], body[NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise SealError(
                f"a data key does not open with version {version} of the master key: it is not the "
                "key with which it was wrapped, or the record is damaged; check "
                "privacy.master_key_file"
            ) from error

    def is_current(self, wrapped: bytes) -> bool:
        return master_version(wrapped) == self._newest


def master_version(wrapped: bytes) -> int:
    """The version of the master key that wrapped a data key."""
    return int.from_bytes(wrapped[:VERSION_BYTES], "big")


def is_sealed(payload: bytes | None) -> bool:
    """Whether a payload is sealed.

    >>> is_sealed(b'{"user_id":"u"}'), is_sealed(None)
    (False, False)
    """
    return payload is not None and payload.startswith(MAGIC)


def no_key() -> SealError:
    """What to say where something encrypted is read without a master key."""
    return SealError(
        "this deployment encrypts what it keeps of users: set privacy.encryption and "
        "privacy.master_key_file as its workers have them"
    )


@dataclass(frozen=True, slots=True)
class Vault:
    """One key that seals whole files.  What is not sealed is passed through.

    `head`: how a payload under it begins.
    """

    head: bytes
    cipher: AESGCM

    def seal(self, payload: bytes) -> bytes:
        """The payload, in the form above."""
        nonce = os.urandom(NONCE_BYTES)
        return self.head + nonce + self.cipher.encrypt(nonce, payload, FILE)

    def open(self, payload: bytes) -> bytes | None:
        """The inverse; None for what was sealed with another key, or is damaged."""
        if not payload.startswith(MAGIC):
            return payload
        try:
            nonce = payload[1 + ID_BYTES : HEAD_BYTES]
            return self.cipher.decrypt(nonce, payload[HEAD_BYTES:], FILE)
        except (InvalidTag, ValueError):
            return None


class Sealer:
    """Seals and opens payloads of users, many at once.  Not thread-safe.

    Of the users opened or made last, `cached_users` keep their ciphers.
    `damaged`: payloads, so far, that did not open though their key was there.
    """

    def __init__(
        self, service: KeyService, keys: KeyTable, cached_users: int = CACHED_USERS
    ) -> None:
        self._service = service
        self._keys = keys
        self._cached_users = cached_users
        self._ciphers: OrderedDict[bytes, Held] = OrderedDict()
        self.damaged = 0

    def open_many(
        self, purpose: bytes, users: Sequence[bytes], payloads: Sequence[bytes | None]
    ) -> list[bytes | None]:
        """Payloads as they were sealed; one that is not sealed is passed through.

        None where there was none, where the key is gone (so the payload is, too), and, counted in
        `damaged`, where it does not open.  Raises: SealError for a wrong master key.
        """
        found: list[bytes | None] = []
        ciphers = self._held(users)
        if len(self._ciphers) > self._cached_users // 2:
            # Not before: half the cache is to be filled until the first one goes.  And only here:
            # what is sealed was opened just before, or its user is new.
            for user in users:
                self._ciphers.move_to_end(user)
        for user, payload, held in zip(users, payloads, ciphers, strict=True):
            if payload is None:
                found.append(None)
                continue
            for head, cipher in held:
                if payload.startswith(head):
                    nonce = payload[len(head) : HEAD_BYTES]
                    try:
                        # Copied: of a view of it, `cryptography` asks the bounds, which costs more.
                        found.append(cipher.decrypt(nonce, payload[HEAD_BYTES:], purpose + user))
                    except (InvalidTag, ValueError):
                        self.damaged += 1
                        found.append(None)
                    break
            else:
                found.append(None if payload.startswith(MAGIC) else payload)
        self._trim()
        return found

    def open(self, purpose: bytes, user: bytes, payload: bytes | None) -> bytes | None:
        """One payload, as `open_many`."""
        return self.open_many(purpose, [user], [payload])[0]

    def seal_many(
        self, purpose: bytes, users: Sequence[bytes], payloads: Sequence[bytes]
    ) -> list[bytes]:
        """Payloads sealed with each user's newest key; who has none gets one."""
        ciphers = self._held(users)
        if not all(ciphers):
            self._make([user for user in dict.fromkeys(users) if not self._ciphers[user]])
            ciphers = self._held(users)
        sealed: list[bytes] = []
        nonces = _random(NONCE_BYTES, len(users))
        for user, payload, held, nonce in zip(users, payloads, ciphers, nonces, strict=True):
            head, cipher = held[-1]
            sealed.append(head + nonce + cipher.encrypt(nonce, payload, purpose + user))
        self._trim()
        return sealed

    def own_cipher(self, user: bytes) -> Vault:
        """A user's newest key by itself, made if she has none: for another thread."""
        if not self._held([user])[0]:
            self._make([user])
        return Vault(*self._ciphers[user][-1])

    def forget(self, users: Sequence[bytes]) -> None:
        """The table has changed for these users."""
        for user in users:
            self._ciphers.pop(user, None)

    def _held(self, users: Sequence[bytes]) -> list[Held]:
        """Ciphers of each user, the newest last; all are at hand until `_trim` is called."""
        ciphers = self._ciphers
        missing = list(dict.fromkeys([user for user in users if user not in ciphers]))
        if missing:
            for user, kept in zip(missing, self._keys.get_many(missing), strict=True):
                ciphers[user] = tuple(
                    [
                        (MAGIC + name, AESGCM(self._service.unwrap(wrapped, user + name)))
                        for name, wrapped in kept
                    ]
                )
        return [ciphers[user] for user in users]

    def _make(self, users: Sequence[bytes]) -> None:
        """Make a key for each of these users, who have none."""
        names = _random(ID_BYTES, len(users))
        data_keys = _random(KEY_BYTES, len(users))
        contexts = [user + name for user, name in zip(users, names, strict=True)]
        wrapped = self._service.wrap_many(data_keys, contexts)
        self._keys.add(list(zip(users, names, wrapped, strict=True)))
        for user, name, data_key in zip(users, names, data_keys, strict=True):
            self._ciphers[user] = ((MAGIC + name, AESGCM(data_key)),)

    def _trim(self) -> None:
        while len(self._ciphers) > self._cached_users:
            self._ciphers.popitem(last=False)


def _random(size: int, count: int) -> list[bytes]:
    """So many random strings, drawn at once: asking the kernel costs more than the bytes do.

    Nothing is kept for a later call: a process that forks would use it twice.
    """
    drawn = os.urandom(size * count)
    return [drawn[at : at + size] for at in range(0, size * count, size)]
