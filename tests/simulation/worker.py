"""A worker without processes, threads and network: each of its steps is one call.

It drives the real `EventPath`, codecs and `absorb` in the order that `stream.agents`,
`stream.delivery` and `stream.partitions` keep: written before sent, sent before acknowledged,
acknowledged in order, committed last.  Whoever holds it may stop between any two of these.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from profiles.metrics import WorkerMetrics
from profiles.said import TextMemory
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.state import RecordLayout
from stream.arms import Canary
from stream.codecs import Rules, decode_chunk, drop_unknown
from stream.event_path import EventPath
from stream.publisher import Message
from stream.restore import absorb
from stream.source import Outcome, Part, Source
from stream.words import Unread
from tests.simulation.world import Disk, Topic
from tests.unit.builders import make_record, read_words

TOPIC_ID = "topic-1"
TEXT_CHARS = 12
IN_FLIGHT = 3
RESTORE_SLICE = 3


def memory_of(layout: RecordLayout) -> TextMemory:
    """Words are forgotten only where histories may overflow."""
    return TextMemory(texts=2 if layout.history < 10 else 64, chars=TEXT_CHARS)


@dataclass(slots=True)
class Topics:
    """One partition of each topic of the contract that takes part."""

    events: Topic = field(default_factory=Topic)
    erasures: Topic = field(default_factory=Topic)
    changelog: Topic = field(default_factory=Topic)
    outputs: Topic = field(default_factory=Topic)
    dead: Topic = field(default_factory=Topic)
    made: list[tuple[str, bytes, bytes]] = field(default_factory=list)
    """Every changelog record that was ever made, delivered or not: by whom, user, profile."""


@dataclass(slots=True)
class Flight:
    """Something done whose records are on their way.  `waiting`: how many are not in Kafka yet;
    `source`, `end`: the input that it acknowledges, if there is one."""

    source: Topic | None
    end: int
    waiting: int
    written: list[int] = field(default_factory=list)


class SimulatedWorker:
    """The owner of the one partition, or one that was."""

    def __init__(
        self,
        name: str,
        topics: Topics,
        disk: Disk,
        layout: RecordLayout,
        serving: ServingSettings,
        rules: Rules,
        space: Space,
        canary: Canary | None,
        metrics: WorkerMetrics,
    ) -> None:
        self.name = name
        self.path = EventPath(
            layout, serving, rules.actions, space._catalog, metrics, memory_of(layout)
        )
        self.path.space, self.path.canary = space, canary
        self.source = Source(0, disk.open(), "events", TOPIC_ID)
        self.topics = topics
        self._layout = layout
        self._rules = rules
        self._begin()

    def _begin(self) -> None:
        """Read inputs from where they were committed."""
        self.positions = {id(topic): topic.committed for topic in self._inputs}
        self.acked = dict(self.positions)
        self.flights: deque[Flight] = deque()
        self.queues: dict[str, deque[tuple[Flight, str, Message]]] = {
            name: deque() for name in ("changelog", "outputs", "dead")
        }
        self._swept: bytes | None = None
        self._erased = 0

    @property
    def label(self) -> str:
        """Under it each version of a profile is made once: an erasure begins to count anew."""
        return f"{self.name}.{self._erased}"

    @property
    def _inputs(self) -> tuple[Topic, Topic]:
        return self.topics.events, self.topics.erasures

    @property
    def position(self) -> int:
        """The next event to read."""
        return self.positions[id(self.topics.events)]

    # --- opening ---------------------------------------------------------------------------------

    def restore(self, slices: int | None = None) -> None:
        """Read the changelog to its end, or only so many slices of it (then comes a crash)."""
        store, log = self.source.store, self.topics.changelog
        store.check()
        records = log.since(store.watermark.changelog)
        for start in range(0, len(records), RESTORE_SLICE):
            if slices is not None and start >= slices * RESTORE_SLICE:
                return
            part = records[start : start + RESTORE_SLICE]
            pairs = [(record.key or b"", record.value) for record in part]
            absorb(store, self._layout, pairs, part[-1].offset + 1)
        self.source.note_restored(log.end)

    def take_back(self) -> None:
        """The partition comes straight back: others may have had it meanwhile."""
        self.restore()
        self._begin()

    # --- work ------------------------------------------------------------------------------------

    def take_events(self, count: int, now_s: float) -> None:
        """Apply the next events of the log."""
        if len(self.flights) >= IN_FLIGHT:
            return
        log = self.topics.events
        records = log.since(self.position, count)
        if not records:
            return
        chunk = [
            make_record(raw.offset, raw.value, raw.key, timestamp_ms=raw.timestamp_ms)
            for raw in records
        ]
        decoded = drop_unknown(decode_chunk(chunk, self._rules, now_s), self.path.catalog)
        end = records[-1].offset + 1
        part = Part(self.source, decoded, end)
        outcomes = self.path.apply([part], now_s)
        while isinstance(outcomes, Unread):
            self.path.note_read(read_words(outcomes))
            outcomes = self.path.apply([part], now_s)
        (outcome,) = outcomes
        dead = [
            Message(
                letter.record.key,
                letter.record.value,
                _headers(letter.record.offset, letter.reason),
            )
            for letter in decoded.dead
        ]
        self._send(outcome, log, end, dead)

    def take_erasure(self, now_s: float) -> bytes | None:
        """Handle the next erasure.  Returns: whose."""
        log = self.topics.erasures
        records = log.since(self.positions[id(log)], 1)
        if len(self.flights) >= IN_FLIGHT or not records:
            return None
        user = records[0].key or b""
        tombstones, _ = self.path.upkeep.erase(self.source, [user], now_s)
        self._erased += 1
        self._send(Outcome(tombstones, tombstones), log, records[0].offset + 1)
        return user

    def flush(self, now_s: float, everything: bool = False) -> None:
        """Recommend to those who waited long enough."""
        self._send(self.path.flush_due(self.source, now_s, everything), None, 0)

    def sweep(self, count: int, now_s: float) -> None:
        """Rebuild a slice of stale profiles."""
        found = self.path.upkeep.sweep(self.source, self._swept, count, now_s)
        while isinstance(found, Unread):
            self.path.note_read(read_words(found))
            found = self.path.upkeep.sweep(self.source, self._swept, count, now_s)
        messages, self._swept, _ = found
        self._send(Outcome(messages, []), None, 0)

    # --- delivery --------------------------------------------------------------------------------

    def deliver(self, queue: str, count: int) -> None:
        """So many records of one topic reach Kafka."""
        waiting, topic = self.queues[queue], getattr(self.topics, queue)
        for _ in range(min(count, len(waiting))):
            flight, label, message = waiting.popleft()
            offset = topic.append(message.key, message.value, label, tuple(message.headers))
            flight.waiting -= 1
            if queue == "changelog":
                flight.written.append(offset)

    def acknowledge(self) -> None:
        """Take note, in order, of everything that Kafka has whole."""
        while self.flights and not self.flights[0].waiting:
            flight = self.flights.popleft()
            for offset in flight.written:
                self.source.note_changelog(offset, offset + 1)
            if flight.source is not None:
                self.acked[id(flight.source)] = flight.end

    def commit(self) -> None:
        """Tell the group how far it has come."""
        for topic in self._inputs:
            topic.committed = max(topic.committed, self.acked[id(topic)])

    def drain(self) -> None:
        """Everything under way arrives and is acknowledged."""
        for queue in self.queues:
            self.deliver(queue, len(self.queues[queue]))
        self.acknowledge()
        assert not self.flights

    def _send(
        self,
        outcome: Outcome,
        source: Topic | None,
        end: int,
        dead: list[Message] | None = None,
    ) -> None:
        parts = {"changelog": outcome.changelog, "outputs": outcome.outputs, "dead": dead or []}
        flight = Flight(source, end, sum(map(len, parts.values())))
        for queue, messages in parts.items():
            self.queues[queue].extend((flight, self.label, message) for message in messages)
        self.topics.made += [
            (self.label, message.key or b"", message.value)
            for message in outcome.changelog
            if message.value
        ]
        if source is not None:
            self.positions[id(source)] = end
        self.flights.append(flight)


def _headers(offset: int, reason: str) -> list[tuple[str, bytes]]:
    return [
        ("__connect.errors.partition", b"0"),
        ("__connect.errors.offset", str(offset).encode()),
        ("__connect.errors.exception.class.name", reason.encode()),
    ]
