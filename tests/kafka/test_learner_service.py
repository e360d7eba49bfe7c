"""The learner against a real broker: first release, rounds, a kill, an erasure, a rollback."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from prometheus_client import CollectorRegistry

from learner.release_log import read_board
from learner.releases_cli import list_releases, open_store, promote, rollback, show_release
from learner.replay import ReplayBuffer
from learner.rounds import load_plan
from learner.sampling import ActionWeights
from learner.service import learner_directory, run_learner
from profiles.config import Settings, load_settings
from profiles.erasures import Erasure, Receipt
from profiles.errors import BrokerError, ReleaseError, TopicError
from profiles.events import Event
from profiles.expected import expected_by
from profiles.items import Item
from profiles.manifest import Manifest
from profiles.metrics import LearnerMetrics
from profiles.notices import ReleaseNotice
from profiles.release import open_release
from profiles.topics import Topics
from profiles.wire import decode_json, encode, key64

USERS, ITEMS = 40, 60
WAIT_S = 120.0
LEARNER = """
import sys, threading
from pathlib import Path
from prometheus_client import CollectorRegistry
from learner.service import run_learner
from profiles.config import Settings
from profiles.logs import configure_logs
from profiles.metrics import LearnerMetrics
configure_logs()
settings = Settings.model_validate_json(Path(sys.argv[1]).read_text())
run_learner(settings, threading.Event(), LearnerMetrics(CollectorRegistry()))
"""


def wait_until(what: str, check: Callable[[], bool], within_s: float = WAIT_S) -> None:
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for: {what}"
        time.sleep(0.1)


@dataclass(slots=True)
class World:
    """Topics of one test, a producer, and what has been produced."""

    settings: Settings
    topics: Topics
    producer: KafkaProducer
    root: Path
    sent: int = 0
    errors: list[BaseException] = field(default_factory=list)

    def send_items(self, count: int = ITEMS) -> None:
        for number in range(count):
            item = Item(f"i{number}", title=f"{'tale' if number % 2 else 'song'} number {number}")
            self.producer.send(self.topics.items, key=item.item_id.encode(), value=encode(item))
        self.producer.flush(10)

    def send_events(self, each: int) -> None:
        """Every user goes on through the items of one kind, two apart."""
        for number in range(each):
            for user in range(USERS):
                step = self.sent // USERS + number
                event = Event(
                    event_id=f"e{user}-{step}",
                    user_id=f"u{user}",
                    item_id=f"i{(user * 7 + 2 * step) % ITEMS}",
                    action="view",
                    ts=1e6 + 60.0 * step,
                )
                self.producer.send(
                    self.topics.events, key=event.user_id.encode(), value=encode(event)
                )
        self.sent += each * USERS
        self.producer.flush(30)

    def notices(self, status: str) -> list[ReleaseNotice]:
        return [notice for notice in read_board(self.settings).all() if notice.status == status]

    def serving(self) -> Manifest | None:
        notice = read_board(self.settings).serving()
        if notice is None:
            return None
        directory = open_store(self.settings).fetch(notice.release_id)
        return open_release(directory, expected_by(self.settings)).manifest

    def receipts(self) -> list[Receipt]:
        consumer = KafkaConsumer(
            bootstrap_servers=self.settings.broker.bootstrap, auto_offset_reset="earliest"
        )
        try:
            topic = self.topics.receipts
            tps = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
            consumer.assign(tps)
            consumer.seek_to_beginning(*tps)
            ends = consumer.end_offsets(tps)
            found: list[Receipt] = []
            while any(consumer.position(tp) < end for tp, end in ends.items()):
                for records in consumer.poll(timeout_ms=200).values():
                    found += [decode_json(record.value, Receipt) for record in records]
            return found
        finally:
            consumer.close()

    @contextmanager
    def learner(self, **changes: object) -> Iterator[LearnerMetrics]:
        """A learner in a thread, stopped at the end."""
        settings = self.settings.model_copy(
            update={"learner": self.settings.learner.model_copy(update=changes)}
        )
        stop, metrics = threading.Event(), LearnerMetrics(CollectorRegistry())

        def run() -> None:
            try:
                run_learner(settings, stop, metrics)
            except BaseException as error:
                self.errors.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield metrics
        finally:
            stop.set()
            thread.join(25)
            assert not thread.is_alive(), "the learner did not stop within 25 s"
            assert not self.errors, self.errors

    def start_process(self) -> subprocess.Popen[bytes]:
        path = self.root / "settings.json"
        path.write_text(self.settings.model_dump_json())
        with (self.root / "learner.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", LEARNER, str(path)], stdout=log, stderr=log
            )


def sample(metrics: LearnerMetrics, name: str, **labels: str) -> float:
    return metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.fixture
def world(kafka: object, topics: str, tiny_language_model: Path, tmp_path: Path) -> Iterator[World]:
    bootstrap = kafka.bootstrap  # type: ignore[attr-defined]
    settings = load_settings(
        broker={"bootstrap": bootstrap},
        topics={"prefix": topics},
        model={"base": str(tiny_language_model), "dim": 16, "hidden": 16, "lora_rank": 2},
        store={"directory": str(tmp_path / "data"), "releases": str(tmp_path / "releases")},
        learner={
            "group": f"learner-{topics}", "min_events": 480, "round_events": 480,
            "sequence_length": 12, "epochs": 4, "lora_steps": 3, "lora_items": 8,
            "head_lr": 0.02, "device": "cpu",
        },
        rollout={"mode": "direct"},
    )  # fmt: skip
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    yield World(settings, Topics.under(topics), producer, tmp_path)
    producer.close()


def buffer_of(world: World) -> ReplayBuffer:
    """The buffer of a learner that has ended."""
    return ReplayBuffer(
        learner_directory(world.settings) / "buffer",
        buffer_bytes=world.settings.learner.buffer_bytes,
        sequence_length=world.settings.learner.sequence_length,
        seed=world.settings.learner.seed,
        actions=ActionWeights.from_settings(world.settings.actions).names,
    )


def test_a_catalogue_becomes_a_first_release_and_events_become_a_better_one(world: World) -> None:
    world.send_items()
    with world.learner() as metrics:
        wait_until("a first release", lambda: world.serving() is not None)
        first = world.serving()
        assert first is not None
        assert (first.trained_events, first.parent_id) == (0, None)
        for bad in (b"{", b'{"event_id":"x"}', None):
            world.producer.send(world.topics.events, key=b"u1", value=bad)
        world.send_events(each=12)

        wait_until(
            "a round", lambda: sample(metrics, "driftline_learning_rounds_total",
                                      outcome="promoted") == 1.0
        )  # fmt: skip
        second = world.serving()

    assert second is not None
    assert second.parent_id == first.release_id
    assert second.metrics["recent_ndcg10_candidate"] > second.metrics["recent_ndcg10_parent"]
    assert sum(second.offsets.values()) == world.sent + 3
    assert sample(metrics, "driftline_learner_events_total") == world.sent
    assert sample(metrics, "driftline_learner_events_rejected_total", reason="malformed") == 1.0
    statuses = [(n.status, n.release_id) for n in read_board(world.settings).all()]
    assert statuses == [("serving", first.release_id), ("serving", second.release_id)]
    consumer = KafkaConsumer(
        bootstrap_servers=world.settings.broker.bootstrap, group_id=world.settings.learner.group
    )
    committed = [consumer.committed(TopicPartition(world.topics.events, n)) for n in range(4)]
    consumer.close()
    assert sum(offset or 0 for offset in committed) == world.sent + 3


def test_a_killed_learner_resumes_its_round_and_counts_no_event_twice(world: World) -> None:
    world.send_items()
    world.settings = world.settings.model_copy(
        update={"learner": world.settings.learner.model_copy(update={"epochs": 60, "patience": 60})}
    )
    world.send_events(each=15)
    process = world.start_process()
    checkpoint = learner_directory(world.settings) / "round" / "checkpoint.safetensors"
    try:
        wait_until("a checkpoint in the round", checkpoint.is_file)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    path = learner_directory(world.settings) / "round" / "plan.msgpack"
    plan = load_plan(path)
    assert plan is not None

    world.send_events(each=2)
    with world.learner(round_events=10**6) as metrics:
        wait_until(
            "the round's end", lambda: sample(metrics, "driftline_learning_rounds_total",
                                              outcome="promoted") == 1.0 and not path.exists()
        )  # fmt: skip
        wait_until(
            "the later events",
            lambda: sample(metrics, "driftline_learner_events_total") == 2 * USERS,
        )

    release = world.serving()
    assert release is not None
    assert (release.parent_id, release.offsets) == (plan.parent_id, plan.offsets)
    assert sum(release.offsets.values()) == world.sent - 2 * USERS
    buffer = buffer_of(world)
    held = buffer.context(_users())
    rng = np.random.default_rng(0)
    replayed = buffer.replay(10**6, rng)
    exams = [s for part in buffer.draw_exams(10**6, rng).values() for s in part]
    targets = sum(len(s.items) - s.first_target for s in [*replayed, *exams])
    assert sum(len(s.items) for s in held) == world.sent
    assert targets == world.sent - 2 * USERS
    assert (buffer.rounds, buffer.fresh_events) == (1, 2 * USERS)
    assert sum(buffer.offsets(world.topics.events, range(4)).values()) == world.sent
    buffer.close()


def _users() -> list[int]:
    return [key64(f"u{user}") for user in range(USERS)]


def test_an_erased_user_leaves_the_buffer_and_a_receipt_names_the_releases(world: World) -> None:
    world.send_items()
    world.send_events(each=12)
    with world.learner() as metrics:
        wait_until(
            "a round", lambda: sample(metrics, "driftline_learning_rounds_total",
                                      outcome="promoted") == 1.0
        )  # fmt: skip
        trained = world.serving()
        request = Erasure(erasure_id="x1", user_id="u3", retrain=True)
        world.producer.send(world.topics.erasures, key=b"u3", value=encode(request)).get(10)
        wait_until("a receipt", lambda: bool(world.receipts()))

    [receipt] = world.receipts()
    assert trained is not None
    assert (receipt.component, receipt.erasure_id, receipt.user_id) == ("learner", "x1", "u3")
    assert receipt.erased["history_events"] == 12
    assert receipt.releases == [trained.release_id]
    # The release before her serves in its place, and the others' events are to be learned again.
    assert receipt.rebuilt_from == trained.parent_id
    board = read_board(world.settings)
    serving, withdrawn = board.serving(), board.get(trained.release_id)
    assert serving is not None
    assert withdrawn is not None
    assert (serving.release_id, withdrawn.status) == (trained.parent_id, "erased")
    buffer = buffer_of(world)
    assert buffer.rounds > 1 or buffer.fresh_events == world.sent - 12
    assert len(buffer.context(_users())) == USERS - 1
    buffer.close()

    # What the erased user did before is not read again, even by a learner with an empty buffer.
    (learner_directory(world.settings) / "buffer").rename(world.root / "old-buffer")
    with world.learner() as metrics:
        wait_until(
            "all events read again",
            lambda: sample(metrics, "driftline_learner_events_total") == world.sent - 12,
        )
    assert sample(metrics, "driftline_learner_events_rejected_total", reason="erased") == 12.0


def test_later_events_of_an_erased_user_are_not_learned_from_where_they_are_forgotten(
    world: World,
) -> None:
    privacy = world.settings.privacy.model_copy(update={"after_erasure": "forget"})
    world.settings = world.settings.model_copy(update={"privacy": privacy})
    world.send_items()
    world.send_events(each=2)
    request = Erasure(erasure_id="x1", user_id="u3")
    with world.learner() as metrics:
        wait_until("read", lambda: sample(metrics, "driftline_learner_events_total") == world.sent)
        world.producer.send(world.topics.erasures, key=b"u3", value=encode(request)).get(10)
        wait_until("a receipt", lambda: bool(world.receipts()))
    # By a learner that has started anew since.
    world.send_events(each=2)
    with world.learner() as metrics:
        read = "driftline_learner_events_total"
        wait_until("read", lambda: sample(metrics, read) == 2 * USERS - 2)
    assert sample(metrics, "driftline_learner_events_rejected_total", reason="erased") == 2.0
    buffer = buffer_of(world)
    assert len(buffer.context(_users())) == USERS - 1
    assert buffer.erased_at_ms().keys() == {key64("u3")}
    buffer.close()


def test_an_operators_rollback_changes_the_parent_of_the_next_round(world: World) -> None:
    world.send_items()
    world.send_events(each=12)
    with world.learner() as metrics:
        wait_until(
            "a round", lambda: sample(metrics, "driftline_learning_rounds_total",
                                      outcome="promoted") == 1.0
        )  # fmt: skip
        first, second = [line.notice.release_id for line in list_releases(world.settings)]
        moved = rollback(world.settings, "a bad feeling")
        assert (moved.serving.release_id, moved.rolled_back.release_id) == (first, second)
        world.send_events(each=12)
        wait_until(
            "another round", lambda: sample(metrics, "driftline_learning_rounds_total",
                                            outcome="promoted") == 2.0
        )  # fmt: skip
        details = show_release(world.settings)

    assert details.is_serving
    assert details.manifest.parent_id == first
    with pytest.raises(ReleaseError, match="a bad feeling"):
        promote(world.settings, second)
    assert promote(world.settings, second, force=True).sequence > moved.rolled_back.sequence
    assert [line.is_serving for line in list_releases(world.settings)].count(True) == 1
    assert show_release(world.settings).manifest.release_id == second


def test_health_says_ready_once_a_release_serves(world: World) -> None:
    world.settings = world.settings.model_copy(
        update={"http": world.settings.http.model_copy(update={"port": _free_port()})}
    )
    url = f"http://127.0.0.1:{world.settings.http.port}/readyz"

    def answer() -> int:
        try:
            with urllib.request.urlopen(url, timeout=2) as page:
                return int(page.status)
        except urllib.error.HTTPError as error:
            error.close()
            return int(error.code)
        except OSError:
            return 0

    with world.learner():
        wait_until("not ready without a release", lambda: answer() == 503)
        world.send_items()
        wait_until("ready", lambda: answer() == 200)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_no_broker_and_no_topics_are_said_in_one_paragraph(world: World) -> None:
    metrics = LearnerMetrics(CollectorRegistry())
    away = world.settings.model_copy(
        update={
            "broker": world.settings.broker.model_copy(
                update={"bootstrap": f"127.0.0.1:{_free_port()}", "connect_timeout_s": 1.0}
            )
        }
    )
    with pytest.raises(BrokerError, match="no Kafka broker answers"):
        run_learner(away, threading.Event(), metrics)

    bare = world.settings.model_copy(
        update={"topics": world.settings.topics.model_copy(update={"prefix": "nothing-here"})}
    )
    with pytest.raises(TopicError, match="driftline topics create"):
        run_learner(bare, threading.Event(), metrics)


def test_nothing_to_roll_back_to_is_said(world: World) -> None:
    with pytest.raises(ReleaseError, match="nothing to roll back to"):
        rollback(world.settings)
    with pytest.raises(ReleaseError, match="no release serves yet"):
        show_release(world.settings)
