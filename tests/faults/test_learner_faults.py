"""What can happen to a learner: killed in mid-round, out of memory, diverging, no space left.

Meanwhile a worker serves, and must not notice: the same release, never unready, and nothing in
the release store that is not whole.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from safetensors import safe_open

import learner.trainer
from learner.checkpoint import Position
from learner.rounds import load_plan
from learner.service import learner_directory
from profiles.errors import ReleaseError, StoreError
from profiles.expected import expected_by
from profiles.release import open_release
from stream.oracle.run import run_oracle
from tests.deployment import Deployment, WorkerProcess, make_events, wait_until
from tests.faults.learners import (
    ROUND_EVENTS,
    LearnerThread,
    as_environment,
    building,
    learner_settings,
    running,
)
from tests.faults.record import Bar, Record
from tests.faults.small_disk import fill, small_disk

pytestmark = pytest.mark.faults

USERS = 40
EACH = ROUND_EVENTS // USERS
ROOM_BYTES = 64 * 2**20
TAKEN = "driftline_learner_events_total"
"""Events that one life of a learner took into its buffer; one that was there is not taken again."""


@pytest.fixture
def release_disk(tmp_path: Path) -> Iterator[Path]:
    """The deployment's release store is a small disk of its own, mounted before it is made."""
    with small_disk(tmp_path / "releases", mib=16) as disk:
        yield disk


@pytest.fixture
def serving(deployment: Deployment) -> WorkerProcess:
    worker = deployment.start_quick_worker()
    worker.wait_ready()
    return worker


def untouched(deployment: Deployment, worker: WorkerProcess, releases: list[str]) -> None:
    """It serves as before, and these releases alone are in the store, whole."""
    assert worker.is_ready()
    changes = [line for line in worker.text.splitlines() if "stream.watching" in line]
    assert sum("ready" in line and "not ready" not in line for line in changes) == 1, changes
    assert deployment.store.names() == releases
    for name in releases:
        open_release(deployment.store.fetch(name), expected_by(deployment.settings))


