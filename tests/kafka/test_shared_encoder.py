"""Two domains on a real broker, one encoder: nothing of one is in the other, through a kill."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from profiles.answers import Recommendation
from profiles.items import Item
from profiles.wire import decode_json, encode
from stream.broker import EmbeddedKafka
from stream.oracle import run_oracle
from tests.deployment import (
    Deployment,
    WorkerProcess,
    create_readable_topics,
    deploy,
    make_events,
    wait_until,
)
from tests.prepared import PreparedProcess

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

USERS, EACH = 6, 4
SOCKET = "DRIFTLINE_SERVING__ENCODER_SOCKET"


@pytest.fixture
def domains(
    kafka: EmbeddedKafka, tiny_language_model: Path, tmp_path: Path
) -> Iterator[tuple[Deployment, Deployment]]:
    """Two deployments with topics, state and a first release of their own."""
    bootstrap = kafka.bootstrap
    one, two = (f"test-{uuid.uuid4().hex[:12]}" for _ in range(2))
    for name, topics in (("one", one), ("two", two)):
        (tmp_path / name).mkdir()
        create_readable_topics(bootstrap, topics)
    with (
        deploy(bootstrap, one, tiny_language_model, tmp_path / "one") as first,
        deploy(bootstrap, two, tiny_language_model, tmp_path / "two") as second,
    ):
        for name, made in (("one", first), ("two", second)):
            made.environment[SOCKET] = str(tmp_path / f"{name}.sock")
            # `driftline encoder` reads a domain's file, not its workers' environment.
            (tmp_path / f"{name}.toml").write_text(domain_file(name, made, tmp_path))
        yield first, second


def domain_file(name: str, made: Deployment, root: Path) -> str:
    settings = made.settings
    return f"""
[domain]
name = "{name}"
summary = "A domain of this test"
[model]
base = "{settings.model.base}"
dim = {settings.model.dim}
hidden = {settings.model.hidden}
[serving]
encoder_socket = "{root / name}.sock"
[store]
directory = "{settings.store.directory}"
releases = "{settings.store.releases}"
"""


def start_encoder(deployment: Deployment, root: Path) -> WorkerProcess:
    environment = {name: os.environ[name] for name in os.environ if "DRIFTLINE_" not in name}
    words = [word for name in ("one", "two") for word in ("--domain", str(root / f"{name}.toml"))]
    log = root / f"encoder-{len(deployment.workers)}.log"
    process = PreparedProcess(["stream", "encoder", "--http-port", "0", *words], environment, log)
    made = WorkerProcess(process, log)
    deployment.workers.append(made)
    made.wait_ready()
    return made


def test_two_domains_share_an_encoder_and_nothing_else(
    domains: tuple[Deployment, Deployment], tmp_path: Path
) -> None:
    encoder = start_encoder(domains[0], tmp_path)
    workers = [made.start_worker() for made in domains]
    for worker in workers:
        worker.wait_ready()
    assert encoder.metric("driftline_encoder_adapters") == 2
    for made in domains:
        made.send_events(make_events(USERS, EACH))
    for made in domains:
        made.wait_committed(USERS * EACH)

    # An item newer than the releases must be read while the encoder is away, and is, later.
    encoder.process.kill()
    encoder.process.wait(30)
    item = Item("newer", "song number 99")
    for made in domains:
        made.send(made.topics.items, item.item_id, encode(item))
        made.send_events(make_events(USERS, EACH, start=EACH))
    encoder = start_encoder(domains[0], tmp_path)
    wait_until("read", lambda: encoder.metric("driftline_encoder_texts_total") >= 2)
    for made in domains:
        made.wait_committed(2 * USERS * EACH)
    for worker in workers:
        assert worker.stop() == 0
    assert encoder.stop() == 0

    releases = []
    for made in domains:
        report = run_oracle(made.settings)
        assert report.faults() == []
        assert report.events_applied == 2 * USERS * EACH
        named = {
            decode_json(record.value, Recommendation).release_id
            for record in made.read(made.topics.recommendations)
            if record.value
        }
        assert len(named) == 1
        releases.append(named)
    assert not releases[0] & releases[1], "each its own"
