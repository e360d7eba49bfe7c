"""Topics on a real broker: created once, checked at every start, never altered."""

from __future__ import annotations

import dataclasses
import socket

import pytest

from profiles.errors import BrokerError, TopicError
from profiles.topics import Topics, topic_specs
from stream.broker import EmbeddedKafka
from stream.topic_admin import check_topics, create_topics, topic_ids

pytestmark = pytest.mark.kafka


def test_created_topics_pass_their_check_and_are_created_once(
    kafka: EmbeddedKafka, prefix: str
) -> None:
    specs = topic_specs(prefix, partitions=3)
    assert set(create_topics(kafka.bootstrap, specs)) == {spec.name for spec in specs}
    check_topics(kafka.bootstrap, specs)
    assert create_topics(kafka.bootstrap, specs) == ()


def test_creating_again_with_other_partitions_alters_nothing(
    kafka: EmbeddedKafka, topics: str
) -> None:
    create_topics(kafka.bootstrap, topic_specs(topics, partitions=6))
    check_topics(kafka.bootstrap, topic_specs(topics, partitions=4))


def test_a_missing_topic_is_named_with_the_command_that_creates_it(
    kafka: EmbeddedKafka, prefix: str
) -> None:
    *present, missing = topic_specs(prefix)
    create_topics(kafka.bootstrap, present)
    with pytest.raises(TopicError) as refused:
        check_topics(kafka.bootstrap, [*present, missing])
    expected = f"topic {missing.name!r} does not exist: run `driftline topics create`"
    assert str(refused.value) == expected


def test_a_wrong_partition_count_is_refused_with_both_numbers(
    kafka: EmbeddedKafka, topics: str
) -> None:
    with pytest.raises(TopicError, match="partition counts never change in place") as refused:
        check_topics(kafka.bootstrap, topic_specs(topics, partitions=5))
    assert f"{Topics.under(topics).events!r} has 4 partitions, expected 5" in str(refused.value)
    assert Topics.under(topics).items not in str(refused.value)


def test_a_wrong_cleanup_policy_is_refused(kafka: EmbeddedKafka, topics: str) -> None:
    events, *others = topic_specs(topics)
    wrong = dataclasses.replace(events, cleanup_policy="compact")
    with pytest.raises(TopicError, match=r"cleanup\.policy 'delete', expected 'compact'"):
        check_topics(kafka.bootstrap, [wrong, *others])


def test_more_replicas_than_brokers_is_refused_with_the_brokers_reason(
    kafka: EmbeddedKafka, prefix: str
) -> None:
    with pytest.raises(TopicError, match=r"with replication 3: .*only 1 broker"):
        create_topics(kafka.bootstrap, topic_specs(prefix), replication=3)


def test_a_topic_id_lasts_and_tells_topics_apart(kafka: EmbeddedKafka, topics: str) -> None:
    names = [spec.name for spec in topic_specs(topics)]
    ids = topic_ids(kafka.bootstrap, names)
    assert len(set(ids.values())) == len(names)
    assert topic_ids(kafka.bootstrap, names) == ids
    with pytest.raises(TopicError, match="'absent' does not exist"):
        topic_ids(kafka.bootstrap, ["absent"])


def test_an_unreachable_broker_is_named_after_the_time_given() -> None:
    with socket.socket() as bound:  # bound and never listening: nobody answers there
        bound.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{bound.getsockname()[1]}"
        with pytest.raises(BrokerError, match=f"no Kafka answered at {address} within 0.3 s"):
            check_topics(address, topic_specs(), timeout_s=0.3)


def test_an_address_without_a_port_is_refused_at_once() -> None:
    with pytest.raises(BrokerError, match="'localhost' is no broker address"):
        check_topics("localhost", topic_specs())


def test_a_broker_that_accepts_and_stays_silent_is_given_up_on() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(BrokerError, match="accepts connections, but no Kafka answered"):
            check_topics(address, topic_specs(), timeout_s=0.3)
