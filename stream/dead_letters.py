"""`driftline dlq`: what was refused and why, and back to where it came from once that is put right.

A dead letter is the original record with `__connect.errors.*` headers (`stream.letters`).  A
replay produces the original bytes again, key, value and the producer's own headers, to the topic
and partition of the original, and leaves the letter where it is: what is still wrong becomes a
new letter.  Event ids make an event that is replayed twice harmless, as long as the profile
remembers them (docs/delivery.md).

Letters are read up to where the topics ended at the start, one at a time: a replay of a million
takes no more memory than one of ten, and never meets a letter of its own making.  Every topic is
read twice, since a letter that an erasure deleted may still be there, before its tombstone.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated

import msgspec

from profiles.audit import AuditLog
from profiles.config import Settings
from profiles.errors import TopicError
from profiles.settings.kafka import BrokerSettings
from profiles.topics import DEAD_LETTERED, Topics
from profiles.wire import Id
from stream.letters import is_tombstone, original_of, standing, told
from stream.oracle.records import Raw, read_topic
from stream.outbox import Outbox

BLOCK = 500
"""Letters read at a time: reading blocks, and the producer's acknowledgements wait for it."""
SHOWN_BYTES = 120
"""What is shown of a payload: a letter may be a megabyte, and a terminal is no place for it."""


class Letter(msgspec.Struct, frozen=True):
    """A dead letter, told.  `partition`, `offset`: where the original stood; `refused_at`: Unix
    seconds; `payload`: its beginning, for people."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    key: str
    bytes: int
    payload: str
    refused_at: float


class Letters(msgspec.Struct, frozen=True):
    """What `dlq list` shows: how many there are by topic and reason, and the latest of them."""

    total: int
    by_reason: dict[str, dict[str, int]]
    latest: list[Letter]


class Replayed(msgspec.Struct, frozen=True):
    """What `dlq replay` did: messages acknowledged, by topic and by reason.  `skipped`: had neither
    key nor payload, which no client sends."""

    total: int
    by_topic: dict[str, int]
    by_reason: dict[str, int]
    skipped: int = 0


class LetterAt(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One letter: the topic of its original, and where the letter itself stands."""

    topic: Id
    partition: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)]
    offset: Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


@dataclass(frozen=True, slots=True)
class Which:
    """Which letters: of these entities, with these reasons (none: all), of this key, not older
    than `within_s`; `letters`: only these."""

    entities: tuple[str, ...] = DEAD_LETTERED
    reasons: tuple[str, ...] = ()
    key: bytes | None = None
    within_s: float | None = None
    letters: frozenset[LetterAt] | None = None

    def takes(self, raw: Raw, reason: str, now_s: float) -> bool:
        """Whether a letter is among them."""
        return (
            (not self.reasons or reason in self.reasons)
            and (self.key is None or original_of(raw).key == self.key)
            and (self.within_s is None or raw.timestamp_ms / 1000.0 >= now_s - self.within_s)
        )


def list_letters(settings: Settings, which: Which, limit: int) -> Letters:
    """Count all, show the latest `limit`.  Raises: BrokerError, TopicError."""
    by_reason: dict[str, Counter[str]] = {}
    latest: list[Letter] = []
    for topic, raw, reason in _read(settings, which):
        by_reason.setdefault(topic, Counter())[reason] += 1
        latest.append(_told(topic, raw, reason))
        if len(latest) > 2 * limit:
            latest = _latest(latest, limit)
    counts = {topic: dict(reasons.most_common()) for topic, reasons in by_reason.items()}
    total = sum(sum(reasons.values()) for reasons in counts.values())
    return Letters(total, counts, _latest(latest, limit))


async def replay_letters(settings: Settings, which: Which, limit: int | None = None) -> Replayed:
    """Send letters back to where they came from, oldest of each partition first.

    What was sent is noted in the audit log, in figures.
    Raises: BrokerError, also for a letter that Kafka does not take back; TopicError; AuditError.
    """
    letters = itertools.islice(_read(settings, which), limit)
    by_topic: Counter[str] = Counter()
    by_reason: Counter[str] = Counter()
    skipped = 0
    try:
        async with Outbox.connected(settings.broker) as outbox:
            while block := await asyncio.to_thread(list, itertools.islice(letters, BLOCK)):
                for topic, raw, reason in block:
                    sent = original_of(raw)
                    if sent.key is None and sent.value is None:
                        skipped += 1
                        continue
                    # A letter stands in the partition of its original.
                    await outbox.send_raw(topic, raw.partition, sent.key, sent.value, sent.headers)
                    by_topic[topic] += 1
                    by_reason[reason] += 1
            await outbox.drain()
    finally:  # also of a replay that Kafka ended half way
        if by_reason:
            note = {"by_topic": dict(by_topic), "by_reason": dict(by_reason)}
            log = AuditLog.of(settings)
            await asyncio.to_thread(log.append, "operator", "dead letters replayed", **note)
    counts = dict(by_topic), dict(by_reason.most_common())
    return Replayed(by_reason.total(), *counts, skipped)


def read_letters(broker: BrokerSettings, topic: str) -> Iterator[Raw]:
    """The letters that stand in a dead-letter topic now.  Raises: BrokerError, TopicError."""
    return standing(read_topic(broker, topic), read_topic(broker, topic))


def _read(settings: Settings, which: Which) -> Iterator[tuple[str, Raw, str]]:
    """(original topic, letter, reason) of those that are meant."""
    unknown = sorted(set(which.entities) - set(DEAD_LETTERED))
    if unknown:
        raise TopicError(
            f"{', '.join(unknown)} have no dead letters; only {', '.join(DEAD_LETTERED)} have"
        )
    topics, now_s = Topics.under(settings.topics.prefix), time.time()
    for entity in which.entities:
        topic = getattr(topics, entity)
        for raw in _letters(settings, topics, topic, which.letters):
            reason = told(raw, "exception.class.name")
            if which.takes(raw, reason, now_s):
                yield topic, raw, reason


def _letters(
    settings: Settings, topics: Topics, topic: str, wanted: frozenset[LetterAt] | None
) -> Iterator[Raw]:
    """Letters of one topic that stand: all, or those wanted of them."""
    broker, name = settings.broker, topics.dlq(topic)
    if wanted is None:
        yield from read_letters(broker, name)
        return
    left = {(letter.partition, letter.offset) for letter in wanted if letter.topic == topic}
    for partition in sorted({partition for partition, _ in left}):
        offsets = {offset for number, offset in left if number == partition}
        chosen: list[Raw] = []
        tombstones: list[Raw] = []
        # To the end: an erasure may have deleted one of them since it was shown.
        for raw in read_topic(broker, name, [partition], {partition: min(offsets)}):
            if is_tombstone(raw):
                tombstones.append(raw)
            elif raw.offset in offsets:
                chosen.append(raw)
        yield from standing(tombstones, chosen)


def _told(topic: str, raw: Raw, reason: str) -> Letter:
    original = original_of(raw)
    payload = original.value or b""
    return Letter(
        topic,
        raw.partition,
        int(told(raw, "offset") or -1),
        reason,
        told(raw, "exception.message"),
        (original.key or b"").decode("utf-8", "backslashreplace"),
        len(payload),
        payload[:SHOWN_BYTES].decode("utf-8", "backslashreplace"),
        raw.timestamp_ms / 1000.0,
    )


def _latest(letters: Iterable[Letter], limit: int) -> list[Letter]:
    return sorted(letters, key=lambda letter: letter.refused_at)[-limit:] if limit else []
