"""The monitor's turns over hand-made topics: what is told, committed, learned and refused.

The same against a real broker and a real language model: tests/kafka/test_monitor.py.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import cast

import msgspec
import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from prometheus_client import CollectorRegistry

from profiles.config import Settings, load_settings
from profiles.errors import BadMessage, ReleaseRefused
from profiles.items import Item
from profiles.metrics import MonitorMetrics
from profiles.notices import ReleaseNotice
from profiles.opinions import Alert, Label, decode_label
from profiles.topics import Topics
from profiles.wire import decode_json, encode
from stream.codecs import DeadLetter
from stream.monitor.classes import SENTIMENTS, ClassHead, Quality
from stream.monitor.desk import Desk, Story
from stream.monitor.reading import Reader, Reading
from stream.monitor.service import Monitor
from stream.monitor.windows import Opinion
from stream.publisher import Message, Publisher, Sent
from tests.unit.builders import make_release

pytestmark = pytest.mark.unit

TOPICS = Topics.under()
BEGAN_S = 1_700_000_000.0
SETTINGS = load_settings(
    monitor={
        "bucket_s": 60.0, "window_s": 600.0, "late_s": 0.0, "warm_up_s": 1800.0, "calm_s": 300.0,
        "season_s": 3600.0, "min_labels": 10, "retrain_labels": 5,
    }
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Stored:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    timestamp_type: int = 0
    headers: Sequence[tuple[str, bytes]] = ()


@dataclass
class Broker:
    """Topics of one partition each, and what the group has committed."""

    logs: defaultdict[str, list[Stored]] = field(default_factory=lambda: defaultdict(list))
    committed: dict[TopicPartition, int] = field(default_factory=dict)

    def put(self, topic: str, key: str, value: bytes | None, at_s: float = BEGAN_S) -> None:
        log = self.logs[topic]
        log.append(Stored(len(log), int(at_s * 1000), key.encode(), value))

    def alerts(self) -> list[Alert]:
        return [decode_json(record.value or b"", Alert) for record in self.logs[TOPICS.alerts]]


class Consumer:
    """Those of aiokafka's methods that the monitor uses."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at: dict[TopicPartition, int] = {}
        self._client = self

    async def fetch_all_metadata(self) -> SimpleNamespace:
        return SimpleNamespace(partitions_for_topic=lambda _: {0})

    def assign(self, places: Sequence[TopicPartition]) -> None:
        self._at = dict.fromkeys(places, 0)

    async def seek_to_beginning(self, *places: TopicPartition) -> None:
        self._at.update(dict.fromkeys(places, 0))

    async def beginning_offsets(
        self, places: Sequence[TopicPartition]
    ) -> dict[TopicPartition, int]:
        return dict.fromkeys(places, 0)

    async def end_offsets(self, places: Sequence[TopicPartition]) -> dict[TopicPartition, int]:
        return {place: len(self._broker.logs[place.topic]) for place in places}

    async def committed(self, place: TopicPartition) -> int | None:
        return self._broker.committed.get(place)

    async def commit(self, places: dict[TopicPartition, int]) -> None:
        self._broker.committed.update(places)

    async def position(self, place: TopicPartition) -> int:
        return self._at[place]

    async def getmany(self, **_: object) -> dict[TopicPartition, list[Stored]]:
        await asyncio.sleep(0)  # a real one lets others run, too
        found = {place: self._broker.logs[place.topic][at:] for place, at in self._at.items()}
        self._at = {place: self._at[place] + len(records) for place, records in found.items()}
        return {place: records for place, records in found.items() if records}


