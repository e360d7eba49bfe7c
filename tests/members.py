"""A member of a consumer group, for tests that need one of kafka-python's."""

from __future__ import annotations

import time

from kafka import KafkaConsumer

from tests.deployment import WAIT_S

JOINS = 3


def join_group(bootstrap: str, topic: str, group: str) -> KafkaConsumer:
    """A member of the group that owns partitions of the topic, read from their beginning.

    One that joins before it has seen the topic's metadata can wait for its partitions for good
    (kafka-python 3.0.12, seen twice in some hundred joins): another takes its place.
    """
    for _ in range(JOINS):
        consumer = KafkaConsumer(topic, bootstrap_servers=bootstrap, group_id=group)
        deadline = time.monotonic() + WAIT_S / JOINS
        while time.monotonic() < deadline:
            consumer.poll(100)
            if consumer.assignment():
                consumer.seek_to_beginning()  # behind what this poll may have fetched
                return consumer
        consumer.close(autocommit=False)
    raise AssertionError(f"{JOINS} members of {group} waited in vain for their partitions")
