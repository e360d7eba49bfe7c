"""What tests share: a real broker for the whole session, and topics of its own for each test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from profiles.topics import topic_specs
from stream.broker import EmbeddedKafka
from stream.topic_admin import create_topics


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """An Apache Kafka that all tests share: to stop or kill one, start your own."""
    with EmbeddedKafka() as broker:
        yield broker


@pytest.fixture
def prefix() -> str:
    """A topic prefix that no other test has."""
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def topics(kafka: EmbeddedKafka, prefix: str) -> str:
    """The prefix under which every topic of the contract now exists, with four partitions."""
    create_topics(kafka.bootstrap, topic_specs(prefix))
    return prefix
