"""A small deployment to measure: broker on core 0, workers on core 1, a tiny random language model.

The language model is a random BERT of one layer: it takes no part in the event path, and a real
one would only make starts and releases slower (bench_swap says so in its result).  Everything
else is what users run: a real broker, `python -m stream worker`, default settings unless said.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kafka import KafkaProducer

from benchmarks.harness import ROOT, on_all_cores, pinned
from learner.bootstrap import bootstrap_release
from profiles.config import Settings, load_settings
from profiles.items import Item
from profiles.notices import ReleaseNotice
from profiles.registry import ReleaseStore
from profiles.topics import Topics, topic_specs
from profiles.wire import encode
from stream.broker import THROUGHPUT, EmbeddedKafka
from stream.topic_admin import create_topics

BROKER_CORE = 0
WORKER_CORE = 1
WAIT_S = 120.0
KINDS = ("tale", "song", "play", "game", "tool", "walk", "meal", "film")


def tiny_language_model(directory: Path, seed: int) -> Path:
    """A random BERT of one layer, saved where transformers can load it."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    characters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("0123456789.,")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *KINDS, "number"]
    vocabulary = words + characters + [f"##{character}" for character in characters]
    directory.mkdir(parents=True)
    (directory / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
    )
    BertModel(config).save_pretrained(directory)  # type: ignore[no-untyped-call]  # transformers does not type it
    BertTokenizer(vocab=str(directory / "vocab.txt")).save_pretrained(directory)
    return directory


def synthetic_items(count: int) -> list[Item]:
    """A catalogue of made-up items of eight kinds."""
    return [
        Item(f"item-{at}", f"{kind} number {at}", tags=[kind])
        for at in range(count)
        for kind in [KINDS[at % len(KINDS)]]
    ]


@dataclass(slots=True)
class WorkerProcess:
    """One worker, or learner, and what it says of itself."""

    process: subprocess.Popen[bytes]
    log: Path
    role: str = "worker"

    @property
    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def _page(self, page: str) -> str:
        lines = [line for line in self.text.splitlines() if f"{self.role} starting" in line]
        port = lines[-1].split("http=")[1].split()[0].rsplit(":", 1)[-1]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{page}", timeout=10) as answer:
            return str(answer.read().decode())

    def is_ready(self) -> bool:
        """Whether it serves.  Raises: RuntimeError when it ended instead."""
        self.check_alive()
        try:
            self._page("readyz")
        except (OSError, IndexError):
            return False
        return True

    def check_alive(self) -> None:
        """Raises: RuntimeError with the end of its log when the worker ended."""
        if self.process.poll() is not None:
            raise RuntimeError(f"the {self.role} ended:\n{self.text[-4000:]}")

    def metrics(self, *names: str) -> dict[str, float]:
        """Samples on /metrics, by their full names with labels; nothing while it cannot say.

        `names`: of the samples that are wanted, if not all: they cost the process far less.
        """
        self.check_alive()
        asked = urllib.parse.urlencode([("name[]", name) for name in names])
        try:
            lines = self._page(f"metrics?{asked}").splitlines()
        except (OSError, IndexError):
            return {}
        samples = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
        return {name: float(value) for name, value in samples}

    def stop(self) -> None:
        """SIGTERM, then SIGKILL for one that hangs."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout=25)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


def total(metrics: Mapping[str, float], start: str) -> float:
    """Sum of the samples whose name starts so.

    >>> total({'a_total{x="1"}': 2.0, 'a_total{x="2"}': 3.0, "b": 1.0}, "a_total")
    5.0
    """
    return sum(value for name, value in metrics.items() if name.startswith(start))


def wait_until(what: str, check: Callable[[], bool], within_s: float = WAIT_S) -> None:
    """Look again and again until `check` holds.  Raises: TimeoutError."""
    deadline = time.monotonic() + within_s
    while not check():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {within_s:.0f} s for: {what}")
        time.sleep(0.05)


@dataclass(slots=True)
class Deployment:
    """Topics under one prefix, a release store, and workers started by the benchmark."""

    settings: Settings
    environment: dict[str, str]
    root: Path
    items: list[Item]
    topics: Topics
    workers: list[WorkerProcess] = field(default_factory=list)
    notices: int = 0

    @property
    def bootstrap(self) -> str:
        return self.settings.broker.bootstrap

    @property
    def store(self) -> ReleaseStore:
        return ReleaseStore(self.settings.store.releases, self.root / "cache")

    def new_release(self, seed: int) -> str:
        """A release of the same texts; another seed gives another space."""
        learner = self.settings.learner.model_copy(update={"seed": seed})
        settings = self.settings.model_copy(update={"learner": learner})
        return bootstrap_release(settings, self.items, self.store).release_id

    def announce(self, release_id: str) -> float:
        """Say on the releases topic that this one serves; returns when that was (Unix seconds)."""
        self.notices += 1
        notice = ReleaseNotice(release_id, "serving", self.notices, self.settings.store.releases)
        at = time.time()
        self._send(self.topics.releases, [(release_id, encode(notice))])
        return at

    def send_items(self) -> None:
        """Produce the catalogue."""
        self.send(self.topics.items, self.items)

    def send(self, topic: str, items: list[Item]) -> None:
        """Produce items to a topic, keyed by their ids."""
        self._send(topic, [(item.item_id, encode(item)) for item in items])

    def start_worker(self, name: str = "a", core: int = WORKER_CORE) -> WorkerProcess:
        """A worker process of its own, by default on the workers' core."""
        log = self.root / f"worker-{name}-{len(self.workers)}.log"
        command = [sys.executable, "-m", "stream", "worker", "--instance", name]
        with log.open("wb") as output, pinned(core):
            process = subprocess.Popen(
                command, cwd=ROOT, env=self.environment, stdout=output, stderr=output
            )
        worker = WorkerProcess(process, log)
        self.workers.append(worker)
        return worker

    def start_learner(self, overrides: Mapping[str, str]) -> WorkerProcess:
        """A learner that runs on any core, as an operator would start it beside the others."""
        log = self.root / "learner.log"
        environment = {**self.environment, **overrides}
        with log.open("wb") as output, on_all_cores():
            process = subprocess.Popen(
                [sys.executable, "-m", "stream", "learn"],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=output,
            )
        learner = WorkerProcess(process, log, "learner")
        self.workers.append(learner)
        return learner

    def _send(self, topic: str, messages: list[tuple[str, bytes]]) -> None:
        producer = KafkaProducer(bootstrap_servers=self.bootstrap, linger_ms=5)
        try:
            for key, value in messages:
                producer.send(topic, key=key.encode(), value=value)
            producer.flush(60)
        finally:
            producer.close()


