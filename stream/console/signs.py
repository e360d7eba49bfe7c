"""What the console makes of the topics besides the read model: live quality, dead letters, news.

    outcomes          hits and NDCG of events that workers ranked before applying, by release
    <topic>.dlq       the newest dead letters of every topic, with reason and original payload
    recommendations,
    profiles          news for whoever looks at a user, and records whose latency is looked up

Everything is bounded: `WINDOWS` windows, `LETTERS` letters, `QUEUED` news for one who does not
read them.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from profiles.answers import Recommendation
from profiles.errors import BadMessage
from profiles.notices import OutcomeWindow
from profiles.topics import DEAD_LETTERED, Topics
from profiles.wire import decode_json
from stream.api.read_model import Source
from stream.dead_letters import LetterAt
from stream.letters import is_tombstone, original_of

if TYPE_CHECKING:
    from stream.chunks import Record  # which would import Faust

WINDOWS = 20_000
"""Windows of outcomes that are read at the start: some hours of a few workers."""
QUALITY_S = 60.0
"""Live quality is that of the windows that ended in the last so many seconds."""
LEAST_EVENTS = 20
"""Of fewer events no quality is told: it would jump between nothing and much."""
LETTERS = 200
PREVIEW = 2_000
QUEUED = 100
ERRORS = "__connect.errors."


class DeadLetter(msgspec.Struct, frozen=True):
    """A record that workers set aside, and where it stands now.

    `partition`, `offset`: of the original; `text`: the beginning of its payload of `bytes`.
    """

    at_letter: LetterAt
    topic: str
    partition: str
    offset: str
    reason: str
    message: str
    key: str
    text: str
    bytes: int
    at: float


class DeadLetters(msgspec.Struct, frozen=True):
    """The newest ones, newest first, and how many of these have each reason."""

    reasons: dict[str, int]
    letters: list[DeadLetter]


class Quality(msgspec.Struct, frozen=True):
    """How a release does live, over the last minute of ranked events."""

    release_id: str
    events: int
    ndcg10: float
    hr10: float


@dataclass(frozen=True, slots=True)
class Cause:
    """A recommendation's own time, and where the event that caused it stands."""

    partition: int
    offset: int
    produced_ms: int


class Signs:
    """Takes records in; tells what they show.

    `opened`: a user's recommendation as the worker made it, where it is encrypted.
    """

    def __init__(
        self,
        topics: Topics,
        opened: Callable[[bytes, bytes | None], bytes | None] = lambda user, payload: payload,
    ) -> None:
        self._topics = topics
        self._opened = opened
        self._windows: deque[OutcomeWindow] = deque(maxlen=WINDOWS)
        self._letters: deque[DeadLetter] = deque(maxlen=LETTERS)
        self._last: dict[int, Record] = {}
        self._watchers: defaultdict[bytes, set[asyncio.Queue[str]]] = defaultdict(set)
        originals = [getattr(topics, name) for name in DEAD_LETTERED]
        self._dead_topics = {topics.dlq(name): name for name in originals}
        self.sources = (
            Source(topics.outcomes, WINDOWS),
            *(Source(name, LETTERS) for name in self._dead_topics),
        )
        """Topics that only the console follows."""

    def take(self, topic: str, records: Sequence[Record]) -> None:
        """Take records of one topic in."""
        for record in records:
            if topic == self._topics.outcomes:
                self._take_window(record)
            elif topic in self._dead_topics:
                self._take_letter(topic, record)
            elif topic == self._topics.recommendations:
                self._last[record.partition] = record
                self._tell(record.key, "recommendation")
            elif topic == self._topics.profiles:
                self._tell(record.key, "profile")

    def _take_letter(self, topic: str, record: Record) -> None:
        if not is_tombstone(record):
            self._letters.append(_letter(record, self._dead_topics[topic]))
            return
        partition, _, offset = (record.key or b"").decode("utf-8", "replace").partition("/")
        erased = (topic, partition, offset)
        kept = [
            letter
            for letter in self._letters
            if (f"{letter.topic}.dlq", letter.partition, letter.offset) != erased
        ]
        self._letters = deque(kept, maxlen=LETTERS)

    def quality(self, now_s: float) -> list[Quality]:
        """By release, in order of their names, which is that of their making."""
        sums: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0, 0.0])
        for window in reversed(self._windows):
            if window.ended_at < now_s - 2 * QUALITY_S:
                break
            if window.ended_at < now_s - QUALITY_S:
                continue
            found = sums[window.release_id]
            for cell in window.cells:
                found[0] += cell.events
                found[1] += cell.gain
                found[2] += cell.hits
        return [
            Quality(name, int(events), gain / events, hits / events)
            for name, (events, gain, hits) in sorted(sums.items())
            if events >= LEAST_EVENTS
        ]

    def dead_letters(self) -> DeadLetters:
        """The newest dead letters."""
        letters = sorted(self._letters, key=lambda letter: letter.at, reverse=True)
        return DeadLetters(dict(Counter(letter.reason for letter in letters)), letters)

    def causes(self) -> list[Cause]:
        """Causes of the newest recommendation of each partition since this was last asked."""
        taken, self._last = self._last, {}
        found = []
        for record in taken.values():
            try:
                value = self._opened(record.key or b"", record.value)
                made = decode_json(value or b"", Recommendation)
            except BadMessage:
                continue
            if made.cause == "event":
                found.append(Cause(made.cause_partition, made.cause_offset, record.timestamp))
        return found

    @contextmanager
    def watching(self, user_id: str) -> Iterator[asyncio.Queue[str]]:
        """News of a user: `recommendation` or `profile`, whenever one is written."""
        user = user_id.encode()
        news: asyncio.Queue[str] = asyncio.Queue(QUEUED)
        self._watchers[user].add(news)
        try:
            yield news
        finally:
            self._watchers[user].discard(news)
            if not self._watchers[user]:
                del self._watchers[user]

    def end(self) -> None:
        """Let go whoever watches."""
        for user in list(self._watchers):
            self._tell(user, "end")

    def _tell(self, user: bytes | None, what: str) -> None:
        for news in self._watchers.get(user or b"", ()):
            if not news.full():  # one who reads so little will read the newest anyway
                news.put_nowait(what)

    def _take_window(self, record: Record) -> None:
        try:
            self._windows.append(decode_json(record.value or b"", OutcomeWindow))
        except BadMessage:
            return


def _letter(record: Record, original: str) -> DeadLetter:
    headers = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    sent = original_of(record)
    value = sent.value or b""
    return DeadLetter(
        LetterAt(original, record.partition, record.offset),
        headers.get(f"{ERRORS}topic", original),
        headers.get(f"{ERRORS}partition", ""),
        headers.get(f"{ERRORS}offset", ""),
        headers.get(f"{ERRORS}exception.class.name", ""),
        headers.get(f"{ERRORS}exception.message", ""),
        (sent.key or b"").decode("utf-8", "backslashreplace"),
        value[:PREVIEW].decode("utf-8", "backslashreplace"),
        len(value),
        record.timestamp / 1000,
    )
