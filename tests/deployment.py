"""A whole small deployment for tests: topics, a tiny language model, a first release, workers.

Workers are real processes of `python -m stream worker`, so that they can be killed like real ones
(`tests.prepared`: forked from one that has done the imports).
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx2
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from learner.bootstrap import bootstrap_release
from learner.release_log import read_board
from profiles.answers import Recommendation
from profiles.config import Settings, load_settings
from profiles.events import Event
from profiles.fences import is_fence
from profiles.items import Item
from profiles.notices import ReleaseNotice
from profiles.registry import ReleaseStore
from profiles.state import RecordLayout, decode_records
from profiles.topics import Topics, topic_specs
from profiles.wire import decode_json, encode
from stream.topic_admin import create_topics
from tests.prepared import PreparedProcess

PARTITIONS = 4
ITEMS = 40
WAIT_S = float(os.environ.get("DRIFTLINE_TEST_WAIT_S", "60"))
"""A slow or busy machine may need more."""
_NONE: Mapping[str, str] = {}


def wait_until(what: str, check: Callable[[], bool], within_s: float = WAIT_S) -> None:
    """Look again and again until `check` holds."""
    deadline = time.monotonic() + within_s
    while not check():
        assert time.monotonic() < deadline, f"waited {within_s:.0f} s for: {what}"
        time.sleep(0.05)


@dataclass(slots=True)
class WorkerProcess:
    """One worker, its log and its HTTP port."""

    process: subprocess.Popen[bytes] | PreparedProcess
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text()

    def url(self, page: str) -> str:
        lines = [line for line in self.text.splitlines() if " starting" in line and "http=" in line]
        port = lines[-1].split("http=")[1].split()[0].rpartition(":")[2]
        return f"http://127.0.0.1:{port}/{page}"

    def is_ready(self) -> bool:
        assert self.process.poll() is None, f"the worker ended:\n{self.text[-4000:]}"
        try:
            with urllib.request.urlopen(self.url("readyz"), timeout=2) as answer:
                return bool(answer.status == 200)
        except (OSError, IndexError):
            return False

    def still_serves(self) -> bool:
        """Whether it says that it serves; one that ended says nothing."""
        return self.process.poll() is None and self.is_ready()

    def wait_ready(self) -> None:
        # Its language model imports torch: on a busy machine that takes a minute.
        wait_until("worker ready", self.is_ready, within_s=3 * WAIT_S)

    def metric(self, start: str) -> float:
        """Sum of all samples whose line starts so."""
        with urllib.request.urlopen(self.url("metrics"), timeout=5) as answer:
            lines = answer.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(start))

    def ended_within(self, seconds: float) -> bool:
        """Wait so long for it to end by itself."""
        try:
            self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """SIGKILL: no goodbye."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and the exit code; what the worker said is shown where that is not 0."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(timeout=25)
        if code:
            print(f"the worker ended with {code}:\n{self.text[-8000:]}")
        return code


