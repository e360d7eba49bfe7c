"""The topics of the contract: their names, keys, partition counts and cleanup policies.

Pure values: `stream.topic_admin` creates and checks them, everyone else reads names from `Topics`.
All topics keyed by user have the same partition count, so that a user's events, requests, profile
and erasures lie in partitions of one number and one worker owns them together.

Two settings surprise. Kafka deletes whole segments, so a record outlives `retention.ms` by up to
one segment's age: retention is the promised age less `segment.ms` and an hour for the broker's
own rounds. And deleted-by-age topics are stamped by the broker: a replayed data set that carries
timestamps of 1997 would otherwise be deleted within minutes of being written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from profiles.errors import TopicError

__all__ = ["DEFAULT_PARTITIONS", "DEFAULT_PREFIX", "TopicSpec", "Topics", "topic_specs"]

CleanupPolicy = Literal["delete", "compact", "compact,delete"]

DEFAULT_PREFIX = "driftline"
DEFAULT_PARTITIONS = 4

KIB = 1024
MIB = 1024 * KIB
HOUR_MS = 60 * 60 * 1000
DAY_MS = 24 * HOUR_MS

MESSAGE_BYTES = MIB
# A dead letter is the original message plus its error headers: it must fit where it came from.
DEAD_LETTER_BYTES = 2 * MIB
DEAD_LETTERED = ("events", "items", "users", "requests", "erasures", "labels")


@dataclass(frozen=True, slots=True)
class TopicSpec:
    """One topic as it must be. `key` names the payload field that is the record's key.

    `config` holds the topic's settings but its cleanup policy; `settings` holds both.
    """

    name: str
    key: str
    partitions: int
    cleanup_policy: CleanupPolicy
    config: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def settings(self) -> dict[str, str]:
        """Every setting to create the topic with, by Kafka's names."""
        return {"cleanup.policy": self.cleanup_policy, **self.config}


@dataclass(frozen=True, slots=True)
class Topics:
    """The full name of every topic under one prefix.

    >>> topics = Topics.under("shop")
    >>> topics.events, topics.dlq(topics.events)
    ('shop.events.v1', 'shop.events.v1.dlq')
    """

    events: str
    items: str
    users: str
    requests: str
    recommendations: str
    profiles: str
    keys: str
    releases: str
    outcomes: str
    policies: str
    erasures: str
    receipts: str
    labels: str
    alerts: str

    @classmethod
    def under(cls, prefix: str = DEFAULT_PREFIX) -> Topics:
        """Names of the form `<prefix>.<entity>.v1`."""
        return cls(
            events=f"{prefix}.events.v1",
            items=f"{prefix}.items.v1",
            users=f"{prefix}.users.v1",
            requests=f"{prefix}.requests.v1",
            recommendations=f"{prefix}.recommendations.v1",
            profiles=f"{prefix}.profiles.v1",
            keys=f"{prefix}.keys.v1",
            releases=f"{prefix}.releases.v1",
            outcomes=f"{prefix}.outcomes.v1",
            policies=f"{prefix}.policies.v1",
            erasures=f"{prefix}.erasures.v1",
            receipts=f"{prefix}.receipts.v1",
            labels=f"{prefix}.labels.v1",
            alerts=f"{prefix}.alerts.v1",
        )

    def dlq(self, name: str) -> str:
        """The dead-letter topic of the topic called `name`.

        Raises: TopicError if that topic has none (only topics that others write to have one).
        """
        if name not in {getattr(self, entity) for entity in DEAD_LETTERED}:
            raise TopicError(
                f"topic {name!r} has no dead-letter topic; "
                f"only {', '.join(DEAD_LETTERED)} have one, since others write to them"
            )
        return f"{name}.dlq"


def _aged(keep_ms: int, segment_ms: int, max_bytes: int = MESSAGE_BYTES) -> Mapping[str, str]:
    """Settings of a topic whose records are gone when they are `keep_ms` old.

    >>> _aged(DAY_MS, HOUR_MS)["retention.ms"] == str(22 * HOUR_MS)
    True
    """
    return MappingProxyType(
        {
            "retention.ms": str(keep_ms - segment_ms - HOUR_MS),
            "segment.ms": str(segment_ms),
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(max_bytes),
        }
    )


# Small segments: the active one is never compacted, and a restore reads all of it. The lag bound
# makes an erased user's old values leave the log within a day, however few writes follow.
_COMPACTED: Mapping[str, str] = MappingProxyType(
    {
        "segment.bytes": str(64 * MIB),
        "segment.ms": str(DAY_MS),
        "min.cleanable.dirty.ratio": "0.2",
        "max.compaction.lag.ms": str(DAY_MS),
        "max.message.bytes": str(MESSAGE_BYTES),
    }
)
_MONTH = _aged(28 * DAY_MS, 12 * HOUR_MS)
# Compacted, too: each letter has a key of its own, so that an erasure can delete hers.
_MONTH_DEAD: Mapping[str, str] = MappingProxyType(
    {
        **_aged(28 * DAY_MS, 12 * HOUR_MS, DEAD_LETTER_BYTES),
        "min.cleanable.dirty.ratio": "0.2",
        "max.compaction.lag.ms": str(DAY_MS),
    }
)
_WEEK_COMPACTED: Mapping[str, str] = MappingProxyType(
    {**_COMPACTED, "retention.ms": str(7 * DAY_MS)}
)


def topic_specs(
    prefix: str = DEFAULT_PREFIX, partitions: int = DEFAULT_PARTITIONS
) -> tuple[TopicSpec, ...]:
    """Every topic of the contract, in the order of its table, dead-letter topics last.

    >>> [(spec.name, spec.partitions) for spec in topic_specs("shop", 8)][:2]
    [('shop.events.v1', 8), ('shop.items.v1', 1)]

    Raises: TopicError if partitions < 1.
    """
    if partitions < 1:
        raise TopicError(f"partitions is {partitions}; a topic needs at least one")
    names = Topics.under(prefix)
    live = (
        TopicSpec(names.events, "user_id", partitions, "delete", _MONTH),
        TopicSpec(names.items, "item_id", 1, "compact", _COMPACTED),
        TopicSpec(names.users, "user_id", partitions, "compact", _COMPACTED),
        TopicSpec(names.requests, "user_id", partitions, "delete", _aged(DAY_MS, HOUR_MS)),
        TopicSpec(names.recommendations, "user_id", partitions, "compact,delete", _WEEK_COMPACTED),
        TopicSpec(names.profiles, "user_id", partitions, "compact", _COMPACTED),
        TopicSpec(names.keys, "user_id", partitions, "compact", _COMPACTED),
        TopicSpec(names.releases, "release_id", 1, "compact", _COMPACTED),
        TopicSpec(names.outcomes, "release_id", 1, "delete", _aged(DAY_MS, HOUR_MS)),
        TopicSpec(names.policies, "kind:target", 1, "compact", _COMPACTED),
        TopicSpec(names.erasures, "user_id", partitions, "delete", _MONTH),
        TopicSpec(names.receipts, "user_id", partitions, "delete", _MONTH),
        TopicSpec(names.labels, "item_id", 1, "compact", _COMPACTED),
        TopicSpec(names.alerts, "entity", 1, "delete", _MONTH),
    )
    lettered = {getattr(names, entity) for entity in DEAD_LETTERED}
    dead = tuple(
        TopicSpec(names.dlq(spec.name), spec.key, spec.partitions, "compact,delete", _MONTH_DEAD)
        for spec in live
        if spec.name in lettered
    )
    return live + dead
