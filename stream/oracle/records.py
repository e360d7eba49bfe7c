"""Every record that stands in a topic, read in no group, from its beginning to its present end.

kafka-python, where the workers use aiokafka: a fault of one client should not hide in both.
Checksums are left to the broker, which verified them on arrival: in pure Python they would cost
more than everything else here.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from profiles.broker_access import security_options
from profiles.errors import BrokerError, TopicError
from profiles.settings.kafka import BrokerSettings

POLL_MS = 500
SILENCE_S = 30.0
"""A broker that gives nothing for so long before the end is reached is not going to."""


@dataclass(frozen=True, slots=True)
class Raw:
    """One record as it stands in the log.  `timestamp_ms` is the topic's kind of time."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...] = ()


def read_topic(
    broker: BrokerSettings,
    topic: str,
    partitions: Collection[int] | None = None,
    since: Mapping[int, int] | None = None,
) -> Iterator[Raw]:
    """Records of all partitions, or of those named; those of one partition in order.

    `since`: for some partitions, an offset to begin at instead of the first that there is.
    Raises: BrokerError, TopicError.
    """
    with _consumer(broker, topic) as consumer:
        numbers = _partitions(consumer, topic)
        chosen = set(numbers).intersection(partitions or numbers)
        places = [TopicPartition(topic, number) for number in sorted(chosen)]
        if not places:
            return  # asked for partitions that there are not
        consumer.assign(places)
        consumer.seek_to_beginning(*places)
        begins = consumer.beginning_offsets(places)
        for place in places:
            if since and place.partition in since:
                consumer.seek(place, max(begins[place], since[place.partition]))
        ends = consumer.end_offsets(places)
        heard_s = time.monotonic()
        while any(consumer.position(place) < end for place, end in ends.items()):
            fetched = consumer.poll(timeout_ms=POLL_MS)
            if fetched:
                heard_s = time.monotonic()
            elif time.monotonic() - heard_s > SILENCE_S:
                raise BrokerError(f"topic {topic!r} gave nothing for {SILENCE_S:.0f} s")
            for place, records in fetched.items():
                for record in records:
                    # What is produced while we read belongs to the next check.
                    if record.offset < ends[place]:
                        yield Raw(
                            place.partition,
                            record.offset,
                            record.timestamp,
                            record.key,
                            record.value,
                            tuple(record.headers or ()),
                        )


def ends_of(broker: BrokerSettings, topic: str) -> dict[int, int]:
    """The offset after the last record of each partition.  Raises: BrokerError, TopicError."""
    with _consumer(broker, topic) as consumer:
        places = [TopicPartition(topic, number) for number in _partitions(consumer, topic)]
        return {place.partition: end for place, end in consumer.end_offsets(places).items()}


@contextlib.contextmanager
def _consumer(broker: BrokerSettings, topic: str) -> Iterator[KafkaConsumer]:
    try:
        consumer = KafkaConsumer(
            bootstrap_servers=broker.bootstrap.split(","),
            bootstrap_timeout_ms=int(broker.connect_timeout_s * 1000),
            enable_auto_commit=False,
            check_crcs=False,
            max_poll_records=10_000,
            max_partition_fetch_bytes=8 * 2**20,
            fetch_max_wait_ms=50,
            **security_options(broker),
        )
    except (KafkaError, OSError) as error:
        raise BrokerError(f"no Kafka at {broker.bootstrap}: {error!r}") from error
    try:
        yield consumer
    except KafkaError as error:
        raise BrokerError(f"topic {topic!r} cannot be read: {error!r}") from error
    finally:
        consumer.close()


def _partitions(consumer: KafkaConsumer, topic: str) -> set[int]:
    numbers: set[int] | None = consumer.partitions_for_topic(topic)
    if not numbers:
        raise TopicError(f"topic {topic!r} does not exist: run `driftline topics create`")
    return numbers