@dataclass(slots=True)
class Deployment:
    """What tests do with it: produce, start workers, read what came out."""

    settings: Settings
    environment: dict[str, str]
    root: Path
    items: list[Item]
    topics: Topics
    producer: KafkaProducer
    workers: list[WorkerProcess] = field(default_factory=list)

    @property
    def store(self) -> ReleaseStore:
        return ReleaseStore(self.settings.store.releases, self.root / "cache")

    def start_worker(self, instance: str = "a", **environment: str) -> WorkerProcess:
        """`driftline worker`; environment variables are its settings."""
        return self.start_wrapped_worker(["stream"], instance, environment)

    def start_wrapped_worker(
        self,
        through: Sequence[str],
        instance: str = "a",
        environment: Mapping[str, str] = _NONE,
        *,
        is_prepared: bool = True,
    ) -> WorkerProcess:
        """The same, started by another module: its name and its own words.

        `is_prepared`: forked (see `prepared`); without it its memory is its own.
        """
        log = self.root / f"worker-{instance}-{len(self.workers)}.log"
        words = [*through, "worker", "--instance", instance]
        start = PreparedProcess if is_prepared else _start_python
        process = start(words, {**self.environment, **environment}, log)
        worker = WorkerProcess(process, log)
        self.workers.append(worker)
        return worker

    def start_quick_worker(self, instance: str = "a", **environment: str) -> WorkerProcess:
        """One without a language model: for faults that have nothing to do with it."""
        return self.start_wrapped_worker(["tests.faults.quick_worker"], instance, environment)

    def start_learner(self, **environment: str) -> WorkerProcess:
        """`driftline learn` in a process of its own; environment variables are its settings."""
        return self.start_process("learn", "learner", environment)

    def start_process(
        self, command: str, name: str, environment: Mapping[str, str]
    ) -> WorkerProcess:
        """Another long-running command of driftline's; it is stopped with the deployment."""
        log = self.root / f"{name}-{len(self.workers)}.log"
        surroundings = {**self.environment, **environment}
        process = PreparedProcess(["stream", command], surroundings, log)
        self.workers.append(WorkerProcess(process, log))
        return self.workers[-1]

    @contextlib.contextmanager
    def serving(self, command: str, **environment: str) -> Iterator[str]:
        """`driftline serve` or `console` on a free port: its address, once all has been read.

        Left without an error, it is stopped by SIGTERM and must end with 0.
        """
        log = self.root / f"{command}.log"
        surroundings = {**self.environment, "PYTHONUNBUFFERED": "1", **environment}
        process = PreparedProcess(["stream", command, "--port", "0"], surroundings, log)
        told = re.compile(r"driftline's .*(http://[\d.]+:\d+)/")

        def is_ready() -> bool:
            assert process.poll() is None, f"{command} ended:\n{log.read_text()[-4000:]}"
            found = told.search(log.read_text())
            try:
                return found is not None and httpx2.get(f"{found[1]}/readyz").status_code == 200
            except httpx2.HTTPError:
                return False

        try:
            wait_until(f"{command} has read everything", is_ready)
            found = told.search(log.read_text())
            assert found is not None, "it has just been asked"
            yield found[1]
            process.send_signal(signal.SIGTERM)
            assert process.wait(WAIT_S) == 0, log.read_text()
        finally:
            process.kill()
            process.wait()

    def announce(
        self, release_id: str, status: str = "serving", parent: str | None = None, share: float = 0
    ) -> None:
        sequence = read_board(self.settings).next_sequence()
        notice = ReleaseNotice(
            release_id, status, sequence, self.settings.store.releases, parent, share=share
        )
        self.send(self.topics.releases, release_id, encode(notice))

    def new_release(self, seed: int) -> str:
        """Another release of the same texts: another seed gives another space."""
        learner = self.settings.learner.model_copy(update={"seed": seed})
        settings = self.settings.model_copy(update={"learner": learner})
        return bootstrap_release(settings, self.items, self.store).release_id

    def send(self, topic: str, key: str | None, value: bytes | None) -> None:
        raw = None if key is None else key.encode()
        self.producer.send(topic, key=raw, value=value).get(10)

    def send_events(self, events: list[Event]) -> None:
        for event in events:
            self.producer.send(self.topics.events, key=event.user_id.encode(), value=encode(event))
        self.producer.flush(30)

    def read(self, topic: str) -> list[Any]:
        """Everything that stands in a topic now."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.settings.broker.bootstrap,
            auto_offset_reset="earliest",
            enable_auto_commit=False,
        )
        try:
            tps = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic)]
            consumer.assign(tps)
            consumer.seek_to_beginning(*tps)
            ends = consumer.end_offsets(tps)
            records: list[Any] = []
            while any(consumer.position(tp) < end for tp, end in ends.items()):
                for batch in consumer.poll(timeout_ms=200).values():
                    records.extend(batch)
            return records
        finally:
            consumer.close()

    def recommendations(self) -> list[Recommendation]:
        return [
            decode_json(record.value, Recommendation)
            for record in self.read(self.topics.recommendations)
            if record.value
        ]

    def applied(self) -> dict[str, int]:
        """Events in each user's last changelog record."""
        last: dict[str, bytes | None] = {}
        for record in self.read(self.topics.profiles):
            if not is_fence(record.key):
                last[record.key.decode()] = record.value
        users = [user for user, payload in last.items() if payload]
        records, _ = decode_records(
            RecordLayout.of(self.settings), [payload for payload in last.values() if payload]
        )
        return dict(zip(users, records["events"].tolist(), strict=True))

    def committed(self, topic: str, group: str | None = None) -> int:
        """Records of a topic that the workers' group, or another one, has committed."""
        consumer = KafkaConsumer(
            bootstrap_servers=self.settings.broker.bootstrap,
            group_id=group or self.settings.serving.group,
            enable_auto_commit=False,
        )
        try:
            places = [TopicPartition(topic, n) for n in consumer.partitions_for_topic(topic)]
            return sum(consumer.committed(place) or 0 for place in places)
        finally:
            consumer.close(autocommit=False)

    def end(self, place: TopicPartition) -> int:
        """The offset after the last record of a partition."""
        consumer = KafkaConsumer(bootstrap_servers=self.settings.broker.bootstrap)
        try:
            return int(consumer.end_offsets([place])[place])
        finally:
            consumer.close()

    def wait_committed(self, total: int, within_s: float = WAIT_S) -> None:
        """Until everything that was sent to `events` is done and said to be."""
        topic = self.topics.events
        wait_until(f"{total} committed", lambda: self.committed(topic) >= total, within_s)

    def wait_applied(self, total: int) -> None:
        wait_until(f"{total} events applied", lambda: sum(self.applied().values()) >= total)


