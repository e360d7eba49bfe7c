"""What is kept of a user, sealed with a key of her own: AES-256-GCM, by `cryptography`.

    0xE1 | key id (8) | nonce (12) | ciphertext and tag

The user and what the payload is for are authenticated with it: a record that is put under another
user's name does not open.  Data keys are random, wrapped by the master key (`KeyService`), and kept
apart from what they seal (`KeyTable`), so that taking the key away makes every copy unreadable.  A
user may have several: two workers that did not know of each other may each have made one.  Each
sealed payload names its own.

What surprised us: a sealed profile costs 2 us, the object that holds its key 1.5 us to make and
1 KB to keep.  Hence the bounded cache.
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


class KeyService(Protocol):
    """Wraps and unwraps data keys: what a KMS does.  `context` must be the same for both."""

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        """The data key, readable only by this service."""
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
        """Keep new keys: (user, id, wrapped)."""
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

    def wrap(self, data_key: bytes, context: bytes) -> bytes:
        nonce = os.urandom(NONCE_BYTES)
        version = self._newest.to_bytes(VERSION_BYTES, "big")
        return version + nonce + self._ciphers[self._newest].encrypt(nonce, data_key, context)

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
    """One key that seals whole files.  What is not sealed is passed through."""

    name: bytes
    cipher: AESGCM

    def seal(self, payload: bytes) -> bytes:
        """The payload, in the form above."""
        nonce = os.urandom(NONCE_BYTES)
        return MAGIC + self.name + nonce + self.cipher.encrypt(nonce, payload, FILE)

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

    `damaged`: payloads, so far, that did not open though their key was there.
    """

    def __init__(
        self, service: KeyService, keys: KeyTable, cached_users: int = CACHED_USERS
    ) -> None:
        self._service = service
        self._keys = keys
        self._cached_users = cached_users
        self._ciphers: OrderedDict[bytes, list[tuple[bytes, AESGCM]]] = OrderedDict()
        self.damaged = 0

    def open_many(
        self, purpose: bytes, users: Sequence[bytes], payloads: Sequence[bytes | None]
    ) -> list[bytes | None]:
        """Payloads as they were sealed; one that is not sealed is passed through.

        None where there was none, where the key is gone (so the payload is, too), and, counted in
        `damaged`, where it does not open.  Raises: SealError for a wrong master key.
        """
        self._load(users)
        found: list[bytes | None] = []
        for user, payload in zip(users, payloads, strict=True):
            if payload is None or not payload.startswith(MAGIC):
                found.append(payload)
                continue
            name = payload[1 : 1 + ID_BYTES]
            cipher = next((held for own, held in self._ciphers[user] if own == name), None)
            if cipher is None:
                found.append(None)
                continue
            nonce = payload[1 + ID_BYTES : HEAD_BYTES]
            try:
                body = memoryview(payload)[HEAD_BYTES:]
                found.append(cipher.decrypt(nonce, body, purpose + user))
            except (InvalidTag, ValueError):
                self.damaged += 1
                found.append(None)
        self._trim()
        return found

    def open(self, purpose: bytes, user: bytes, payload: bytes | None) -> bytes | None:
        """One payload, as `open_many`."""
        return self.open_many(purpose, [user], [payload])[0]

    def seal_many(
        self, purpose: bytes, users: Sequence[bytes], payloads: Sequence[bytes]
    ) -> list[bytes]:
        """Payloads sealed with each user's newest key; who has none gets one."""
        self._load(users)
        self._make([user for user in dict.fromkeys(users) if not self._ciphers[user]])
        nonces = os.urandom(NONCE_BYTES * len(users))
        sealed: list[bytes] = []
        for at, (user, payload) in enumerate(zip(users, payloads, strict=True)):
            nonce = nonces[at * NONCE_BYTES : (at + 1) * NONCE_BYTES]
            name, cipher = self._ciphers[user][-1]
            sealed.append(MAGIC + name + nonce + cipher.encrypt(nonce, payload, purpose + user))
        self._trim()
        return sealed

    def own_cipher(self, user: bytes) -> Vault:
        """A user's newest key by itself, made if she has none: for another thread."""
        self._load([user])
        self._make([] if self._ciphers[user] else [user])
        return Vault(*self._ciphers[user][-1])

    def forget(self, users: Sequence[bytes]) -> None:
        """The table has changed for these users."""
        for user in users:
            self._ciphers.pop(user, None)

    def _load(self, users: Sequence[bytes]) -> None:
        """Have the ciphers of all these users at hand; `_trim` bounds them afterwards."""
        ciphers = self._ciphers
        missing: list[bytes] = []
        for user in users:
            if user in ciphers:
                ciphers.move_to_end(user)
            else:
                missing.append(user)
        if not missing:
            return
        distinct = list(dict.fromkeys(missing))
        for user, held in zip(distinct, self._keys.get_many(distinct), strict=True):
            ciphers[user] = [
                (name, AESGCM(self._service.unwrap(wrapped, user + name))) for name, wrapped in held
            ]

    def _make(self, users: Sequence[bytes]) -> None:
        if not users:
            return
        made: list[tuple[bytes, bytes, bytes]] = []
        for user in users:
            name, data_key = os.urandom(ID_BYTES), os.urandom(KEY_BYTES)
            made.append((user, name, self._service.wrap(data_key, user + name)))
            self._ciphers[user] = [(name, AESGCM(data_key))]
        self._keys.add(made)

    def _trim(self) -> None:
        while len(self._ciphers) > self._cached_users:
            self._ciphers.popitem(last=False)
