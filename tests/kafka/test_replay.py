"""A data set replayed into a real broker arrives whole, in order and keyed as others key it."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.partitioner.default import murmur2

from profiles.errors import BrokerError, TopicError
from profiles.events import decode_event
from profiles.items import decode_item
from profiles.settings.kafka import BrokerSettings
from profiles.topics import Topics, topic_specs
from profiles.wire import encode
from stream.broker import EmbeddedKafka
from stream.datasets import Dataset, load_dataset
from stream.replay import ReplayOptions, replay
from stream.topic_admin import create_topics

pytestmark = pytest.mark.kafka


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    return load_dataset("synthetic:users=50,items=60,events=3000")


@pytest.fixture
def broker(kafka: EmbeddedKafka) -> BrokerSettings:
    return BrokerSettings(bootstrap=kafka.bootstrap)


def read_all(bootstrap: str, topic: str) -> list[Any]:  # Any: kafka-python's records are untyped
    """Every record of a topic, partition after partition."""
    with KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False) as consumer:
        places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        ends = consumer.end_offsets(places)
        records = []
        while any(consumer.position(place) < ends[place] for place in places):
            for chunk in consumer.poll(timeout_ms=200).values():
                records.extend(chunk)
    return sorted(records, key=lambda record: (record.partition, record.offset))


def test_a_replay_arrives_whole_and_in_each_user_s_order(
    broker: BrokerSettings, topics: str, dataset: Dataset
) -> None:
    names = Topics.under(topics)
    report = replay(dataset, broker, names, show_progress=False)
    assert (report.items, report.events, report.stopped) == (60, 3000, False)
    records = read_all(broker.bootstrap, names.events)
    events = [decode_event(record.value, now_s=time.time(), max_ahead_s=0.0) for record in records]
    assert {event.event_id for event in events} == {event.event_id for event in dataset.events}
    assert all(
        record.key == event.user_id.encode() for record, event in zip(records, events, strict=True)
    )
    for partition, last in report.last_offsets.items():
        mine = [
            event
            for record, event in zip(records, events, strict=True)
            if record.partition == partition
        ]
        assert len(mine) == last - report.first_offsets[partition] + 1
        assert [event.ts for event in mine] == sorted(event.ts for event in mine)
    items = [decode_item(record.value) for record in read_all(broker.bootstrap, names.items)]
    assert items == dataset.items


def test_keys_land_where_java_clients_put_them(
    broker: BrokerSettings, topics: str, dataset: Dataset
) -> None:
    names = Topics.under(topics)
    replay(dataset, broker, names, ReplayOptions(limit=500), show_progress=False)
    for record in read_all(broker.bootstrap, names.events):
        assert record.partition == (murmur2(record.key) & 0x7FFFFFFF) % 4


def test_murmur2_is_java_s() -> None:
    # From Kafka's own UtilsTest.java; the four values pin the hash for every client.
    assert murmur2(b"21") - 2**32 == -973932308
    assert murmur2(b"foobar") - 2**32 == -790332482
    assert murmur2(b"a-little-bit-long-string") - 2**32 == -985981536
    assert murmur2(b"abc") == 479470107


def test_restamped_events_end_now_and_keep_their_distances(
    broker: BrokerSettings, topics: str, dataset: Dataset
) -> None:
    names = Topics.under(topics)
    began = time.time()
    options = ReplayOptions(limit=100, restamp=True, items=False, cloud_events=True)
    report = replay(dataset, broker, names, options, show_progress=False)
    assert (report.items, report.events) == (0, 100)
    records = read_all(broker.bootstrap, names.events)
    times = sorted(
        decode_event(record.value, now_s=time.time(), max_ahead_s=1.0).ts for record in records
    )
    original = [event.ts for event in dataset.events[:100]]
    assert began <= times[-1] + 1e-3 <= time.time() + 1.0
    assert times[-1] - times[0] == pytest.approx(original[-1] - original[0], abs=1e-3)
    assert all(dict(record.headers)["ce_specversion"] == b"1.0" for record in records)


def test_a_stop_ends_the_replay_with_what_was_sent_acknowledged(
    broker: BrokerSettings, topics: str, dataset: Dataset
) -> None:
    stop = threading.Event()

    def stop_at_100(sent: int) -> None:
        if sent == 100:
            stop.set()

    names = Topics.under(topics)
    report = replay(dataset, broker, names, gate=stop_at_100, stop=stop, show_progress=False)
    assert (report.stopped, report.events) == (True, 100)
    assert len(read_all(broker.bootstrap, names.events)) == 100


def test_a_broker_that_is_not_there_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{free.getsockname()[1]}"
    broker = BrokerSettings(bootstrap=nobody, connect_timeout_s=5.0)
    with pytest.raises(BrokerError, match=f"no Kafka at {nobody}"):
        replay(load_dataset("synthetic:events=10"), broker, Topics.under(), show_progress=False)


def test_a_missing_topic_is_named(broker: BrokerSettings, prefix: str, dataset: Dataset) -> None:
    with pytest.raises(TopicError, match=f"no topic {prefix}.items.v1, .*topics create"):
        replay(dataset, broker, Topics.under(prefix), show_progress=False)


def test_the_first_event_is_the_data_set_s_first(
    broker: BrokerSettings, topics: str, dataset: Dataset
) -> None:
    names = Topics.under(topics)
    replay(dataset, broker, names, ReplayOptions(limit=1, rate=100.0), show_progress=False)
    (record,) = read_all(broker.bootstrap, names.events)
    assert record.value == encode(dataset.events[0])


def test_a_broker_that_dies_ends_the_replay_with_what_was_delivered(
    dataset: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stream.outbox.DELIVERY_TIMEOUT_S", 2.0)
    with EmbeddedKafka() as broken:
        create_topics(broken.bootstrap, topic_specs())

        def kill_at_1000(sent: int) -> None:
            if sent == 1000:
                broken.kill()

        broker = BrokerSettings(bootstrap=broken.bootstrap)
        with pytest.raises(BrokerError, match=r"did not acknowledge .*60 on driftline\.items"):
            replay(dataset, broker, Topics.under(), gate=kill_at_1000, show_progress=False)
