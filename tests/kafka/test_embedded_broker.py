"""The embedded broker is a real Kafka that keeps its data and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from kafka import KafkaProducer

from profiles.errors import BrokerError
from profiles.topics import Topics, topic_specs
from stream.broker import EmbeddedKafka
from stream.topic_admin import check_topics, create_topics, topic_ids
from tests.members import join_group

pytestmark = pytest.mark.kafka

VALUES = [b"one", b"two", b"three"]


def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.01)


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer: Any = KafkaProducer(bootstrap_servers=bootstrap)
    try:
        for sent in [producer.send(topic, value, key=b"user") for value in values]:
            sent.get(timeout=30)
    finally:
        producer.close()


def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = join_group(bootstrap, topic, "readers")
    found: list[bytes] = []
    try:
        deadline = time.monotonic() + 30
        while len(found) < count and time.monotonic() < deadline:
            for records in consumer.poll(timeout_ms=200).values():
                found += [record.value for record in records]
    finally:
        consumer.close()
    return found


def has_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.fixture
def own(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """A broker of the test's own, to be stopped and killed."""
    with EmbeddedKafka(tmp_path / "kafka") as broker:
        yield broker


def test_what_is_produced_is_consumed_in_order(kafka: EmbeddedKafka, topics: str) -> None:
    events = Topics.under(topics).events
    produce(kafka.bootstrap, events, VALUES)
    assert consume(kafka.bootstrap, events, 3) == VALUES


def test_restart_and_kill_keep_address_topics_and_records(own: EmbeddedKafka) -> None:
    names = Topics.under("own")
    create_topics(own.bootstrap, topic_specs("own", partitions=2))
    address, first_pid = own.bootstrap, own.pid
    ids = topic_ids(address, [names.events])
    produce(address, names.events, VALUES)

    own.restart()
    assert own.pid != first_pid
    assert own.bootstrap == address
    assert consume(address, names.events, 3) == VALUES

    own.kill()
    assert not own.is_running
    own.start()
    check_topics(address, topic_specs("own", partitions=2))
    assert topic_ids(address, [names.events]) == ids


def test_stop_leaves_no_process_and_close_no_temporary_data() -> None:
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    broker = EmbeddedKafka()
    broker.start()
    data_dir = broker.data_dir
    mine = {child.pid for child in psutil.Process().children(recursive=True)} - before
    assert broker.pid in mine

    broker.stop()
    assert all(has_gone(pid) for pid in mine)
    assert (data_dir / "logs" / "meta.properties").is_file()
    broker.close()
    assert not data_dir.exists()


def test_the_broker_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from stream.broker import EmbeddedKafka\n"
        "broker = EmbeddedKafka()\n"
        "broker.start()\n"
        "print(broker.pid, broker.data_dir, flush=True)\n"
        "sys.stdin.read()\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=root,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        pid, data_dir = parent.stdout.readline().split()
        os.kill(parent.pid, signal.SIGKILL)
    wait_until(lambda: has_gone(int(pid)) and not Path(data_dir).exists())


def test_driftline_broker_creates_the_topics_and_ends_in_good_order_on_sigterm(
    tmp_path: Path,
) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from stream.broker import run_broker\n"
        "run_broker(port=0, data_dir=Path(sys.argv[1]), partitions=2, prefix='shop')\n"
    )
    with subprocess.Popen(
        [sys.executable, "-u", "-c", script, str(tmp_path)],
        cwd=Path(__file__).parents[2],
        stdout=subprocess.PIPE,
        text=True,
    ) as service:
        assert service.stdout is not None
        address = service.stdout.readline().removeprefix("Kafka is at ").split(";")[0]
        check_topics(address, topic_specs("shop", partitions=2))
        service.terminate()
        assert service.wait(30) == 0
    with pytest.raises(BrokerError):
        check_topics(address, topic_specs("shop", partitions=2), timeout_s=0.3)


def test_a_taken_port_is_named(kafka: EmbeddedKafka, tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=f"port {kafka.port} is taken"):
        EmbeddedKafka(tmp_path, port=kafka.port).start()


def test_a_broker_that_cannot_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    broken = EmbeddedKafka(tmp_path, server_properties={"num.io.threads": "-1"})
    with pytest.raises(BrokerError, match=r"the end of its log[\s\S]*num\.io\.threads"):
        broken.start()
    assert not broken.is_running


def test_missing_java_is_told_before_anything_is_written(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    with pytest.raises(BrokerError, match="no Java to run Kafka with"):
        EmbeddedKafka(data_dir, java=tmp_path / "no-java").start()
    assert not data_dir.exists()