@contextlib.contextmanager
def broker() -> Iterator[EmbeddedKafka]:
    """A real Kafka with its JVM's throughput options, on the broker's core."""
    kafka = EmbeddedKafka(jvm_options=THROUGHPUT)
    try:
        with pinned(BROKER_CORE):
            kafka.start()
        yield kafka
    finally:
        kafka.close()


@contextlib.contextmanager
def deployment(
    kafka: EmbeddedKafka,
    root: Path,
    prefix: str,
    items: list[Item],
    base: Path,
    overrides: Mapping[str, str],
    releases: Path | None = None,
) -> Iterator[Deployment]:
    """Topics and settings under a prefix of their own.  Workers still alive at the end are killed.

    Args:
        overrides: DRIFTLINE_* settings that differ from the defaults.
        releases: a store that several deployments share, as one release fits them all.
    """
    root.mkdir(parents=True)
    ours = {
        "DRIFTLINE_BROKER__BOOTSTRAP": kafka.bootstrap,
        "DRIFTLINE_TOPICS__PREFIX": prefix,
        "DRIFTLINE_MODEL__BASE": str(base),
        "DRIFTLINE_SERVING__GROUP": f"workers-{prefix}",
        "DRIFTLINE_STORE__DIRECTORY": str(root / "data"),
        "DRIFTLINE_STORE__RELEASES": str(releases or root / "releases"),
        **overrides,
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DRIFTLINE_")}
    # One thread of arithmetic: workers have one core.
    environment = {**kept, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", **ours}
    settings = _settings_of(ours)
    create_topics(kafka.bootstrap, topic_specs(prefix, settings.topics.partitions))
    made = Deployment(settings, environment, root, items, Topics.under(prefix))
    try:
        yield made
    finally:
        for worker in made.workers:
            if worker.process.poll() is None:
                worker.process.kill()
                worker.process.wait()


def _settings_of(variables: Mapping[str, str]) -> Settings:
    before = {name: value for name, value in os.environ.items() if name.startswith("DRIFTLINE_")}
    for name in before:
        del os.environ[name]
    os.environ.update(variables)
    try:
        return load_settings()
    finally:
        for name in variables:
            del os.environ[name]
        os.environ.update(before)
