"""What the learner reads: behaviour events into the buffer, and the topics it reads whole.

`EventFeed` follows the events with offsets of its own: those in the replay buffer, written with
the events themselves, win over the group's.  The group's are committed all the same, so that lag
tools see the learner.  `BoardFeed` reads items, releases and erasures from their beginning, in no
group, at every start: together they are what the learner knows besides events.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from kafka import KafkaConsumer, OffsetAndMetadata, TopicPartition
from kafka.errors import KafkaError

from learner.catalogue import CatalogueFeed
from learner.conversations import Step, Turn
from learner.kafka_edge import (
    Record,
    close_on_error,
    end_offsets,
    open_consumer,
    partitions_of,
    poll,
)
from learner.records import Row
from learner.replay import ReplayBuffer
from learner.sampling import ActionWeights
from profiles.board import ReleaseBoard
from profiles.config import Settings
from profiles.erasures import decode_erasure
from profiles.errors import BadMessage
from profiles.events import Event, decode_event
from profiles.item_text import item_text
from profiles.items import decode_item
from profiles.logs import get_logger
from profiles.metrics import LearnerMetrics
from profiles.modalities import Modalities
from profiles.policies import PolicyBoard
from profiles.topics import Topics
from profiles.wire import check_key, key64

log = get_logger("learner.feeds")


@dataclass(frozen=True, slots=True)
class PendingErasure:
    """A request to forget a user, and where it stands in its topic."""

    erasure_id: str
    user_id: str
    partition: int
    offset: int
    retrain: bool = False

    @property
    def user(self) -> int:
        return key64(self.user_id)


class BoardFeed:
    """Catalogue, releases, erasures and orders, read whole.

    Raises at start: BrokerError, TopicError.
    """

    def __init__(self, settings: Settings) -> None:
        self.topics = Topics.under(settings.topics.prefix)
        self.catalogue = CatalogueFeed(
            item_text(settings.data), Modalities.of(settings.model.vectors)
        )
        self.board = ReleaseBoard()
        self.policies = PolicyBoard()
        self.erased_at_ms: dict[int, int] = {}
        self.erasures: list[PendingErasure] = []
        self.last_item_s = time.monotonic()
        self._consumer = open_consumer(settings)
        self._caught_up = False
        self._partitions: list[TopicPartition] = []
        self._ends: dict[TopicPartition, int] = {}
        with close_on_error(self._consumer):
            self._assign(settings.broker.connect_timeout_s)

    def _assign(self, timeout_s: float) -> None:
        topics = self.topics
        wanted = (topics.items, topics.releases, topics.erasures, topics.policies)
        self._partitions = [
            tp for topic in wanted for tp in partitions_of(self._consumer, topic, timeout_s)
        ]
        self._consumer.assign(self._partitions)
        self._consumer.seek_to_beginning(*self._partitions)
        self._ends = end_offsets(self._consumer, self._partitions)

    @property
    def erasure_partitions(self) -> list[int]:
        return [tp.partition for tp in self._partitions if tp.topic == self.topics.erasures]

    def is_caught_up(self) -> bool:
        """Whether everything that stood in the topics at the start has been read."""
        if not self._caught_up:
            self._caught_up = all(
                self._consumer.position(tp) >= end for tp, end in self._ends.items()
            )
        return self._caught_up

    def poll(self, timeout_ms: int) -> None:
        """Take in what has arrived."""
        for tp, records in poll(self._consumer, timeout_ms).items():
            for record in records:
                if tp.topic == self.topics.items:
                    self._take_item(record)
                elif tp.topic == self.topics.releases:
                    self.board.put_payload(record.value)
                elif tp.topic == self.topics.policies:
                    self.policies.put_payload(record.key, record.value)
                else:
                    self._take_erasure(record)

    def _take_item(self, record: Record) -> None:
        self.last_item_s = time.monotonic()
        if not record.value:
            if record.key:
                self.catalogue.remove(record.key.decode("utf-8", "replace"))
            return
        try:
            self.catalogue.put(decode_item(record.value))
        except BadMessage as error:
            log.debug("item skipped", offset=record.offset, reason=error.reason)

    def _take_erasure(self, record: Record) -> None:
        try:
            erasure = decode_erasure(record.value)
            check_key(erasure.user_id)
        except BadMessage as error:
            log.debug("erasure skipped", offset=record.offset, reason=error.reason)
            return
        request = PendingErasure(
            erasure.erasure_id,
            erasure.user_id,
            record.partition,
            record.offset,
            erasure.retrain,
        )
        self.note_erased({request.user: record.timestamp})
        self.erasures.append(request)

    def note_erased(self, erased_at_ms: Mapping[int, int]) -> None:
        """Users (pseudonyms) were erased at these times of the broker."""
        for user, at_ms in erased_at_ms.items():
            self.erased_at_ms[user] = max(at_ms, self.erased_at_ms.get(user, 0))

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()


def is_kept_out(
    appended_ms: int, erased_at_ms: int | None, mode: Literal["accept", "forget", "refuse"]
) -> bool:
    """Whether an event of a user may not be learned from: of before her erasure never, later ones
    where `privacy.after_erasure` does not accept them.

    >>> [is_kept_out(at_ms, 5, mode) for mode in ("accept", "forget") for at_ms in (5, 6)]
    [True, False, True, True]
    >>> is_kept_out(5, None, "refuse")
    False
    """
    return erased_at_ms is not None and (mode != "accept" or appended_ms <= erased_at_ms)


def verdicts_of_actions(settings: Settings) -> dict[str, int]:
    """Actions that accept (1) or reject (-1) an item; others are left out.

    Those of `learner.positive_actions` accept, or without any, those of positive weight.
    """
    chosen = settings.learner.positive_actions
    return {
        name: 1 if weight > 0 else -1
        for name, weight in settings.actions.items()
        if weight < 0 or (weight > 0 and (not chosen or name in chosen))
    }


class EventFeed:
    """Events into the replay buffer.  Raises at start: BrokerError, TopicError."""

    def __init__(
        self,
        settings: Settings,
        buffer: ReplayBuffer,
        metrics: LearnerMetrics,
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self.topic = Topics.under(settings.topics.prefix).events
        self._buffer, self._metrics, self._clock_s = buffer, metrics, clock_s
        self._max_ahead_s = settings.serving.max_ahead_s
        self._max_bytes = settings.serving.max_message_bytes
        self._after_erasure = settings.privacy.after_erasure
        names = ActionWeights.from_settings(settings.actions).names
        self._actions = {name: at for at, name in enumerate(names)}
        self._keeps_words = settings.learner.judged_conversations > 0
        self._text_chars = settings.profile.text_chars
        self._verdicts = verdicts_of_actions(settings)
        self._consumer: KafkaConsumer = open_consumer(settings, settings.learner.group)
        with close_on_error(self._consumer):
            self._partitions = partitions_of(
                self._consumer, self.topic, settings.broker.connect_timeout_s
            )
            self._consumer.assign(self._partitions)
            self._seek()

    def _seek(self) -> None:
        ends = end_offsets(self._consumer, self._partitions)
        stored = self._buffer.offsets(self.topic, [tp.partition for tp in self._partitions])
        for tp in self._partitions:
            offset = stored.get(tp.partition)
            if offset is not None and offset > ends[tp]:
                # The log is shorter than what was read of it: it was deleted and made anew.
                log.warning(
                    "events topic was made anew; reading from its beginning",
                    partition=tp.partition,
                    stored=offset,
                    end=ends[tp],
                )
                self._buffer.forget_offset(self.topic, tp.partition)
                offset = None
            if offset is None:
                self._consumer.seek_to_beginning(tp)
            else:
                self._consumer.seek(tp, offset)

    def poll(self, timeout_ms: int, erased_at_ms: Mapping[int, int]) -> list[Row]:
        """Take one batch of events into the buffer.

        `erased_at_ms`: users (pseudonyms) whose events up to a broker time are not to be read.
        Returns: the rows that were read (some may have been in the buffer before).
        """
        found = poll(self._consumer, timeout_ms)
        now_s = self._clock_s()
        rows: list[Row] = []
        turns: list[Turn] = []
        next_offsets: dict[int, int] = {}
        for tp, records in found.items():
            for record in records:
                try:
                    row = self._row(record, now_s, erased_at_ms, turns)
                    if row is not None:
                        rows.append(row)
                except BadMessage as error:
                    self._metrics.events_rejected.labels(error.reason).inc()
            next_offsets[tp.partition] = records[-1].offset + 1
        if next_offsets:
            added = self._buffer.ingest(self.topic, rows, next_offsets, turns)
            self._metrics.events_consumed.inc(added)
        return rows

    def _row(
        self,
        record: Record,
        now_s: float,
        erased_at_ms: Mapping[int, int],
        turns: list[Turn],
    ) -> Row | None:
        """What the buffer takes of an event: of words alone nothing (docs/decisions/0035), but
        where confidence is learned, everything is a turn of a conversation."""
        if record.value is not None and len(record.value) > self._max_bytes:
            raise BadMessage("oversized", f"the event has {len(record.value)} bytes")
        event = decode_event(record.value, now_s=now_s, max_ahead_s=self._max_ahead_s)
        if record.key != check_key(event.user_id):
            raise BadMessage("wrong-key", "the record's key is not its user_id")
        action = self._actions.get(event.action)
        if action is None:
            raise BadMessage("unknown-action", f"action {event.action!r} has no weight")
        user = key64(event.user_id)
        if is_kept_out(record.timestamp, erased_at_ms.get(user), self._after_erasure):
            raise BadMessage("erased", "the user asked to be forgotten")
        if self._keeps_words:
            turns += self._turns(record, event, user, action)
        if not event.item_id:
            return None
        return Row(
            partition=record.partition,
            offset=record.offset,
            user=user,
            item=key64(event.item_id),
            action=action,
            value=event.value or 0.0,
            ts=event.ts,
            event_id=key64(event.event_id),
        )

    def _turns(self, record: Record, event: Event, user: int, action: int) -> list[Turn]:
        """An event with words and an item is read as two, as workers do: said, then done."""
        value, said = event.value or 0.0, (event.text or "").strip()[: self._text_chars]
        place = (record.partition, record.offset, user)
        found = []
        if said:
            found.append(Turn(*place, Step(said, 0, action, value, event.ts), 0))
        if event.item_id:
            step = Step("", key64(event.item_id), action, value, event.ts)
            found.append(Turn(*place, step, self._verdicts.get(event.action, 0)))
        return found

    def lag(self) -> int:
        """Records between here and the end, as far as the last fetch knew."""
        behind = 0
        for tp in self._partitions:
            end = self._consumer.highwater(tp)
            if end is None:
                # No fetch has answered yet: ask.
                end = end_offsets(self._consumer, [tp])[tp]
            behind += max(end - self._consumer.position(tp), 0)
        return behind

    def offsets(self) -> dict[str, int]:
        """ "topic/partition" to the first offset not read."""
        stored = self._buffer.offsets(self.topic, [tp.partition for tp in self._partitions])
        return {f"{self.topic}/{partition}": offset for partition, offset in stored.items()}

    def commit(self) -> None:
        """Tell the group how far the buffer is; only lag tools read it, so a failure waits."""
        stored = self._buffer.offsets(self.topic, [tp.partition for tp in self._partitions])
        positions = {
            TopicPartition(self.topic, partition): OffsetAndMetadata(offset, "", -1)
            for partition, offset in stored.items()
        }
        try:
            if positions:
                self._consumer.commit(positions, timeout_ms=5_000)
        except KafkaError as error:
            log.warning("group offsets not committed", error=repr(error))

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close(autocommit=False)