def _start_python(
    words: Sequence[str], environment: Mapping[str, str], log: Path
) -> subprocess.Popen[bytes]:
    with log.open("wb") as output:
        return subprocess.Popen(
            [sys.executable, "-m", *words], env=environment, stdout=output, stderr=output
        )


def create_readable_topics(bootstrap: str, prefix: str) -> None:
    """The topics of the contract, with segments so large that a test can read all that was sent.

    Compaction leaves the active segment alone.  With the usual ones a long run of a few users
    loses its first outputs while it lasts, and their times with them.
    """
    create_topics(
        bootstrap,
        [
            replace(spec, config={**spec.config, "segment.bytes": str(2**30)})
            for spec in topic_specs(prefix)
        ],
    )


def make_events(users: int, each: int, start: int = 0, name: str = "e") -> list[Event]:
    """Events of several users, one after another in time, each liking items of one kind."""
    return [
        Event(
            event_id=f"{name}-{user}-{number}",
            user_id=f"user-{user}",
            item_id=f"item-{(user % 2) * (ITEMS // 2) + (number * 7 + user) % (ITEMS // 2)}",
            action="rate",
            ts=1_000_000.0 + number * 60.0 + user,
            value=float(number % 5 + 1),
        )
        for number in range(start, start + each)
        for user in range(users)
    ]


@contextlib.contextmanager
def deploy(bootstrap: str, topics: str, language_model: Path, root: Path) -> Iterator[Deployment]:
    """Topics, catalogue and a serving first release; workers are started by the test."""
    environment = {
        **os.environ,
        "DRIFTLINE_BROKER__BOOTSTRAP": bootstrap,
        "DRIFTLINE_TOPICS__PREFIX": topics,
        "DRIFTLINE_MODEL__BASE": str(language_model),
        "DRIFTLINE_MODEL__DIM": "16",
        "DRIFTLINE_MODEL__HIDDEN": "16",
        "DRIFTLINE_MODEL__LORA_RANK": "2",
        # Who gets the processor is not what these tests are about: a busy machine starves idlers.
        "DRIFTLINE_LEARNER__SCHEDULING": "normal",
        "DRIFTLINE_LEARNER__NICE": "0",
        "DRIFTLINE_SERVING__GROUP": f"workers-{topics}",
        "DRIFTLINE_SERVING__USER_INTERVAL_S": "0",
        "DRIFTLINE_SERVING__SESSION_TIMEOUT_S": "6",
        "DRIFTLINE_SERVING__CATALOGUE_WAIT_S": "0.5",
        "DRIFTLINE_SERVING__PREQUENTIAL_SHARE": "1.0",
        "DRIFTLINE_STORE__DIRECTORY": str(root / "data"),
        "DRIFTLINE_STORE__RELEASES": str(root / "releases"),
    }
    before = {name: os.environ.get(name) for name in environment if name.startswith("DRIFTLINE_")}
    os.environ.update(environment)
    try:
        settings = load_settings()
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
    items = [
        Item(f"item-{number}", f"{kind} number {number}", tags=[kind])
        for number in range(ITEMS)
        for kind in ["tale" if number < ITEMS // 2 else "song"]
    ]
    producer = KafkaProducer(bootstrap_servers=bootstrap, linger_ms=5)
    made = Deployment(settings, environment, root, items, Topics.under(topics), producer)
    for item in items:
        producer.send(made.topics.items, key=item.item_id.encode(), value=encode(item))
    made.announce(bootstrap_release(settings, items, made.store).release_id)
    try:
        yield made
    finally:
        for worker in made.workers:
            if worker.process.poll() is None:
                worker.kill()
        producer.close()
