"""Faults that a worker must survive on a real broker: nothing lost, nothing doubled.

The short lane runs with the whole suite; `make faults` repeats each fault (`--long`).
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from kafka import TopicPartition

from stream.broker import EmbeddedKafka
from stream.oracle.run import run_oracle
from tests.deployment import (
    PARTITIONS,
    Deployment,
    WorkerProcess,
    create_readable_topics,
    deploy,
    make_events,
    wait_until,
)
from tests.faults.pauses import SESSION, output_again_s, output_times
from tests.faults.record import Bar, Record

pytestmark = pytest.mark.faults

USERS, LONG_USERS = 30, 5_000


def _expect(deployment: Deployment, each: int) -> None:
    deployment.wait_applied(USERS * each)
    assert deployment.applied() == {f"user-{number}": each for number in range(USERS)}


def _largest(store: Path, pattern: str) -> Path:
    files = [path for path in store.glob(pattern) if path.stat().st_size > 0]
    assert files, f"no {pattern} under {store}"
    return max(files, key=lambda path: path.stat().st_size)


def _flip_table(store: Path) -> None:
    _flip(_largest(store, "*.sst"))


def _flip_current(store: Path) -> None:
    _flip(store / "CURRENT")


def _flip_log(store: Path) -> None:
    _flip(_largest(store, "*.log"))


def _truncate_manifest(store: Path) -> None:
    _truncate(_largest(store, "MANIFEST-*"))


def _truncate_table(store: Path) -> None:
    _truncate(_largest(store, "*.sst"))


def _delete(store: Path) -> None:
    shutil.rmtree(store)


DAMAGES: tuple[Callable[[Path], None], ...] = (
    _flip_log,
    _flip_current,
    _flip_table,
    _truncate_manifest,
    _truncate_table,
    _delete,
)
NEVER_OPENS = {_flip_current, _truncate_manifest, _truncate_table}
"""A flipped bit of the log may only cost its tail; a deleted store is simply not there."""


def _flip(path: Path) -> None:
    payload = bytearray(path.read_bytes())
    payload[random.Random(len(payload)).randrange(len(payload))] ^= 0x10
    path.write_bytes(bytes(payload))


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.timeout(1800)
def test_damaged_local_stores_are_rebuilt_from_the_changelog(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    # A store for each partition is hurt in a turn: so many turns try each damage `repeats` times.
    each, turns = 0, 1 if repeats == 1 else repeats * len(DAMAGES) // PARTITIONS
    done: Counter[Callable[[Path], None]] = Counter()
    worker = deployment.start_quick_worker()
    for turn in range(turns):
        worker.wait_ready()
        deployment.send_events(make_events(USERS, each=5, start=each))
        each += 5
        _expect(deployment, each)
        worker.kill()
        # The second start makes a table of what the first left in its log, and a log of its own.
        worker = deployment.start_quick_worker()
        worker.wait_ready()
        deployment.send_events(make_events(USERS, each=1, start=each))
        each += 1
        _expect(deployment, each)
        worker.kill()
        # Every partition is hurt in another way, all at once.
        hurt = [DAMAGES[(turn * PARTITIONS + at) % len(DAMAGES)] for at in range(PARTITIONS)]
        for number, damage in enumerate(hurt):
            damage(deployment.root / "data" / "a" / f"partition-{(number + turn) % PARTITIONS}")
        done.update(hurt)
        worker = deployment.start_quick_worker()
        worker.wait_ready()
        _was_ready_last(worker)
        deployment.send_events(make_events(USERS, each=5, start=each))
        each += 5
        _expect(deployment, each)
        assert worker.metric("driftline_profiles{") == USERS
        quarantined = worker.metric("driftline_stores_quarantined_total")
        assert len(NEVER_OPENS.intersection(hurt)) <= quarantined <= PARTITIONS
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    for damage, times in done.items():
        record.note(f"store damaged: {damage.__name__.strip('_')}", times, report)


def _was_ready_last(worker: WorkerProcess) -> None:
    """It did not call itself ready before every partition was open again."""
    # The log hears of it a moment after whoever asks.
    wait_until("it is in the log", lambda: "] ready " in worker.text)
    before = worker.text.partition("] ready ")[0]
    assert before.count("] partition open ") == PARTITIONS


@pytest.mark.timeout(1800)
def test_a_worker_killed_again_and_again_under_load_loses_and_doubles_nothing(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    users, times = (USERS, 2) if repeats == 1 else (LONG_USERS, repeats)
    applied = "driftline_events_applied_total"
    each = 0
    killed_s: list[float] = []
    worker = deployment.start_worker("a", **SESSION)
    for turn in range(times):
        worker.wait_ready()
        answered = _answers(deployment)
        deployment.send_events(make_events(users, each=1, start=each))
        each += 1
        # Somewhere in the middle of the batch, another place every time.
        reached = 1 + (turn * 211) % (users - 5)
        wait_until("some applied", partial(_has_reached, worker, applied, reached))
        # Killed before anybody could read an answer, it would lengthen the pause of the kill
        # before; the worker's own count is ahead of the topic.
        wait_until("an output", partial(_has_answered, deployment, answered))
        killed_s.append(time.time())
        worker.kill()
        worker = deployment.start_worker("a", **SESSION)
        deployment.send_events(make_events(users, each=1, start=each))
        each += 1
    worker.wait_ready()
    deployment.wait_committed(users * each, within_s=300)
    assert worker.stop() == 0
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    assert report.events_applied == users * each
    again_s = output_again_s(output_times(deployment), killed_s)
    bars = {"output again, s": Bar(15.0, again_s)}
    record.note("kill -9 in mid-batch", times, report, bars, users=users)


def _answers(deployment: Deployment) -> int:
    topic = deployment.topics.recommendations
    return sum(deployment.end(TopicPartition(topic, number)) for number in range(PARTITIONS))


def _has_answered(deployment: Deployment, before: int) -> bool:
    return _answers(deployment) > before


def _has_reached(worker: WorkerProcess, metric: str, least: int) -> bool:
    return worker.metric(metric) >= least


@pytest.mark.timeout(1800)
def test_a_broker_that_is_killed_and_comes_back_costs_nothing(
    prefix: str, tiny_language_model: Path, tmp_path: Path, repeats: int, record: Record
) -> None:
    with EmbeddedKafka(tmp_path / "kafka") as kafka:
        create_readable_topics(kafka.bootstrap, prefix)
        with deploy(kafka.bootstrap, prefix, tiny_language_model, tmp_path) as deployment:
            worker = deployment.start_quick_worker()
            worker.wait_ready()
            each = 0
            away, chance = threading.Event(), random.Random(3)
            back_s: list[float] = []
            for _ in range(repeats):
                deployment.send_events(make_events(USERS, each=10, start=each))
                each += 10
                kafka.kill()
                if repeats > 1:
                    away.wait(chance.uniform(5.0, 30.0))
                kafka.start()
                back_s.append(time.time())
                deployment.send_events(make_events(USERS, each=10, start=each))
                each += 10
                _expect(deployment, each)
            assert worker.process.poll() is None
            report = run_oracle(deployment.settings)
            assert report.faults() == []
            again_s = output_again_s(output_times(deployment), back_s)
            bars = {"resumes, s": Bar(30.0, again_s)}
            record.note("broker killed for 5 to 30 s", repeats, report, bars)
            assert worker.stop() == 0
