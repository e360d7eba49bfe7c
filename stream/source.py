"""One assigned partition, and what a batch of its events brings in and leaves to be sent.

Everything about a partition that outlives a batch is in `Source`: its store, what it owes, and how
far its changelog is known.  The state thread alone touches the store; the event loop the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from profiles.fences import Fences
from profiles.key_store import KeyStore
from profiles.store import PartitionStore
from profiles.wire import key64
from stream.codecs import Decoded
from stream.due import Owed
from stream.publisher import Message

MAX_SEGMENTS = 1_000
"""Changelog segments that may wait for the ones before them: many more than are ever in flight."""


@dataclass(slots=True)
class Source:
    """One assigned partition: its store, and where its events come from.

    `changelog_end`: the changelog up to there is in the store, by restore or because it is ours.
    """

    number: int
    store: PartitionStore
    topic: str
    topic_id: str
    changelog_end: int = 0
    closed: bool = False
    keys: KeyStore | None = None
    """Set where profiles are encrypted."""
    fences: Fences = field(default_factory=Fences)
    owed: Owed = field(default_factory=Owed)
    order: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Held from a change on the state thread until its records are queued for Kafka: compaction
    keeps the last record of a user, so the changelog must have the order of the changes."""
    _own: dict[int, int] = field(default_factory=dict)

    def note_restored(self, end: int) -> None:
        """The changelog was read up to `end`."""
        self.changelog_end = max(self.changelog_end, end)
        self._own.clear()

    def note_changelog(self, begin: int, end: int) -> None:
        """Our own records stand at `begin` up to `end`; acknowledgements come in any order.

        Over a foreign record the end does not move: whoever wrote it had the partition while we
        did not, or has lost it and does not know yet.  It is read when the partition opens again.
        """
        self._own[begin] = end
        while (reached := self._own.pop(self.changelog_end, None)) is not None:
            self.changelog_end = reached
        if len(self._own) > MAX_SEGMENTS:
            self._own.clear()

    def stored(self, users: Sequence[bytes]) -> tuple[Sequence[bytes | None], list[bool]]:
        """Profiles of users, opened, and who has none stored."""
        payloads = self.store.get_many(users)
        return self.opened(users, payloads), [payload is None for payload in payloads]

    def opened(
        self, users: Sequence[bytes], payloads: Sequence[bytes | None]
    ) -> Sequence[bytes | None]:
        """Profiles as they were before they were sealed; None where the key is gone."""
        if self.keys is None:
            return payloads
        return self.keys.open_profiles(users, payloads, self.store)

    def sealed(self, messages: list[Message]) -> list[Message]:
        """Outputs as they go to Kafka."""
        if self.keys is None or not messages:
            return messages
        users = [message.key or b"" for message in messages]
        payloads = self.keys.seal_outputs(users, [message.value or b"" for message in messages])
        return list(map(Message, users, payloads))

    def take_keys(self) -> list[Message]:
        """Keys that Kafka must have before what they seal."""
        if self.keys is None:
            return []
        return [Message(key, wrapped) for key, wrapped in self.keys.take_unsent()]

    def purge(self, users: Sequence[bytes]) -> None:
        """What was deleted of these users leaves the disk."""
        self.store.purge(users)

    @property
    def topic_key(self) -> int:
        """What a profile stores of the topic's identity."""
        return key64(self.topic_id)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a batch leaves to be sent, per topic."""

    changelog: list[Message]
    outputs: list[Message]
    keys: list[Message] = field(default_factory=list)
    """What Kafka must have before the other two."""


@dataclass(frozen=True, slots=True)
class Part:
    """One partition's share of a round: its decoded events.

    `end`: the offset after the last record read; `behind`: how many are still to be read.
    """

    source: Source
    decoded: Decoded
    end: int
    behind: int = 0
