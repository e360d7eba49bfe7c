"""The topics are what the contract says, and no record outlives what was promised."""

from __future__ import annotations

import pytest

from profiles.errors import TopicError
from profiles.topics import DAY_MS, DEAD_LETTERED, HOUR_MS, Topics, TopicSpec, topic_specs

pytestmark = pytest.mark.unit


def by_name(prefix: str = "driftline", partitions: int = 4) -> dict[str, TopicSpec]:
    return {spec.name: spec for spec in topic_specs(prefix, partitions)}


def test_names_are_prefix_entity_version() -> None:
    topics = Topics.under("shop.eu")
    assert topics.recommendations == "shop.eu.recommendations.v1"
    assert topics.dlq(topics.items) == "shop.eu.items.v1.dlq"


def test_every_name_has_a_spec_and_every_spec_a_name() -> None:
    topics = Topics.under("p")
    live = {getattr(topics, entity) for entity in Topics.__dataclass_fields__}
    read_by_us = {getattr(topics, entity) for entity in DEAD_LETTERED}
    assert topics.labels in read_by_us
    assert set(by_name("p")) == live | {topics.dlq(name) for name in read_by_us}


def test_a_topic_only_we_write_has_no_dead_letter_topic() -> None:
    topics = Topics.under("p")
    with pytest.raises(TopicError, match=r"'p\.profiles\.v1' has no dead-letter topic"):
        topics.dlq(topics.profiles)


def test_topics_keyed_by_user_are_copartitioned_and_the_others_have_one_partition() -> None:
    for spec in topic_specs(partitions=7):
        assert spec.partitions == (7 if spec.key == "user_id" else 1), spec.name


@pytest.mark.parametrize(
    ("entity", "policy"),
    [
        ("events", "delete"),
        ("items", "compact"),
        ("users", "compact"),
        ("requests", "delete"),
        ("recommendations", "compact,delete"),
        ("profiles", "compact"),
        ("releases", "compact"),
        ("erasures", "delete"),
        ("receipts", "delete"),
        ("labels", "compact"),
        ("alerts", "delete"),
    ],
)
def test_cleanup_policy_follows_the_contract(entity: str, policy: str) -> None:
    spec = by_name()[getattr(Topics.under(), entity)]
    assert spec.settings["cleanup.policy"] == policy


def test_a_record_is_gone_when_it_is_28_days_old_although_whole_segments_are_deleted() -> None:
    for spec in topic_specs():
        if spec.cleanup_policy == "delete" or spec.name.endswith(".dlq"):
            oldest_ms = int(spec.config["retention.ms"]) + int(spec.config["segment.ms"])
            assert oldest_ms < 28 * DAY_MS, spec.name
    requests = by_name()[Topics.under().requests].config
    assert int(requests["retention.ms"]) + int(requests["segment.ms"]) + HOUR_MS == DAY_MS


def test_a_dead_letter_has_room_for_the_largest_message_and_its_headers() -> None:
    specs = by_name()
    events = specs["driftline.events.v1"].config
    dead = specs["driftline.events.v1.dlq"].config
    assert int(events["max.message.bytes"]) == 1024 * 1024
    assert int(dead["max.message.bytes"]) > int(events["max.message.bytes"])


def test_zero_partitions_are_refused() -> None:
    with pytest.raises(TopicError, match="partitions is 0"):
        topic_specs(partitions=0)
