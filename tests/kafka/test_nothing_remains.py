"""After an erasure: a search for a user's id and words through every byte that was kept.

On a broker of its own.  What it was told to keep for 28 days, and compacts within a day, it is then
told to retire within a second, and the log must lose her bytes, too: what Kafka does later with the
settings of the contract, it does here while the test waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from kafka import KafkaProducer
from kafka.admin import ConfigResource, ConfigResourceType, KafkaAdminClient

from profiles.config import Settings
from profiles.events import Event
from profiles.items import User
from profiles.key_file import add_key
from profiles.pseudonyms import Pseudonyms
from profiles.topics import topic_specs
from profiles.wire import encode
from stream.broker import EmbeddedKafka
from stream.oracle import run_oracle
from stream.topic_admin import create_topics
from stream.user_rights import request_erasures, wait_for_receipts
from tests.deployment import WAIT_S, Deployment, deploy, make_events, wait_until

pytestmark = pytest.mark.kafka

SHE = "erika-mustermann-4711"
SAID = "zwiebelturm polieren"
DECLARED = "xylophone aus lila glas"
WORDS = (SAID.encode(), DECLARED.encode())
OTHERS, EACH = 6, 5
FILLER = b"\x00filler"
SOON = {
    "segment.ms": "500",
    "min.cleanable.dirty.ratio": "0.0",
    "max.compaction.lag.ms": "500",
    "delete.retention.ms": "0",
    "file.delete.delay.ms": "100",
}


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedKafka]:
    """One whose rounds of cleaning and retention come every second."""
    rounds = {
        "log.cleaner.backoff.ms": "200",
        "log.retention.check.interval.ms": "500",
        "log.initial.task.delay.ms": "100",
    }
    with EmbeddedKafka(tmp_path / "kafka", server_properties=rounds) as made:
        yield made


@pytest.fixture
def deployment(
    broker: EmbeddedKafka, prefix: str, tiny_language_model: Path, tmp_path: Path
) -> Iterator[Deployment]:
    create_topics(broker.bootstrap, topic_specs(prefix))
    (tmp_path / "local").mkdir()
    with deploy(broker.bootstrap, prefix, tiny_language_model, tmp_path / "local") as made:
        yield made


def files_with(root: Path, *needles: bytes) -> list[str]:
    """Files that hold one of these, by their paths, or that are called so.

    RocksDB packs its tables with LZ4, which leaves what it meets first as it is; a file may go away
    while it is looked at."""
    found = []
    for file in sorted(root.rglob("*")):
        try:
            held = file.read_bytes() if file.is_file() else b""
        except FileNotFoundError:
            continue
        found += [
            f"{file.relative_to(root)}: {needle!r}"
            for needle in needles
            if needle in held or needle in str(file).encode()
        ]
    return found


def retire(settings: Settings) -> None:
    """Let the broker do within seconds what the contract's settings make it do within 28 days."""
    admin = KafkaAdminClient(bootstrap_servers=settings.broker.bootstrap)
    try:
        for spec in topic_specs(settings.topics.prefix):
            changes = dict(SOON)
            if "delete" in spec.cleanup_policy:
                changes["retention.ms"] = "1000"
            admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, spec.name, changes)])
    finally:
        admin.close()


def fill(settings: Settings) -> None:
    """A record in every compacted partition, which closes the segment before it."""
    producer = KafkaProducer(bootstrap_servers=settings.broker.bootstrap)
    try:
        for spec in topic_specs(settings.topics.prefix):
            if "compact" in spec.cleanup_policy:
                for number in range(spec.partitions):
                    producer.send(spec.name, key=FILLER, value=b"{}", partition=number)
        producer.flush(30)
    finally:
        producer.close()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("form", ["plain", "pseudonyms"])
def test_no_byte_of_an_erased_user_is_left_on_local_disks_nor_later_in_the_brokers_logs(
    deployment: Deployment, tmp_path: Path, form: str
) -> None:
    local, logs = tmp_path / "local", tmp_path / "kafka"
    settings, topics, known_as = deployment.settings, deployment.topics, SHE
    if form == "pseudonyms":
        add_key(tmp_path / "pseudonyms.keys", create=True)
        privacy = settings.privacy.model_copy(
            update={"pseudonym_key_file": tmp_path / "pseudonyms.keys"}
        )
        settings = settings.model_copy(update={"privacy": privacy})
        names = Pseudonyms.of(privacy)
        assert names is not None
        known_as = names.of_user(SHE)
    needles = (known_as.encode(), SHE.encode(), *WORDS)

    worker, learner = deployment.start_worker(), deployment.start_learner()
    events = make_events(OTHERS, EACH)
    hers = [
        Event(f"h{at}", known_as, f"item-{at}", "rate", 1_000_000.0 + at, 4.0, text=SAID)
        for at in range(EACH)
    ]
    deployment.send_events([*events, *hers])
    deployment.send(topics.users, known_as, encode(User(known_as, interests=DECLARED)))
    deployment.send(topics.events, known_as, f"no JSON, {SAID}".encode())
    deployment.send(topics.events, "user-0", f'["{known_as}", "{SAID}"]'.encode())
    count = len(events) + len(hers)
    # Of hers, words and act are two events in a profile, and one in the replay buffer.
    deployment.wait_applied(count + len(hers))
    deployment.wait_committed(count + 2)
    wait_until(
        "learner has read",
        lambda: learner.metric("driftline_learner_events_total") == count,
        WAIT_S,
    )
    assert files_with(local, known_as.encode()), "she is there before she is erased"
    assert files_with(logs, known_as.encode())

    erasures = asyncio.run(request_erasures(settings, SHE, ""))
    receipts = [
        receipt
        for erasure in erasures
        for receipt in wait_for_receipts(settings, erasure, ["worker", "learner"], WAIT_S)
    ]
    erased = {receipt.component: receipt.erased for receipt in receipts}
    assert (erased["worker"]["profiles"], erased["worker"]["dead_letters"]) == (1, 2)
    assert erased["learner"]["history_events"] == len(hers)
    assert files_with(local, *needles) == []
    report = run_oracle(deployment.settings)
    assert (report.users_erased, report.faults()) == (1, [])
    assert (worker.stop(), learner.stop()) == (0, 0)
    assert files_with(local, *needles) == []
    if form == "pseudonyms":
        # Nobody ever wrote who she is.
        assert files_with(logs, SHE.encode()) == []

    retire(settings)

    def is_gone() -> bool:
        fill(settings)
        return not files_with(logs, *needles)

    wait_until("gone from the broker's logs", is_gone, 3 * WAIT_S)
