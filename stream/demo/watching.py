"""What the demo reads from Kafka while it runs: how far the workers are, and what they say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaConsumer, TopicPartition

from profiles.config import Settings
from profiles.topics import Topics
from stream.datasets import Dataset

SHOWN_USERS = 3
SHOWN_LIKES = 3
LIKED_FROM = 4.0
POLLED = 2_000


class GroupLag:
    """Records of the events topic that the workers' group has not committed."""

    def __init__(self, settings: Settings) -> None:
        # A member that never subscribes joins nothing; it may still ask what is committed.
        self._consumer = KafkaConsumer(
            bootstrap_servers=settings.broker.bootstrap.split(","),
            group_id=settings.serving.group,
            enable_auto_commit=False,
        )
        topic = Topics.under(settings.topics.prefix).events
        self._places = [
            TopicPartition(topic, number)
            for number in sorted(self._consumer.partitions_for_topic(topic) or ())
        ]
        self._consumer.assign(self._places)

    def lag(self) -> int:
        """How many, over all partitions."""
        ends = self._consumer.end_offsets(self._places)
        return sum(ends[place] - (self._consumer.committed(place) or 0) for place in self._places)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close(autocommit=False)


@dataclass(frozen=True, slots=True)
class Shown:
    """One user's latest recommendation, and what she liked before."""

    user: str
    release_id: str
    titles: list[str]
    because: list[str]
    liked: list[str]


@dataclass(slots=True)
class Tail:
    """The newest recommendations of a few users, for the live view."""

    settings: Settings
    dataset: Dataset
    # Any: kafka-python has no types.
    _consumer: Any = None
    _newest: dict[bytes, bytes] = field(default_factory=dict)
    _likes: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        topic = Topics.under(self.settings.topics.prefix).recommendations
        self._consumer = KafkaConsumer(
            bootstrap_servers=self.settings.broker.bootstrap.split(","),
            enable_auto_commit=False,
            check_crcs=False,
            max_poll_records=POLLED,
        )
        places = [
            TopicPartition(topic, number)
            for number in sorted(self._consumer.partitions_for_topic(topic) or ())
        ]
        self._consumer.assign(places)
        self._consumer.seek_to_end(*places)
        titles = {item.item_id: item.title for item in self.dataset.items}
        for number, event in enumerate(self.dataset.events):
            if (event.value or 0.0) >= LIKED_FROM:
                liked = self._likes.setdefault(event.user_id, [])
                liked.append((number, titles.get(event.item_id, event.item_id)))

    def newest(self, sent: int) -> Sequence[Shown]:
        """Whoever was recommended something last; `sent`: events replayed so far."""
        for records in self._consumer.poll(timeout_ms=0).values():
            for record in records:
                if record.key and record.value:
                    self._newest.pop(record.key, None)
                    self._newest[record.key] = record.value
        for old in list(self._newest)[:-SHOWN_USERS]:
            del self._newest[old]
        return [self._shown(payload, sent) for payload in reversed(self._newest.values())]

    def _shown(self, payload: bytes, sent: int) -> Shown:
        found = json.loads(payload)
        items = found["items"][:3]
        reasons = [item.get("reasons", [{}])[0] for item in items]
        liked = [title for at, title in self._likes.get(found["user_id"], []) if at < sent]
        return Shown(
            found["user_id"],
            found["release_id"],
            [item.get("title") or item["item_id"] for item in items],
            [str(reason.get("title") or reason.get("kind", "")) for reason in reasons],
            liked[-SHOWN_LIKES:],
        )

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()