def starved(*_: Any, **__: Any) -> Any:
    """Ask for more than the process may have: what torch then raises is real."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    before = resource.getrlimit(resource.RLIMIT_AS)
    limit = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        return torch.zeros(64 * ROOM_BYTES)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("fault", ["out of memory", "diverging loss"])
@pytest.mark.timeout(1800)
def test_a_round_that_fails_is_counted_and_nobody_else_notices(
    deployment: Deployment,
    serving: WorkerProcess,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    repeats: int,
    record: Record,
) -> None:
    first = deployment.store.names()
    settings = learner_settings(deployment)
    if fault == "out of memory":
        monkeypatch.setattr(learner.trainer, "batch_loss", starved)
    else:
        settings = learner_settings(deployment, head_lr=1e30, clip_norm=1e30)
    with running(settings) as life:
        for turn in range(repeats):
            deployment.send_events(make_events(USERS, each=EACH, start=turn * EACH))
            name = "driftline_learning_rounds_total"
            life.wait_for("a failed round", name, turn + 1, outcome="failed")
        assert life.rounds("promoted") == life.rounds("refused") == 0
        untouched(deployment, serving, first)
    deployment.wait_committed(USERS * EACH * repeats)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    record.note(f"learner: {fault}", repeats, report)


@pytest.mark.timeout(1800)
def test_a_learner_killed_in_mid_round_again_and_again_goes_on_from_its_checkpoint(
    deployment: Deployment, serving: WorkerProcess, repeats: int, record: Record
) -> None:
    first = deployment.store.names()
    settings = learner_settings(deployment, epochs=400, patience=400)
    directory = learner_directory(settings)
    checkpoint = directory / "round" / "checkpoint.safetensors"
    plan = directory / "round" / "plan.msgpack"
    deployment.send_events(make_events(USERS, each=2 * EACH))
    reached: list[Position] = []
    for turn in range(repeats):
        before_ns = checkpoint.stat().st_mtime_ns if turn else 0
        process = deployment.start_learner(**as_environment(settings))

        def has_gone_on(before_ns: int = before_ns) -> bool:
            assert process.process.poll() is None, process.text[-2000:]  # noqa: B023
            return checkpoint.is_file() and checkpoint.stat().st_mtime_ns > before_ns

        wait_until("a checkpoint in the round", has_gone_on, within_s=180)
        process.kill()
        reached.append(position(checkpoint))
        untouched(deployment, serving, first)
    frozen = load_plan(plan)
    assert frozen is not None
    # Never back; a life on a busy machine may be too short for another step.
    steps = [at.step for at in reached]
    assert steps == sorted(steps)
    assert repeats == 1 or len(set(steps)) > repeats // 2
    with running(settings) as life:
        wait_until("the round's end", lambda: rounds_ended(life) == 1, within_s=180)
        wait_until("nothing left to resume", lambda: not plan.exists())
    names = deployment.store.names()
    assert len(names) == 2
    manifest = open_release(
        deployment.store.fetch((set(names) - set(first)).pop()),
        expected_by(deployment.settings),
    ).manifest
    assert (manifest.parent_id, manifest.offsets) == (frozen.parent_id, frozen.offsets)
    deployment.wait_committed(2 * USERS * EACH)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    record.note("learner killed in mid-round", repeats, report)


def position(checkpoint: Path) -> Position:
    """Where in its round the file says it is."""
    with safe_open(str(checkpoint), framework="numpy") as file:
        return msgspec.json.decode(file.metadata()["position"], type=Position)


@pytest.mark.timeout(1800)
def test_a_learner_on_a_full_disk_ends_and_goes_on_when_there_is_room(
    deployment: Deployment,
    serving: WorkerProcess,
    tmp_path: Path,
    repeats: int,
    record: Record,
) -> None:
    first = deployment.store.names()
    ended_s: list[float] = []
    each, taken = 0, 0.0
    with small_disk(tmp_path / "small", mib=48) as disk:
        settings = learner_settings(deployment, disk / "data", min_events=10**6)
        for _ in range(repeats):
            life = LearnerThread(settings)
            deployment.send_events(make_events(USERS, each=2, start=each))
            each += 2
            life.wait_for("read", TAKEN, each * USERS - taken)
            filler = fill(disk)
            began_s = time.monotonic()
            deployment.send_events(make_events(USERS, each=50, start=each))
            each += 50
            wait_until("ended", lambda life=life: not life.is_alive)  # type: ignore[misc]
            ended_s.append(life.ended_at_s - began_s)
            assert isinstance(life.error, StoreError), life.error
            assert "disk" in str(life.error)
            taken += life.sample(TAKEN)
            assert committed(deployment, settings.learner.group) <= taken < each * USERS
            filler.unlink()
        with running(settings) as again:
            again.wait_for("the rest", TAKEN, each * USERS - taken)
            assert again.sample(TAKEN) == each * USERS - taken
        assert committed(deployment, settings.learner.group) == each * USERS
        untouched(deployment, serving, first)
    deployment.wait_committed(each * USERS)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    bars = {"not ready, s": Bar(5.0, ended_s)}
    record.note("disk full under the learner", repeats, report, bars)


def committed(deployment: Deployment, group: str) -> int:
    return deployment.committed(deployment.topics.events, group)


@pytest.mark.timeout(1800)
def test_a_full_release_store_keeps_a_round_until_there_is_room(
    release_disk: Path,
    deployment: Deployment,
    serving: WorkerProcess,
    repeats: int,
    record: Record,
) -> None:
    ended_s: list[float] = []
    settings = learner_settings(deployment)
    plan = learner_directory(settings) / "round" / "plan.msgpack"
    for turn in range(repeats):
        releases = deployment.store.names()
        filler = fill(release_disk)
        life = LearnerThread(settings)
        began_s = time.monotonic()
        deployment.send_events(make_events(USERS, each=EACH, start=turn * EACH))
        wait_until("ended", lambda life=life: not life.is_alive)  # type: ignore[misc]
        ended_s.append(life.ended_at_s - began_s)
        assert isinstance(life.error, ReleaseError), life.error
        assert plan.is_file()
        assert deployment.store.names() == releases
        assert not building(settings)
        filler.unlink()
        with running(settings) as again:
            wait_until("the kept round ends", lambda again=again: rounds_ended(again) == 1)  # type: ignore[misc]
        assert len(deployment.store.names()) > len(releases)
        assert serving.is_ready()
    deployment.wait_committed(USERS * EACH * repeats)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    bars = {"not ready, the round's training included, s": Bar(5.0, ended_s)}
    record.note("disk full under the release store", repeats, report, bars)


def rounds_ended(life: LearnerThread) -> float:
    """Well or not: the gate's verdict is not what is asked here."""
    return life.rounds("promoted") + life.rounds("refused")
