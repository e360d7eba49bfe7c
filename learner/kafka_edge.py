"""Where the learner touches Kafka: connecting, reading to an end, sending with acknowledgement.

kafka-python throughout: the learner is no hot path.  Its errors become ours here, so that no other
file needs to know them.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import msgspec
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import KafkaError

from profiles.broker_access import security_options
from profiles.config import Settings
from profiles.errors import BadMessage, BrokerError, TopicError
from profiles.key_store import KeyMap
from profiles.sealing import MasterKeys, is_sealed, no_key
from profiles.topics import Topics
from profiles.wire import decode_json

Kind = TypeVar("Kind", bound=msgspec.Struct)

SEND_TIMEOUT_S = 30.0
POLL_MS = 200

# Any, throughout: kafka-python carries no types.
Record = Any


def open_consumer(settings: Settings, group: str | None = None) -> KafkaConsumer:
    """A consumer that assigns its own partitions and commits only when told.

    Raises: BrokerError when no broker answers within `broker.connect_timeout_s`.
    """
    _await_broker(settings)
    timeout_ms = int(settings.broker.connect_timeout_s * 1000)
    try:
        return KafkaConsumer(
            bootstrap_servers=settings.broker.bootstrap.split(","),
            bootstrap_timeout_ms=timeout_ms,
            group_id=group,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=5_000,
            fetch_max_wait_ms=100,
            **security_options(settings.broker),
        )
    except (KafkaError, OSError, ValueError) as error:
        raise _unreachable(settings, error) from error


def open_producer(settings: Settings) -> KafkaProducer:
    """A producer that waits for every in-sync replica.  Raises: BrokerError."""
    _await_broker(settings)
    try:
        return KafkaProducer(
            bootstrap_servers=settings.broker.bootstrap.split(","),
            bootstrap_timeout_ms=int(settings.broker.connect_timeout_s * 1000),
            acks="all",
            max_request_size=2**20,
            **security_options(settings.broker),
        )
    except (KafkaError, OSError, ValueError) as error:
        raise _unreachable(settings, error) from error


def _await_broker(settings: Settings) -> None:
    """Wait until one of the bootstrap addresses accepts a connection.

    kafka-python would do the same, but leaves its sockets open when none does.
    Raises: BrokerError after `broker.connect_timeout_s`.
    """
    deadline = time.monotonic() + settings.broker.connect_timeout_s
    while True:
        for address in settings.broker.bootstrap.split(","):
            host, _, port = address.strip().rpartition(":")
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
            except (OSError, ValueError, OverflowError) as error:
                if time.monotonic() > deadline:
                    raise _unreachable(settings, error) from error
            else:
                return
        time.sleep(0.1)


def _unreachable(settings: Settings, error: Exception) -> BrokerError:
    return BrokerError(
        f"no Kafka broker answers at {settings.broker.bootstrap!r} within "
        f"{settings.broker.connect_timeout_s:g} s ({error}); start one, or set "
        "DRIFTLINE_BROKER__BOOTSTRAP"
    )


@contextmanager
def close_on_error(client: KafkaConsumer) -> Iterator[None]:
    """Disconnect if what follows fails: a half-made object has no owner who would."""
    try:
        yield
    except BaseException:
        client.close()
        raise


def partitions_of(consumer: KafkaConsumer, topic: str, timeout_s: float) -> list[TopicPartition]:
    """Every partition of a topic.  Raises: TopicError when it does not exist, BrokerError."""
    deadline = time.monotonic() + min(timeout_s, 5.0)
    while True:
        try:
            numbers = consumer.partitions_for_topic(topic)
        except KafkaError as error:
            raise BrokerError(f"topic {topic!r} cannot be looked up: {error}") from error
        if numbers:
            return [TopicPartition(topic, number) for number in sorted(numbers)]
        if time.monotonic() > deadline:
            raise TopicError(f"topic {topic!r} does not exist: run `driftline topics create`")
        time.sleep(0.1)


def poll(consumer: KafkaConsumer, timeout_ms: int) -> dict[TopicPartition, list[Record]]:
    """One poll.  A broker that is away for a while gives nothing; the client reconnects."""
    try:
        found: dict[TopicPartition, list[Record]] = consumer.poll(timeout_ms=timeout_ms)
    except KafkaError as error:
        if getattr(error, "retriable", False):
            time.sleep(timeout_ms / 1000)
            return {}
        raise BrokerError(f"reading from Kafka failed: {error!r}") from error
    return found


def end_offsets(
    consumer: KafkaConsumer, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """Where each partition ends now.  Raises: BrokerError."""
    try:
        found: dict[TopicPartition, int] = consumer.end_offsets(list(partitions))
    except KafkaError as error:
        raise BrokerError(f"end offsets cannot be read: {error!r}") from error
    return found


def read_to_end(consumer: KafkaConsumer, topic: str, timeout_s: float) -> Iterator[Record]:
    """Every record that stands in a topic now.  Raises: TopicError, BrokerError."""
    partitions = partitions_of(consumer, topic, timeout_s)
    consumer.assign(partitions)
    consumer.seek_to_beginning(*partitions)
    ends = end_offsets(consumer, partitions)
    waiting_since = time.monotonic()
    while any(consumer.position(tp) < end for tp, end in ends.items()):
        found = poll(consumer, POLL_MS)
        if found:
            waiting_since = time.monotonic()
        elif time.monotonic() - waiting_since > max(timeout_s, 1.0):
            raise BrokerError(
                f"topic {topic!r} gave nothing for {timeout_s:g} s before its end was reached; "
                "check the broker's log"
            )
        for records in found.values():
            yield from records


def read_messages(
    settings: Settings, topic: str, kind: type[Kind], purpose: bytes | None = None
) -> list[Kind]:
    """Every message of a kind that stands in a topic now; what cannot be read is passed over.

    `purpose`: of the sealing, where the topic may be encrypted.
    Raises: TopicError, BrokerError, SealError.
    """
    consumer = open_consumer(settings)
    found: list[Kind] = []
    timeout_s = settings.broker.connect_timeout_s
    service = MasterKeys.of(settings.privacy) if purpose is not None else None
    keys = None if service is None else KeyMap(service)
    try:
        if keys is not None:
            named = Topics.under(settings.topics.prefix).keys
            for record in read_to_end(consumer, named, timeout_s):
                keys.take(record.key, record.value)
        for record in read_to_end(consumer, topic, timeout_s):
            value = record.value
            if keys is not None and purpose is not None:
                value = keys.sealer.open(purpose, record.key or b"", value)
            elif is_sealed(value):
                raise no_key()
            try:
                found.append(decode_json(value or b"", kind))
            except BadMessage:
                continue
    finally:
        consumer.close()
    return found


def send_all(producer: KafkaProducer, topic: str, messages: Sequence[tuple[bytes, bytes]]) -> None:
    """Send (key, value) pairs and await their acknowledgement.  Raises: BrokerError."""
    try:
        sent = [producer.send(topic, key=key, value=value) for key, value in messages]
        for future in sent:
            future.get(SEND_TIMEOUT_S)
    except KafkaError as error:
        raise BrokerError(
            f"{len(messages)} message(s) to {topic!r} were not acknowledged: {error!r}"
        ) from error
