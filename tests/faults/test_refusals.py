"""What a worker cannot go on with ends it: with its name, a remedy, and no silent wait.

The long lane tries each many times, on several deployments side by side, since most of the time
is spent waiting for the worker to notice.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from kafka import KafkaAdminClient, TopicPartition

from profiles.topics import topic_specs
from stream.app import EXIT_STALLED
from stream.broker import EmbeddedKafka
from stream.topic_admin import create_topics
from tests.deployment import Deployment, WorkerProcess, deploy, make_events, wait_until
from tests.faults.dying_worker import STALL
from tests.faults.record import Bar, Record
from tests.secured import secured_kafka

pytestmark = pytest.mark.faults

USERS = 12
AT_ONCE = 4
EXIT_S = 30.0

Made = Callable[[int], contextlib.AbstractContextManager[list[Deployment]]]


@pytest.fixture
def deployments(kafka: EmbeddedKafka, tiny_language_model: Path, tmp_path: Path) -> Made:
    """Makes so many deployments, each with topics of its own, on the shared broker."""

    @contextlib.contextmanager
    def made(count: int) -> Iterator[list[Deployment]]:
        with contextlib.ExitStack() as stack:
            found = []
            for _ in range(count):
                prefix = f"test-{uuid.uuid4().hex[:12]}"
                (root := tmp_path / prefix).mkdir()
                create_topics(kafka.bootstrap, topic_specs(prefix))
                found.append(
                    stack.enter_context(deploy(kafka.bootstrap, prefix, tiny_language_model, root))
                )
            yield found

    return made


@pytest.fixture
def admin(kafka: EmbeddedKafka) -> Iterator[KafkaAdminClient]:
    client = KafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    yield client
    client.close()


def at_work(deployments: list[Deployment]) -> list[WorkerProcess]:
    """A worker in each that has done some work."""
    workers = [deployment.start_quick_worker() for deployment in deployments]
    for deployment, worker in zip(deployments, workers, strict=True):
        worker.wait_ready()
        deployment.send_events(make_events(USERS, each=5))
        deployment.wait_committed(USERS * 5)
    return workers


def batches(repeats: int) -> Iterator[int]:
    """How many at once, until it was `repeats` times."""
    for done in range(0, repeats, AT_ONCE):
        yield min(AT_ONCE, repeats - done)


def ended_s(worker: WorkerProcess, began_s: float, codes: set[int], *says: str) -> float:
    """Seconds until the worker ended, as it should."""
    assert worker.process.wait(90) in codes, worker.text[-2000:]
    took_s = time.monotonic() - began_s
    for words in says:
        assert words in worker.text
    assert "Traceback" not in worker.text
    return took_s


@pytest.mark.timeout(1800)
def test_a_topic_that_is_deleted_ends_the_worker(
    deployments: Made, admin: KafkaAdminClient, repeats: int, record: Record
) -> None:
    took_s: list[float] = []
    for count in batches(repeats):
        with deployments(count) as made:
            workers = at_work(made)
            began_s = time.monotonic()
            admin.delete_topics([deployment.topics.requests for deployment in made])
            for deployment, worker in zip(made, workers, strict=True):
                says = f"{deployment.topics.requests}' does not exist"
                took_s.append(ended_s(worker, began_s, {4}, says))
    record.note("topic deleted under a worker", repeats, bars={"ended, s": Bar(EXIT_S, took_s)})


@pytest.mark.timeout(1800)
def test_a_topic_that_gets_more_partitions_ends_the_worker(
    deployments: Made, admin: KafkaAdminClient, repeats: int, record: Record
) -> None:
    took_s: list[float] = []
    for count in batches(repeats):
        with deployments(count) as made:
            workers = at_work(made)
            began_s = time.monotonic()
            admin.create_partitions({deployment.topics.events: 6 for deployment in made})
            for worker in workers:
                took_s.append(ended_s(worker, began_s, {4}, "has 6 partitions, expected 4"))
    record.note("more partitions under a worker", repeats, bars={"ended, s": Bar(EXIT_S, took_s)})


@pytest.mark.timeout(1800)
def test_events_that_retention_took_before_they_were_read_are_named(
    deployments: Made, admin: KafkaAdminClient, repeats: int, record: Record
) -> None:
    took_s: list[float] = []
    with deployments(1) as [deployment]:
        [worker] = at_work([deployment])
        assert worker.stop() == 0
        deployment.send_events(make_events(USERS, each=5, start=5))
        place = TopicPartition(deployment.topics.events, 0)
        admin.delete_records({place: deployment.end(place)})
        for _ in range(repeats):
            began_s = time.monotonic()
            again = deployment.start_quick_worker()
            says = (f"{place.topic}/0: ", "--reset-offsets")
            took_s.append(ended_s(again, began_s, {4}, *says))
    record.note("offset below retention", repeats, bars={"ended, s": Bar(EXIT_S, took_s)})


@pytest.mark.timeout(1800)
def test_a_topic_that_is_not_there_is_named_at_the_start(
    deployments: Made, admin: KafkaAdminClient, repeats: int, record: Record
) -> None:
    took_s: list[float] = []
    with deployments(1) as [deployment]:
        admin.delete_topics([deployment.topics.profiles])
        for _ in range(repeats):
            began_s = time.monotonic()
            worker = deployment.start_quick_worker()
            took_s.append(ended_s(worker, began_s, {4}, deployment.topics.profiles))
    record.note("topic missing at the start", repeats, bars={"ended, s": Bar(EXIT_S, took_s)})


@pytest.mark.timeout(1800)
def test_a_worker_without_the_right_to_its_topics_says_so(
    prefix: str, tiny_language_model: Path, tmp_path: Path, repeats: int, record: Record
) -> None:
    took_s: list[float] = []
    (tmp_path / "kafka").mkdir()
    with secured_kafka(tmp_path / "kafka") as secured:
        internal = secured.kafka.internal_bootstrap
        create_topics(internal, topic_specs(prefix))
        with deploy(internal, prefix, tiny_language_model, tmp_path) as made:
            for _ in range(repeats):
                began_s = time.monotonic()
                worker = made.start_quick_worker("a", **secured.environment("application"))
                took_s.append(ended_s(worker, began_s, {3, 4}))
    record.note("no right to the topics", repeats, bars={"ended, s": Bar(EXIT_S, took_s)})


@pytest.mark.timeout(1800)
def test_a_worker_whose_outputs_nobody_acknowledges_is_ended_by_its_watchdog(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    took_s: list[float] = []
    for turn in range(repeats):
        stalled = deployment.start_wrapped_worker(
            ("tests.faults.dying_worker", STALL, "0"),
            environment={"DRIFTLINE_SERVING__STALL_AFTER_S": "3"},
        )
        stalled.wait_ready()
        began_s = time.monotonic()
        deployment.send_events(make_events(USERS, each=1, start=turn))
        assert stalled.process.wait(60) == EXIT_STALLED
        took_s.append(time.monotonic() - began_s)
        assert deployment.committed(deployment.topics.events) == 0
    # A supervisor starts it again; nothing was lost.
    deployment.start_quick_worker().wait_ready()
    total = USERS * repeats
    deployment.wait_applied(total)
    wait_until("committed", lambda: deployment.committed(deployment.topics.events) == total)
    record.note("no progress, watchdog at 3 s", repeats, ended_s=max(took_s))
