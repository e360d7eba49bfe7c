"""Encrypted topics as the oracle and an export read them: with the users' keys, once and whole."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice

from profiles.config import Settings
from profiles.key_store import KeyMap
from profiles.sealing import MasterKeys, is_sealed, no_key
from profiles.topics import Topics
from stream.oracle.records import Raw, read_topic

BLOCK = 4096


def read_key_map(settings: Settings, partitions: list[int] | None = None) -> KeyMap | None:
    """Every user's keys as they stand now; None where nothing is encrypted.

    Raises: SettingsError, BrokerError, TopicError.
    """
    service = MasterKeys.of(settings.privacy)
    if service is None:
        return None
    keys = KeyMap(service)
    topic = Topics.under(settings.topics.prefix).keys
    for raw in read_topic(settings.broker, topic, partitions):
        keys.take(raw.key, raw.value)
    return keys


def opened(records: Iterable[Raw], keys: KeyMap | None, purpose: bytes) -> Iterator[Raw]:
    """Records with their values opened.  One whose key is gone has none: it is as if deleted.

    Raises: SealError for a wrong master key, or none where there should be one.
    """
    rest = iter(records)
    while block := list(islice(rest, BLOCK)):
        if keys is None:
            if any(is_sealed(raw.value) for raw in block):
                raise no_key()
            yield from block
            continue
        users = [raw.key or b"" for raw in block]
        values = keys.sealer.open_many(purpose, users, [raw.value for raw in block])
        for raw, value in zip(block, values, strict=True):
            yield raw if value is raw.value else replace(raw, value=value)
