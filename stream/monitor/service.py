"""`driftline monitor`, turn by turn: read topics, judge what is new, tell alerts, commit.

Everything is read from the beginning at every start (item texts and labels are needed whole); the
group's committed offset of `items` says up to where alerts have been told.  What lies before it is
judged again without a word, so that the usual of each entity is known; what lies after it may raise
an alert.  A kill between telling and committing tells nothing twice: alerts that stand are read off
their own topic.

What surprised us: another release, or better heads, move every probability a little, and the whole
desk would surge at once.  So with each new reading the kept history is judged anew, in the
background, and the book is swapped together with the heads.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from profiles.board import ReleaseBoard
from profiles.config import Settings
from profiles.errors import BadMessage, ReleaseError, ReleaseRefused
from profiles.item_text import item_text
from profiles.items import decode_item
from profiles.logs import get_logger
from profiles.metrics import MonitorMetrics
from profiles.opinions import Alert, decode_label
from profiles.topics import Topics
from profiles.wire import check_key, check_size, decode_json, encode
from stream.chunks import Record
from stream.codecs import DeadLetter
from stream.monitor.book import OpinionBook
from stream.monitor.desk import Desk, Story
from stream.monitor.pace import ItemClock
from stream.monitor.reading import Reader, Reading
from stream.outbox import topic_partitions
from stream.publisher import Message, Publisher, Sent

log = get_logger("stream.monitor")

POLL_MS = 200
MAX_RECORDS = 500
STORE_RETRY_S = 5.0

Dated = tuple[Story, float]


class Monitor:
    """One turn after another.  `clock_s` is the wall's, `pace_s` one that goes evenly."""

    def __init__(
        self,
        settings: Settings,
        reader: Reader,
        consumer: AIOKafkaConsumer,
        publisher: Publisher,
        metrics: MonitorMetrics,
        clock_s: Callable[[], float] = time.time,
        pace_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings, self._monitor = settings, settings.monitor
        self._topics = Topics.under(settings.topics.prefix)
        self._reader, self._consumer, self._publisher = reader, consumer, publisher
        self._metrics, self._clock_s, self._pace_s = metrics, clock_s, pace_s
        self._desk = Desk(item_text(settings.data), self._monitor.entity)
        self._board = ReleaseBoard()
        self._refused: set[str] = set()
        self._time = ItemClock()
        self._told: list[Alert] = []
        self._kept: deque[Dated] = deque()
        self._waiting: list[Dated] = []
        self._past: list[Dated] | None = []  # of an earlier run; None once they are kept
        self._dead: list[DeadLetter] = []
        self._committed: dict[TopicPartition, int] = {}
        self._goals: dict[TopicPartition, int] = {}
        self._past_s: float | None = None
        self._reading: Reading | None = None
        self._book: OpinionBook | None = None
        self._preparing: asyncio.Task[tuple[Reading, OpinionBook, int]] | None = None
        self._not_before_s = 0.0
        self.refusal: str | None = None

    def why_not_ready(self) -> str | None:
        """What is missing before news are judged; None when they are."""
        if self._goals:
            return "reading " + ", ".join(sorted({place.topic for place in self._goals}))
        if self._reading is None:
            return self.refusal or "no release is read yet"
        return None

    async def begin(self) -> None:
        """Find the places, and what was told before.  Raises: TopicError, BrokerError."""
        topics, consumer = self._topics, self._consumer
        names = (topics.alerts, topics.items, topics.labels, topics.releases)
        found = await topic_partitions(consumer._client, *names)
        places = {name: [TopicPartition(name, at) for at in found[name]] for name in names}
        await self._read_alerts(places.pop(topics.alerts))
        everything = [place for each in places.values() for place in each]
        consumer.assign(everything)
        for place in (*places[topics.items], *places[topics.labels]):
            self._committed[place] = await consumer.committed(place) or 0
        begins, ends = await self._ends(everything)
        await consumer.seek_to_beginning(*everything)
        self._goals = {place: end for place, end in ends.items() if end > begins[place]}

    async def turn(self) -> None:
        """Read what has come and do what follows from it."""
        found = await self._consumer.getmany(timeout_ms=POLL_MS, max_records=MAX_RECORDS)
        for place, records in found.items():
            for record in records:
                self._take(place, record)
        for place, goal in list(self._goals.items()):
            if await self._consumer.position(place) >= goal:
                del self._goals[place]
        if self._goals:
            return
        self._keep_the_past()
        await self._follow()
        alerts = await self._judge()
        await self._tell(alerts)
        await self._commit()

    async def close(self) -> None:
        """Drop what is being prepared."""
        if self._preparing is not None:
            self._preparing.cancel()
            await asyncio.gather(self._preparing, return_exceptions=True)

    # Reading.

    def _take(self, place: TopicPartition, record: Record) -> None:
        topic = place.topic
        if topic == self._topics.releases:
            self._board.put_payload(record.value)
        elif topic == self._topics.labels:
            self._take_label(place, record)
        else:
            self._take_item(place, record)

    def _take_label(self, place: TopicPartition, record: Record) -> None:
        if not record.value:
            self._desk.unlabel((record.key or b"").decode("utf-8", "replace"))
            return
        try:
            check_size(record.value, self._settings.serving.max_message_bytes)
            label = decode_label(record.value)
            _check_key(record.key, label.item_id)
        except BadMessage as error:
            # Those of an earlier run have their letters.
            if record.offset >= self._committed[place]:
                self._dead.append(DeadLetter(record, error.reason, str(error)))
                self._metrics.labels_refused.labels(error.reason).inc()
            return
        self._desk.label(label)
        self._metrics.labels.inc()

    def _take_item(self, place: TopicPartition, record: Record) -> None:
        if not record.value:
            self._desk.withdraw((record.key or b"").decode("utf-8", "replace"))
            return
        at_s = record.timestamp / 1000.0
        try:
            check_size(record.value, self._settings.serving.max_message_bytes)
            item = decode_item(record.value)
            _check_key(record.key, item.item_id)
            if at_s > self._clock_s() + self._settings.serving.max_ahead_s:
                raise BadMessage("future-dated", f"item {item.item_id!r} is of the future")
        except BadMessage as error:
            # Its dead letter is the workers' business.
            self._metrics.items.labels(error.reason).inc()
            return
        story = self._desk.put(item)
        if story is None or not story.entity:
            self._metrics.items.labels("changed" if story is None else "no-entity").inc()
            return
        self._time.saw(at_s, self._pace_s())
        if self._past is not None and record.offset < self._committed[place]:
            self._past_s = max(at_s, self._past_s or at_s)
            self._past.append((story, at_s))
        else:
            self._waiting.append((story, at_s))

    async def _read_alerts(self, places: Sequence[TopicPartition]) -> None:
        consumer = self._consumer
        consumer.assign(places)
        await consumer.seek_to_beginning(*places)
        begins, ends = await self._ends(places)
        goals = {place: end for place, end in ends.items() if end > begins[place]}
        while goals:
            for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
                for record in records:
                    try:
                        self._told.append(decode_json(record.value or b"", Alert))
                    except BadMessage as error:
                        log.warning("alert unreadable", offset=record.offset, error=str(error))
            for place, goal in list(goals.items()):
                if await consumer.position(place) >= goal:
                    del goals[place]

    async def _ends(
        self, places: Sequence[TopicPartition]
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        begins = await self._consumer.beginning_offsets(places)
        return begins, await self._consumer.end_offsets(places)

    # Releases and heads.

    async def _follow(self) -> None:
        """Begin a reading where there is a need, take over one that is ready."""
        if self._preparing is not None:
            # The first has nothing to go on with meanwhile.
            if self._preparing.done() or self._reading is None:
                await self._take_over(self._preparing)
            return
        wanted = self._wanted()
        if wanted is None or self._pace_s() < self._not_before_s:
            return
        reading = self._reading
        if reading is None or reading.release_id != wanted:
            self._preparing = asyncio.create_task(self._prepare(wanted, None))
        elif self._has_news(reading):
            self._preparing = asyncio.create_task(self._prepare(wanted, reading))

    def _wanted(self) -> str | None:
        """What serves, or the newest before it that was not refused here."""
        for notice in reversed(self._board.all()):
            if notice.status == "serving" and notice.release_id not in self._refused:
                return notice.release_id
        return None

    def _has_news(self, reading: Reading) -> bool:
        enough = self._monitor.retrain_labels
        if reading.sentiment.quality is None:
            enough = min(enough, self._monitor.min_labels)
        return self._desk.changed >= enough

    async def _prepare(
        self, release_id: str, reading: Reading | None
    ) -> tuple[Reading, OpinionBook, int]:
        """A reading, a book of the history by it, and how many of the kept stories are in it."""
        log.info("reading a release", release=release_id, labels=self._desk.labels)
        try:
            if reading is None:
                reading = await self._reader.read(release_id, self._desk)
            else:
                reading = await self._reader.again(reading, self._desk)
        except ReleaseRefused:
            self._refused.add(release_id)
            raise
        book = OpinionBook(self._monitor)
        kept = [*self._kept]
        for opinion in await self._reader.opinions(reading, kept):
            book.add(opinion)
        return reading, book, len(kept)

    def _keep_the_past(self) -> None:
        """Once: what an earlier run decided on, as far back as history goes, in order of time."""
        if self._past is None:
            return
        if self._past_s is not None:
            since_s = self._past_s - self._monitor.history_s
            past = [dated for dated in self._past if dated[1] >= since_s]
            self._kept.extend(sorted(past, key=lambda dated: dated[1]))
        self._past = None

    async def _take_over(self, preparing: asyncio.Task[tuple[Reading, OpinionBook, int]]) -> None:
        try:
            reading, book, known = await preparing
        except ReleaseRefused as error:
            self.refusal = f"a release was refused: {error}"
            self._metrics.releases_refused.labels(error.reason).inc()
            log.error("release refused", reason=error.reason, error=str(error))
            return
        except ReleaseError as error:
            self._not_before_s = self._pace_s() + STORE_RETRY_S
            log.warning("release store failed, trying again", error=str(error))
            return
        finally:
            self._preparing = None
        old = self._book
        if old is None:
            decided_s = self._past_s
        else:
            # What came while it was prepared.
            for opinion in await self._reader.opinions(reading, list(self._kept)[known:]):
                book.add(opinion)
            decided_s = old.decided_s
            decided_s = None if decided_s is None else decided_s + self._monitor.late_s
        book.restore(self._told)
        if decided_s is not None:
            book.advance(decided_s, is_past=True)
        self._reading, self._book = reading, book
        self._told_of(reading)

    def _told_of(self, reading: Reading) -> None:
        quality = reading.sentiment.quality
        self._metrics.heads.inc()
        self._metrics.release.info({"release_id": reading.release_id})
        for name in ("macro_f1", "calibration_error", "loss"):
            value = float("nan") if quality is None else getattr(quality, name)
            self._metrics.head_quality.labels(name).set(value)
        log.info(
            "reading",
            release=reading.release_id,
            labels=0 if quality is None else quality.texts,
            macro_f1=None if quality is None else round(quality.macro_f1, 4),
            topics=0 if reading.topics is None else len(reading.topics.names),
        )

    # Judging and telling.

    async def _judge(self) -> list[Alert]:
        reading, book = self._reading, self._book
        if reading is None or book is None:
            return []
        waiting, self._waiting = sorted(self._waiting, key=lambda dated: dated[1]), []
        for opinion in await self._reader.opinions(reading, waiting):
            self._metrics.items.labels(book.add(opinion)).inc()
        self._kept.extend(waiting)
        now_s = self._time.read(self._pace_s())
        if now_s is None:
            return []
        while (
            self._preparing is None  # which counts on their places
            and self._kept
            and self._kept[0][1] < now_s - self._monitor.history_s
        ):
            self._kept.popleft()
        alerts = book.advance(now_s, reading.release_id)
        self._metrics.entities.set(book.entities)
        self._metrics.raised.set(book.raised)
        return alerts

    async def _tell(self, alerts: Sequence[Alert]) -> None:
        """Send, and return when the broker has it.  Raises: BrokerError."""
        if not alerts and not self._dead:
            return
        sent = Sent()
        topics = self._topics
        messages = [Message(_key(alert.entity), encode(alert)) for alert in alerts]
        await self._publisher.send(sent, topics.alerts, 0, messages)
        await self._publisher.send_dead(sent, topics.labels, 0, self._dead)
        await sent.acknowledged()
        self._dead = []
        for alert in alerts:
            self._told.append(alert)
            self._metrics.alerts.labels(alert.state).inc()
            log.info("alert", state=alert.state, reason=alert.reason, alert=alert.alert_id)

    async def _commit(self) -> None:
        """Everything that was read has been decided on, or will be found again by its time."""
        if self._reading is None:
            return
        places = {place: await self._consumer.position(place) for place in self._committed}
        if places != self._committed:
            await self._consumer.commit(places)
            self._committed = places


def _key(entity: str) -> bytes:
    return entity.encode("utf-8", "surrogatepass")


def _check_key(key: bytes | None, item_id: str) -> None:
    if key != check_key(item_id):
        raise BadMessage(
            "wrong-key",
            f"the record's key is {key!r}, but its item_id is {item_id!r}; the topic is compacted "
            "by key: produce with the item's id as key",
        )
