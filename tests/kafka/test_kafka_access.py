"""TLS, SCRAM and least privilege: each role can do its work, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.errors import TopicAuthorizationFailedError

from learner.release_log import read_board
from profiles.access_control import ROLES, Role, grants
from profiles.broker_access import security_options
from profiles.config import Settings
from profiles.errors import BrokerError, SettingsError
from profiles.topics import topic_specs
from profiles.wire import encode
from stream.doctor import Finding, examine
from stream.kafka_rights import operations_on_groups
from stream.outbox import Outbox
from stream.topic_admin import check_topics, create_topics
from stream.user_rights import export_user
from tests.deployment import deploy, make_events, wait_until
from tests.secured import Secured, secured_kafka

pytestmark = pytest.mark.kafka
USERS, EACH = 3, 2


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with secured_kafka(tmp_path_factory.mktemp("secured")) as made:
        yield made


def _granted(secured: Secured, prefix: str) -> Settings:
    """Settings of a deployment whose topics exist and whose roles have their grants."""
    settings = Settings(topics={"prefix": prefix}, serving={"group": f"workers-{prefix}"})
    create_topics(secured.kafka.internal_bootstrap, topic_specs(prefix))
    secured.grant(settings)
    return settings


@pytest.mark.timeout(240)
def test_every_role_does_its_work_over_tls_with_its_own_password(
    secured: Secured, prefix: str, tiny_language_model: Path, tmp_path: Path
) -> None:
    _granted(secured, prefix)
    internal = secured.kafka.internal_bootstrap
    with deploy(internal, prefix, tiny_language_model, tmp_path) as deployment:
        worker = deployment.start_worker("a", **secured.environment("worker"))
        application = secured.access("application")

        async def produce() -> None:
            async with Outbox.connected(application) as outbox:
                for event in make_events(USERS, EACH):
                    await outbox.send(deployment.topics.events, event.user_id, encode(event))
                await outbox.send(deployment.topics.events, "user-0", b"not JSON")
                await outbox.drain()

        asyncio.run(produce())
        worker.wait_ready()
        deployment.wait_applied(USERS * EACH)
        operator = deployment.settings.model_copy(update={"broker": secured.access("operator")})
        exported = export_user(operator, "user-0")
        assert exported.profile is not None
        assert exported.profile.events == EACH
        assert [letter["value"] for letter in exported.dead_letters] == ["not JSON"]
        learner = deployment.settings.model_copy(update={"broker": secured.access("learner")})
        assert read_board(learner).serving() is not None
        check_topics(
            secured.kafka.bootstrap,
            topic_specs(prefix),
            client_options=security_options(secured.access("operator")),
        )
        assert worker.stop() == 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("role", ROLES)
def test_a_role_reads_and_writes_what_it_was_granted_and_nothing_else(
    secured: Secured, prefix: str, role: Role
) -> None:
    settings = _granted(secured, prefix)
    specs = topic_specs(prefix)
    anybody = KafkaProducer(bootstrap_servers=secured.kafka.internal_bootstrap)
    for spec in specs:
        anybody.send(spec.name, key=b"k", value=b"there", partition=0).get(10)
    anybody.close()
    options = {
        "bootstrap_servers": secured.kafka.bootstrap,
        **security_options(secured.access(role)),
    }
    producer = KafkaProducer(max_block_ms=5_000, enable_idempotence=False, **options)
    consumer = KafkaConsumer(enable_auto_commit=False, auto_offset_reset="earliest", **options)

    def writes(topic: str) -> bool:
        try:
            producer.send(topic, key=b"k", value=b"written", partition=0).get(10)
        except TopicAuthorizationFailedError:
            return False
        return True

    def reads(topic: str) -> bool:
        consumer.assign([TopicPartition(topic, 0)])
        try:
            # Where even looking is denied, the client asks for a leader until the time is up.
            return bool(consumer.poll(1_000))
        except TopicAuthorizationFailedError:
            return False

    try:
        can = {("Write", spec.name) for spec in specs if writes(spec.name)}
        can |= {("Read", spec.name) for spec in specs if reads(spec.name)}
    finally:
        producer.close(timeout=1)
        consumer.close()
    granted = {
        (grant.operation, grant.name)
        for grant in grants(role, settings)
        if grant.kind == "topic" and grant.operation in ("Read", "Write")
    }
    assert can == granted


def test_the_doctor_compares_the_rights_on_a_group_before_it_exists(
    secured: Secured, prefix: str
) -> None:
    granted = _granted(secured, prefix)
    group = granted.serving.group

    def rights(user: Role, group: str = group) -> Finding:
        settings = granted.model_copy(
            update={
                "broker": secured.access(user),
                "serving": granted.serving.model_copy(update={"group": group}),
            }
        )
        return next(each for each in examine(settings, "worker") if each.name == "rights")

    # Grants take a moment to reach the broker.
    wait_until("the worker has its rights", lambda: rights("worker").status == "ok")
    assert rights("worker").found.endswith("groups: 1")
    other = rights("worker", f"{group}-2")
    assert (other.status, other.found) == ("fail", f"a worker needs Read on group {group}-2")
    assert "topics acls worker" in other.remedy
    options = security_options(secured.access("console"))
    console = operations_on_groups(secured.kafka.bootstrap, [group], client_options=options)
    assert console == {group: {"describe"}}


def test_a_wrong_password_or_authority_is_told_with_the_remedy(
    secured: Secured, tmp_path: Path
) -> None:
    def connect(**changes: object) -> None:
        access = secured.access("worker", connect_timeout_s=3.0, **changes)

        async def run() -> None:
            async with Outbox.connected(access):
                pass

        asyncio.run(run())

    with pytest.raises(BrokerError, match="no Kafka at"):
        connect(username="stranger")
    with pytest.raises(BrokerError, match="no Kafka at"):
        connect(ca_file=None)  # the system's authorities do not know the test's
    odd = tmp_path / "odd.pem"
    odd.write_text("no certificate")
    with pytest.raises(SettingsError, match=r"broker\.ca_file"):
        connect(ca_file=odd)
    with pytest.raises(BrokerError, match="password and certificates"):
        check_topics(
            secured.kafka.bootstrap,
            topic_specs(),
            timeout_s=3.0,
            client_options=security_options(secured.access("worker", username="stranger")),
        )
