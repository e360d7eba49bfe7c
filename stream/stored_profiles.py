"""Profiles as a partition's store holds them: read for many users, written with a watermark.

A profile and the position of the input that it knows go to RocksDB in one batch, so that neither is
ever without the other.  What is written is what the changelog gets, byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from profiles.metrics import WorkerMetrics
from profiles.sealing import PROFILE
from profiles.state import RecordLayout, Records, decode_records, empty_records, encode_records
from stream.publisher import Message
from stream.source import Source


@dataclass(slots=True)
class Loaded:
    """Profiles of a batch of users, as read; `fresh` marks users without a stored one, `tails` are
    what follows the records (`profiles.said`)."""

    users: list[bytes]
    records: Records
    tails: list[bytes]
    fresh: list[bool]


class StoredProfiles:
    """Reads and writes profiles of one layout."""

    def __init__(self, layout: RecordLayout, metrics: WorkerMetrics) -> None:
        self.layout = layout
        self._metrics = metrics
        self._no_profile = encode_records(layout, empty_records(layout, 1))[0]

    def load(self, source: Source, users: Sequence[bytes]) -> Loaded:
        """Profiles of users; a new user gets an empty one."""
        return self.decoded(users, *source.stored(users))

    def decoded(
        self, users: Sequence[bytes], payloads: Sequence[bytes | None], fresh: list[bool]
    ) -> Loaded:
        """The same of payloads that are read already."""
        records, tails = decode_records(
            self.layout, [self._no_profile if payload is None else payload for payload in payloads]
        )
        return Loaded(list(users), records, tails, fresh)

    def save(self, source: Source, loaded: Loaded, now_s: float) -> list[Message]:
        """Write profiles that no event changed; returns the changelog messages."""
        payloads = encode_records(self.layout, loaded.records, loaded.tails)
        return self.write(source, loaded.users, payloads, sum(loaded.fresh), None, now_s)

    def write(
        self,
        source: Source,
        users: Sequence[bytes],
        payloads: Sequence[bytes],
        fresh: int,
        end: int | None,
        now_s: float,
    ) -> list[Message]:
        """Write profiles and watermark together; returns the changelog messages.

        `fresh`: how many of the users are new; `end`: the offset after the last event applied.
        """
        if source.keys is not None:
            payloads = source.keys.sealer.seal_many(PROFILE, users, payloads)
        watermark = source.store.watermark
        applied = watermark.applied if end is None else {**watermark.applied, source.topic: end}
        source.store.write(
            users,
            payloads,
            msgspec.structs.replace(
                watermark,
                applied=applied,
                topic_ids={**watermark.topic_ids, source.topic: source.topic_id},
                changelog=max(watermark.changelog, source.changelog_end),
                count=watermark.count + fresh,
                saved_at=now_s,
            ),
        )
        self._metrics.profiles.labels(str(source.number)).set(source.store.watermark.count)
        return list(map(Message, users, payloads))
