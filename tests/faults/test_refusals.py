"""What a worker cannot go on with ends it: with its name, a remedy, and no silent wait."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition

from profiles.topics import topic_specs
from stream.app import EXIT_STALLED
from stream.topic_admin import create_topics
from tests.deployment import Deployment, WorkerProcess, deploy, make_events, wait_until
from tests.faults.dying_worker import STALL
from tests.secured import secured_kafka

pytestmark = pytest.mark.faults

USERS = 12


@pytest.fixture
def admin(deployment: Deployment) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=deployment.settings.broker.bootstrap)
    yield client
    client.close()


@pytest.fixture
def worker(deployment: Deployment) -> WorkerProcess:
    """A worker that has done some work."""
    made = deployment.start_worker()
    made.wait_ready()
    deployment.send_events(make_events(USERS, each=5))
    deployment.wait_committed(USERS * 5)
    return made


def test_a_topic_that_is_deleted_ends_the_worker(
    deployment: Deployment, admin: KafkaAdminClient, worker: WorkerProcess
) -> None:
    admin.delete_topics([deployment.topics.requests])
    assert worker.process.wait(60) != 0
    assert f"{deployment.topics.requests}' does not exist" in worker.text
    assert "Traceback" not in worker.text


def test_a_topic_that_gets_more_partitions_ends_the_worker(
    deployment: Deployment, admin: KafkaAdminClient, worker: WorkerProcess
) -> None:
    admin.create_partitions({deployment.topics.events: 6})
    assert worker.process.wait(60) == 4
    assert "has 6 partitions, expected 4" in worker.text
    assert "Traceback" not in worker.text


def test_events_that_retention_took_before_they_were_read_are_named(
    deployment: Deployment, admin: KafkaAdminClient, worker: WorkerProcess
) -> None:
    assert worker.stop() == 0
    deployment.send_events(make_events(USERS, each=5, start=5))
    place = TopicPartition(deployment.topics.events, 0)
    end = deployment.end(place)
    admin.delete_records({place: end})
    again = deployment.start_worker()
    assert again.process.wait(60) == 4
    assert f"{place.topic}/0: " in again.text
    assert "--reset-offsets" in again.text
    assert "Traceback" not in again.text


def test_a_worker_without_the_right_to_its_topics_says_so(
    prefix: str, tiny_language_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "kafka").mkdir()
    with secured_kafka(tmp_path / "kafka") as secured:
        internal = secured.kafka.internal_bootstrap
        create_topics(internal, topic_specs(prefix))
        with deploy(internal, prefix, tiny_language_model, tmp_path) as made:
            worker = made.start_worker("a", **secured.environment("application"))
            assert worker.process.wait(60) in (3, 4)
            assert "Traceback" not in worker.text


def test_a_worker_whose_outputs_nobody_acknowledges_is_ended_by_its_watchdog(
    deployment: Deployment,
) -> None:
    stalled = deployment.start_wrapped_worker(
        ("tests.faults.dying_worker", STALL, "0"),
        environment={"DRIFTLINE_SERVING__STALL_AFTER_S": "3"},
    )
    stalled.wait_ready()
    deployment.send_events(make_events(USERS, each=1))
    assert stalled.process.wait(60) == EXIT_STALLED
    assert deployment.committed(deployment.topics.events) == 0
    # A supervisor starts it again; nothing was lost.
    deployment.start_worker().wait_ready()
    deployment.wait_applied(USERS)
    wait_until("committed", lambda: deployment.committed(deployment.topics.events) == USERS)
