"""Faults that a worker must survive on a real broker: nothing lost, nothing doubled.

The short lane runs with the whole suite; `make faults` repeats each fault (`--long`).
"""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from profiles.topics import topic_specs
from stream.broker import EmbeddedKafka
from stream.oracle.run import run_oracle
from stream.topic_admin import create_topics
from tests.deployment import Deployment, deploy, make_events, wait_until
from tests.faults.record import Record

pytestmark = pytest.mark.faults

USERS = 30


def _expect(deployment: Deployment, each: int) -> None:
    deployment.wait_applied(USERS * each)
    assert deployment.applied() == {f"user-{number}": each for number in range(USERS)}


def _newest(store: Path, pattern: str) -> Path:
    files = [path for path in store.glob(pattern) if path.stat().st_size > 0]
    assert files, f"no {pattern} under {store}"
    return max(files, key=lambda path: path.stat().st_size)


def _flip_table(store: Path) -> None:
    _flip(_newest(store, "*.sst"))


def _flip_current(store: Path) -> None:
    _flip(store / "CURRENT")


def _flip_log(store: Path) -> None:
    _flip(_newest(store, "*.log"))


def _truncate_manifest(store: Path) -> None:
    manifest = _newest(store, "MANIFEST-*")
    manifest.write_bytes(manifest.read_bytes()[: manifest.stat().st_size // 2])


def _delete(store: Path) -> None:
    shutil.rmtree(store)


def _flip(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[random.Random(len(payload)).randrange(len(payload))] ^= 0x10
    path.write_bytes(bytes(payload))


@pytest.mark.timeout(1800)
def test_damaged_local_stores_are_rebuilt_from_the_changelog(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    damages: list[Callable[[Path], None]] = [
        _flip_log,
        _flip_current,
        _truncate_manifest,
        _delete,
    ]
    worker = deployment.start_worker()
    worker.wait_ready()
    each = 0
    for turn in range(repeats):
        deployment.send_events(make_events(USERS, each=5, start=each))
        each += 5
        _expect(deployment, each)
        worker.kill()
        # Every partition is hurt in another way, all at once.
        for number, damage in enumerate(damages):
            damage(deployment.root / "data" / "a" / f"partition-{(number + turn) % 4}")
        worker = deployment.start_worker()
        worker.wait_ready()
        deployment.send_events(make_events(USERS, each=5, start=each))
        each += 5
        _expect(deployment, each)
        assert worker.metric("driftline_profiles{") == USERS
        quarantined = worker.metric("driftline_stores_quarantined_total")
        # A flipped log bit may only cost its tail, which the changelog brings back.
        assert 2 <= quarantined <= 3
    _judge(deployment, "store deleted, flipped or cut", repeats, record)


@pytest.mark.timeout(1800)
def test_a_worker_killed_again_and_again_under_load_loses_and_doubles_nothing(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    each = 0
    for turn in range(max(2, repeats)):
        worker = deployment.start_worker()
        deployment.send_events(make_events(USERS, each=40, start=each))
        before = each * USERS
        each += 40
        worker.wait_ready()
        # Somewhere in the middle of the batch, another place every time.
        reached = before + (turn * 211) % (30 * USERS)
        wait_until("some applied", partial(_has_applied, deployment, reached))
        worker.kill()
    deployment.start_worker().wait_ready()
    _expect(deployment, each)
    _judge(deployment, "kill -9 in mid-batch", max(2, repeats), record)


def _judge(deployment: Deployment, fault: str, times: int, record: Record) -> None:
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    record.note(fault, times, report)


def _has_applied(deployment: Deployment, events: int) -> bool:
    return sum(deployment.applied().values()) >= events


@pytest.mark.timeout(1800)
def test_a_broker_that_is_killed_and_comes_back_costs_nothing(
    prefix: str, tiny_language_model: Path, tmp_path: Path, repeats: int, record: Record
) -> None:
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        create_topics(kafka.bootstrap, topic_specs(prefix))
        with deploy(kafka.bootstrap, prefix, tiny_language_model, tmp_path) as deployment:
            worker = deployment.start_worker()
            worker.wait_ready()
            each = 0
            away, chance = threading.Event(), random.Random(3)
            for _ in range(min(repeats, 10)):
                deployment.send_events(make_events(USERS, each=10, start=each))
                each += 10
                kafka.kill()
                if repeats > 1:
                    away.wait(chance.uniform(5.0, 30.0))
                kafka.start()
                deployment.send_events(make_events(USERS, each=10, start=each))
                each += 10
                _expect(deployment, each)
            assert worker.process.poll() is None
            report = run_oracle(deployment.settings)
            assert report.faults() == []
            record.note("broker killed for 5 to 30 s", min(repeats, 10), report)
            assert worker.stop() == 0