class Sending:
    """A publisher that the broker acknowledges at once."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.dead: list[DeadLetter] = []

    async def send(self, _: Sent, topic: str, partition: int, messages: list[Message]) -> None:
        for message in messages:
            self._broker.put(topic, (message.key or b"").decode(), message.value)

    async def send_dead(self, _: Sent, topic: str, partition: int, dead: list[DeadLetter]) -> None:
        self.dead += dead


class WordReader:
    """Reads `bad` for negative; how sure it is depends on the release, as with real ones."""

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.read_with: list[tuple[str, int]] = []

    async def read(self, release_id: str, desk: Desk) -> Reading:
        if release_id in self.refused:
            raise ReleaseRefused("hash", f"{release_id} is damaged")
        return self._made(release_id, desk)

    async def again(self, reading: Reading, desk: Desk) -> Reading:
        return self._made(reading.release_id, desk)

    def _made(self, release_id: str, desk: Desk) -> Reading:
        desk.taken()
        release = make_release([])
        manifest = msgspec.structs.replace(release.manifest, release_id=release_id)
        labels = len(desk.sentiments())
        quality = Quality(labels, 0.1, 0.7, 0.9, 0.01) if labels else None
        head = ClassHead(release_id, SENTIMENTS, np.zeros((1, 3)), np.zeros(3), quality=quality)
        self.read_with.append((release_id, labels))
        return Reading(
            type(release)(manifest, release.directory, release.head, release.items,
                          release.probe_vectors),
            head, None,
        )  # fmt: skip

    async def opinions(
        self, reading: Reading, stories: Sequence[tuple[Story, float]]
    ) -> list[Opinion]:
        sure = 0.9 if reading.release_id == "r1" else 0.6
        return [
            Opinion(s.item_id, s.entity, at_s, sure if "bad" in s.text else 1.0 - sure, "", s.title)
            for s, at_s in stories
        ]


class World:
    """A broker, and monitors one after another on it.  Time is the items'."""

    def __init__(self, settings: Settings = SETTINGS) -> None:
        self.settings = settings
        self.broker = Broker()
        self.reader = WordReader()
        self.minute = 0
        self.serve("r1", 1)

    def serve(self, release_id: str, sequence: int) -> None:
        notice = ReleaseNotice(release_id, "serving", sequence, "store")
        self.broker.put(TOPICS.releases, release_id, encode(notice))

    def play(self, minutes: int, bad: int) -> None:
        for _ in range(minutes):
            for number in range(2 + bad):
                kind = "bad" if number < bad + (self.minute % 3 == 0) else "good"
                name = f"{self.minute}-{number}"
                item = Item(name, f"{kind} {name}", attributes={"entity": "Acme"})
                at_s = BEGAN_S + 60.0 * self.minute
                self.broker.put(TOPICS.items, name, encode(item), at_s)
            self.minute += 1

    async def start(self) -> Monitor:
        self.sending = Sending(self.broker)
        self.metrics = MonitorMetrics(CollectorRegistry())
        monitor = Monitor(
            self.settings,
            cast(Reader, self.reader),
            cast(AIOKafkaConsumer, Consumer(self.broker)),
            cast(Publisher, self.sending),
            self.metrics,
            clock_s=lambda: BEGAN_S + 60.0 * self.minute,
            pace_s=lambda: 0.0,
        )
        await monitor.begin()
        await self.turn(monitor)
        return monitor

    async def turn(self, monitor: Monitor, times: int = 4) -> None:
        for _ in range(times):
            await monitor.turn()

    def count(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


async def test_a_surge_is_told_once_and_its_end_once() -> None:
    world = World()
    world.play(120, 0)
    monitor = await world.start()
    assert monitor.why_not_ready() is None
    assert world.broker.alerts() == []
    for _ in range(10):
        world.play(1, 6)
        await world.turn(monitor)
    assert [alert.state for alert in world.broker.alerts()] == ["raised"]
    for _ in range(40):
        world.play(1, 0)
        await world.turn(monitor)
    raised, recovered = world.broker.alerts()
    assert (recovered.state, recovered.alert_id) == ("recovered", raised.alert_id)
    assert world.count("driftline_monitor_alerts_total", state="recovered") == 1
    assert {each.title.split()[0] for each in raised.evidence} == {"bad"}


async def test_a_restart_tells_nothing_twice_and_ends_what_stands() -> None:
    world = World()
    world.play(120, 0)
    world.play(10, 6)
    await world.start()
    assert [alert.state for alert in world.broker.alerts()] == ["raised"]
    monitor = await world.start()
    assert len(world.broker.alerts()) == 1
    assert world.count("driftline_monitor_raised") == 1
    world.play(40, 0)
    await world.turn(monitor)
    assert [alert.state for alert in world.broker.alerts()] == ["raised", "recovered"]


async def test_killed_between_telling_and_committing_it_tells_nothing_twice() -> None:
    world = World()
    world.play(120, 0)
    await world.start()
    before = dict(world.broker.committed)
    world.play(10, 6)
    await world.start()
    assert len(world.broker.alerts()) == 1
    world.broker.committed = before
    await world.start()
    assert len(world.broker.alerts()) == 1


async def test_what_came_while_it_was_down_is_told_when_it_is_back() -> None:
    world = World()
    world.play(120, 0)
    await world.start()
    world.play(10, 6)
    world.play(40, 0)
    await world.start()
    assert [alert.state for alert in world.broker.alerts()] == ["raised", "recovered"]


async def test_another_release_is_no_surge_although_it_judges_differently() -> None:
    world = World()
    world.play(120, 0)
    monitor = await world.start()
    world.serve("r2", 2)
    for _ in range(60):
        world.play(1, 0)
        await world.turn(monitor)
    assert world.reader.read_with[-1][0] == "r2"
    assert world.broker.alerts() == []
    world.play(10, 6)
    await world.turn(monitor)
    [raised] = world.broker.alerts()
    assert raised.release_id == "r2"


async def test_an_alert_stands_through_a_swap() -> None:
    world = World()
    world.play(120, 0)
    world.play(10, 6)
    monitor = await world.start()
    world.serve("r2", 2)
    await world.turn(monitor)
    world.play(5, 6)
    await world.turn(monitor)
    world.play(40, 0)
    await world.turn(monitor)
    raised, recovered = world.broker.alerts()
    assert (raised.release_id, recovered.release_id) == ("r1", "r2")
    assert raised.alert_id == recovered.alert_id


async def test_a_refused_release_leaves_the_old_one_reading_and_is_not_tried_again() -> None:
    world = World()
    world.play(10, 0)
    world.reader.refused.add("r2")
    monitor = await world.start()
    world.serve("r2", 2)
    await world.turn(monitor, 10)
    assert world.count("driftline_monitor_releases_refused_total", reason="hash") == 1
    assert monitor.why_not_ready() is None
    assert [release for release, _ in world.reader.read_with] == ["r1"]


async def test_labels_before_and_after_their_items_train_heads_when_there_are_enough() -> None:
    world = World()
    world.play(10, 0)
    for number in range(9):
        world.broker.put(TOPICS.labels, f"{number}-0", encode(Label(f"{number}-0", "negative")))
    monitor = await world.start()
    assert world.reader.read_with == [("r1", 9)]
    for name in ("9-0", "9-1", "10-0", "10-1", "11-0"):
        world.broker.put(TOPICS.labels, name, encode(Label(name, "neutral")))
    await world.turn(monitor)
    assert world.reader.read_with[1:] == [("r1", 11)], "three of the items are not there yet"
    world.play(2, 0)
    world.broker.put(TOPICS.labels, "9-0", None)
    for name in ("0-1", "1-1", "2-1", "3-1"):
        world.broker.put(TOPICS.labels, name, encode(Label(name, "neutral")))
    await world.turn(monitor)
    assert world.reader.read_with[2:] == [("r1", 17)]


async def test_a_bad_label_is_a_dead_letter_once_with_its_bytes_and_the_next_one_counts() -> None:
    world = World()
    world.broker.put(TOPICS.labels, "a", b"{")
    world.broker.put(TOPICS.labels, "b", b'{"item_id": "b"}')
    world.broker.put(TOPICS.labels, "c", encode(Label("d", "negative")))
    world.broker.put(TOPICS.labels, "e", b'{"item_id": "e", "sentiment": "angry"}')
    world.broker.put(TOPICS.labels, "f", encode(Label("f", "negative")))
    await world.start()
    assert [letter.reason for letter in world.sending.dead] == [
        "malformed", "no-label", "wrong-key", "invalid",
    ]  # fmt: skip
    assert world.sending.dead[0].record.value == b"{"
    assert world.count("driftline_monitor_labels_total") == 1
    await world.start()
    assert world.sending.dead == []


async def test_items_that_are_bad_or_of_the_future_or_of_nobody_are_counted_and_passed_over() -> (
    None
):
    world = World()
    world.broker.put(TOPICS.items, "a", b"{")
    world.broker.put(TOPICS.items, "b", encode(Item("b", "no entity")))
    late = encode(Item("c", "bad", attributes={"entity": "Acme"}))
    world.broker.put(TOPICS.items, "c", late, BEGAN_S + 1e6)
    world.play(1, 0)
    await world.start()
    counted = {
        name: world.count("driftline_monitor_items_total", outcome=name)
        for name in ("malformed", "no-entity", "future-dated", "counted")
    }
    assert counted == {"malformed": 1, "no-entity": 1, "future-dated": 1, "counted": 2}


def test_an_item_that_is_changed_is_not_news_again_and_its_label_goes_with_it() -> None:
    desk = Desk(Item.full_text, "entity")
    first = desk.put(Item("a", "bad", attributes={"entity": "Acme"}))
    assert first == Story("a", "Acme", "bad", "bad")
    desk.label(Label("a", "negative", "loans"))
    assert desk.put(Item("a", "worse", attributes={"entity": "Acme"})) is None
    assert desk.sentiments() == [("negative", "worse")]
    assert desk.topics(1) == (("loans",), [("loans", "worse")])
    assert desk.topics(2) == ((), [])
    desk.withdraw("a")
    assert desk.sentiments() == []


def test_the_same_label_again_is_nothing_new() -> None:
    desk = Desk(Item.full_text, "entity")
    desk.label(Label("a", "negative"))
    desk.label(Label("a", "negative"))
    assert desk.changed == 1
    desk.unlabel("a")
    desk.unlabel("a")
    assert desk.changed == 2


def test_a_label_that_says_nothing_is_refused() -> None:
    with pytest.raises(BadMessage, match="neither sentiment nor topic"):
        decode_label(b'{"item_id": "a"}')
