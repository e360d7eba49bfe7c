"""What is kept of a user opens with her key alone, and with nothing once that is gone."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiles.errors import SealError, StoreCorruptError
from profiles.key_file import KEY_BYTES, VersionedKeys
from profiles.key_store import KeyMap, KeyStore, from_topic_key, topic_key
from profiles.sealing import (
    HEAD_BYTES,
    ID_BYTES,
    NONCE_BYTES,
    PROFILE,
    RECOMMENDATION,
    VERSION_BYTES,
    MasterKeys,
    is_sealed,
)
from profiles.store import PartitionStore, Watermark

pytestmark = pytest.mark.unit

KEYS = VersionedKeys({1: bytes(range(32)), 2: bytes(range(32, 64))})
OLD = VersionedKeys({1: KEYS.by_version[1]})
USERS = [b"ann", b"bob"]
PAYLOADS = [b"ann likes tents", b"bob likes songs"]


@pytest.fixture
def keys(tmp_path: Path) -> Iterator[KeyStore]:
    opened = KeyStore(tmp_path / "keys-0", MasterKeys(OLD))
    yield opened
    opened.close()


def test_a_payload_opens_for_its_user_and_its_purpose_only(keys: KeyStore) -> None:
    sealed = keys.sealer.seal_many(PROFILE, USERS, PAYLOADS)
    assert all(map(is_sealed, sealed))
    assert not any(plain in seal for plain, seal in zip(PAYLOADS, sealed, strict=True))
    assert keys.sealer.open_many(PROFILE, USERS, sealed) == PAYLOADS
    assert keys.sealer.open_many(PROFILE, USERS, sealed[::-1]) == [None, None]
    assert keys.sealer.open(RECOMMENDATION, b"ann", sealed[0]) is None
    # The key of another user is not even looked at; with the own key a wrong purpose is damage.
    assert keys.sealer.damaged == 1


@pytest.mark.parametrize("at", [1, 9, 20, -1])
def test_a_flipped_bit_anywhere_does_not_open(keys: KeyStore, at: int) -> None:
    (sealed,) = keys.sealer.seal_many(PROFILE, [b"ann"], [b"x" * 40])
    broken = bytearray(sealed)
    broken[at] ^= 1
    assert keys.sealer.open(PROFILE, b"ann", bytes(broken)) is None
    assert keys.sealer.open(PROFILE, b"ann", sealed[:15]) is None
    assert keys.sealer.open(PROFILE, b"ann", sealed) == b"x" * 40


def test_what_is_not_sealed_passes_so_that_encryption_can_be_switched_on(keys: KeyStore) -> None:
    assert keys.sealer.open_many(PROFILE, USERS, [b"\x02record", None]) == [b"\x02record", None]


def test_two_sealings_of_the_same_differ(keys: KeyStore) -> None:
    first, second = (keys.sealer.seal_many(PROFILE, [b"ann"], [b"same"])[0] for _ in range(2))
    assert first != second


def test_no_nonce_is_used_twice_with_a_key(keys: KeyStore) -> None:
    users = [b"u%d" % number for number in range(40)]
    used: list[bytes] = []  # key and nonce
    for _ in range(3):
        sealed = keys.sealer.seal_many(PROFILE, users * 5, users * 5)
        used += [payload[:HEAD_BYTES] for payload in sealed]
        used += [text[:HEAD_BYTES] for text in keys.seal_outputs(users, users)]
    vault = keys.sealer.own_cipher(users[0])
    used += [vault.seal(b"plan")[:HEAD_BYTES] for _ in range(40)]
    assert len(set(used)) == len(used)
    service = MasterKeys(OLD)
    wrapped = [
        text[VERSION_BYTES : VERSION_BYTES + NONCE_BYTES]
        for _ in range(3)
        for text in service.wrap_many([bytes(32)] * 50, [b"same"] * 50)
    ]
    assert len(set(wrapped)) == len(wrapped)


def test_randomness_is_drawn_by_the_call_that_uses_it_so_that_a_fork_repeats_none(
    keys: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys.sealer.seal_many(PROFILE, USERS, PAYLOADS)
    drawn: list[int] = []
    random = os.urandom

    def counted(size: int) -> bytes:
        drawn.append(size)
        return random(size)

    monkeypatch.setattr(os, "urandom", counted)
    for count in (2, 1, 2):
        drawn.clear()
        keys.sealer.seal_many(PROFILE, USERS[:count], PAYLOADS[:count])
        assert drawn == [NONCE_BYTES * count]
    drawn.clear()
    keys.sealer.seal_many(PROFILE, [b"new", b"newer"], PAYLOADS)
    # For each user: an id, a data key, and the nonces of what wraps it and of what it seals.
    assert sum(drawn) == 2 * (ID_BYTES + KEY_BYTES + 2 * NONCE_BYTES)


def test_keys_made_together_are_each_users_own(keys: KeyStore) -> None:
    users = [b"u%d" % number for number in range(100)]
    keys.sealer.seal_many(PROFILE, [*users, *users], [*users, *users])
    held = keys.get_many(users)
    assert all(len(own) == 1 for own in held)
    data_keys = {
        MasterKeys(OLD).unwrap(wrapped, user + name)
        for user, ((name, wrapped),) in zip(users, held, strict=True)
    }
    assert len(data_keys) == len({name for ((name, _),) in held}) == len(users)
    assert keys.store.watermark.count == keys.store.check() == len(users)


def test_a_key_that_came_meanwhile_is_used_and_not_overwritten(
    tmp_path: Path, keys: KeyStore
) -> None:
    assert keys.sealer.open_many(PROFILE, USERS, [None, None]) == [None, None]  # and has no key
    other = KeyStore(tmp_path / "keys-1", MasterKeys(OLD))
    (theirs,) = other.sealer.seal_many(PROFILE, [b"ann"], [b"text"])
    keys.absorb(other.take_unsent(), 1)
    mine = keys.sealer.seal_many(PROFILE, USERS, PAYLOADS)
    assert keys.names(b"ann") == other.names(b"ann")
    assert other.sealer.open_many(PROFILE, [b"ann"] * 2, [theirs, mine[0]]) == [
        b"text",
        PAYLOADS[0],
    ]
    assert keys.store.watermark.count == keys.store.check() == 2
    other.close()


def test_who_was_opened_last_keeps_her_place_in_a_full_cache(keys: KeyStore) -> None:
    sealer = keys.sealer
    sealer._cached_users = 4
    users = [b"u%d" % number for number in range(4)]
    sealed = sealer.seal_many(PROFILE, users, users)
    sealer.open(PROFILE, users[0], sealed[0])
    sealer.seal_many(PROFILE, [b"new"], [b"text"])
    assert set(sealer._ciphers) == {users[0], users[2], users[3], b"new"}


def test_a_small_cache_changes_nothing(keys: KeyStore) -> None:
    keys.sealer._cached_users = 1
    users = [b"u%d" % number for number in range(20)]
    sealed = keys.sealer.seal_many(PROFILE, users, users)
    assert keys.sealer.open_many(PROFILE, users, sealed) == users
    assert keys.sealer.open_many(PROFILE, users[::-1], sealed[::-1]) == users[::-1]


def test_keys_survive_the_process_and_the_machine(tmp_path: Path, keys: KeyStore) -> None:
    sealed = keys.sealer.seal_many(PROFILE, USERS, PAYLOADS)
    sent = keys.take_unsent()
    assert [from_topic_key(key) for key, _ in sent] != [None, None]
    assert keys.take_unsent() == []
    keys.close()
    again = KeyStore(tmp_path / "keys-0", MasterKeys(OLD))
    assert again.sealer.open_many(PROFILE, USERS, sealed) == PAYLOADS
    again.close()
    elsewhere = KeyStore(tmp_path / "elsewhere", MasterKeys(OLD))
    elsewhere.absorb(list(sent), len(sent))
    assert elsewhere.sealer.open_many(PROFILE, USERS, sealed) == PAYLOADS
    assert elsewhere.store.watermark.changelog == elsewhere.store.check() == 2
    elsewhere.close()
    reader = KeyMap(MasterKeys(OLD))
    for key, value in sent:
        reader.take(key, value)
    assert reader.sealer.open_many(PROFILE, USERS, sealed) == PAYLOADS


def test_two_workers_that_did_not_know_of_each_other_lose_nothing(
    tmp_path: Path, keys: KeyStore
) -> None:
    other = KeyStore(tmp_path / "keys-1", MasterKeys(OLD))
    mine, theirs = (
        each.sealer.seal_many(PROFILE, [b"ann"], [b"text"])[0] for each in (keys, other)
    )
    keys.absorb(other.take_unsent(), 1)
    other.close()
    assert keys.sealer.open_many(PROFILE, [b"ann"] * 2, [mine, theirs]) == [b"text"] * 2


def test_a_key_that_kafka_may_not_have_got_is_sent_again(tmp_path: Path, keys: KeyStore) -> None:
    keys.sealer.seal_many(PROFILE, USERS, PAYLOADS)
    (first, second) = keys.take_unsent()
    keys.close()  # killed: only one of the two had arrived
    again = KeyStore(tmp_path / "keys-0", MasterKeys(OLD))
    again.absorb([first], 1)
    assert again.refresh() == 0
    assert again.take_unsent() == [second]
    again.close()


def test_without_the_key_every_copy_is_unreadable(tmp_path: Path, keys: KeyStore) -> None:
    backup = keys.sealer.seal_many(PROFILE, USERS, PAYLOADS)
    wrapped = dict(keys.take_unsent())
    gone = keys.remove([b"ann", b"stranger"])
    assert [from_topic_key(key)[0] for key in gone if from_topic_key(key)] == [b"ann"]  # type: ignore[index]
    assert keys.sealer.open_many(PROFILE, USERS, backup) == [None, PAYLOADS[1]]
    # The key's bytes are on no file any more either.
    files = [path.read_bytes() for path in (tmp_path / "keys-0").iterdir() if path.is_file()]
    assert not any(wrapped[gone[0]] in content or b"ann" in content for content in files)
    # Whoever follows the topic forgets it as well.
    reader = KeyMap(MasterKeys(OLD))
    for key, value in [*wrapped.items(), (gone[0], None)]:
        reader.take(key, value)
    assert reader.sealer.open_many(PROFILE, USERS, backup) == [None, PAYLOADS[1]]


def test_a_newer_master_key_wraps_every_key_anew(tmp_path: Path, keys: KeyStore) -> None:
    sealed = keys.sealer.seal_many(PROFILE, USERS, PAYLOADS)
    keys.absorb(keys.take_unsent(), 2)
    keys.close()
    rotated = KeyStore(tmp_path / "keys-0", MasterKeys(KEYS))
    assert rotated.refresh() == 2
    renewed = KeyMap(MasterKeys(VersionedKeys({2: KEYS.by_version[2]})))
    for key, value in rotated.take_unsent():
        renewed.take(key, value)
    rotated.close()
    assert renewed.versions() == {2: 2}
    assert renewed.sealer.open_many(PROFILE, USERS, sealed) == PAYLOADS


def test_a_wrong_or_a_missing_master_key_is_told_apart_at_the_start(
    tmp_path: Path, keys: KeyStore
) -> None:
    keys.sealer.seal_many(PROFILE, USERS, PAYLOADS)
    keys.close()
    wrong = VersionedKeys({1: secrets.token_bytes(32)})
    lacking = VersionedKeys({2: KEYS.by_version[2]})
    for given, said in ((wrong, "does not open with version 1"), (lacking, "not among those")):
        opened = KeyStore(tmp_path / "keys-0", MasterKeys(given))
        with pytest.raises(SealError, match=said):
            opened.check()
        opened.close()


def test_a_profile_under_another_users_name_condemns_the_store(
    tmp_path: Path, keys: KeyStore
) -> None:
    store = PartitionStore(tmp_path / "partition-0")
    sealed = keys.sealer.seal_many(PROFILE, [b"ann", b"ann"], [b"one", b"two"])
    broken = sealed[0][:-1] + bytes([sealed[0][-1] ^ 1])
    store.write([b"ann"], [broken], Watermark(count=1))
    with pytest.raises(StoreCorruptError, match="rebuilt from the changelog"):
        keys.open_profiles([b"ann"], [broken], store)
    with pytest.raises(StoreCorruptError):
        store.check()
    store.close()


@pytest.mark.parametrize("user", [b"u", "zoë".encode(), b"a/b:c"])
def test_a_topic_key_is_read_back(user: bytes) -> None:
    assert from_topic_key(topic_key(user, b"12345678")) == (user, b"12345678")


@pytest.mark.parametrize("key", [b"", b"ann", b"ann\x00", b"\x0000", b"ann\x00zz" * 2])
def test_a_foreign_topic_key_is_passed_over(key: bytes) -> None:
    assert from_topic_key(key) is None
