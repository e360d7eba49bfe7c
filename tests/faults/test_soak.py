"""What a worker holds in memory: half an hour at four fifths of what it sustains, and a backlog.

In the soak the worker is slow by design (`slow_worker`), and for some minutes the load is above
what it can do: the lag that piles up must drain, the memory must have settled long before.
"""

from __future__ import annotations

import threading
import time

import pytest

from benchmarks.load import fill, synthetic_events
from stream.oracle.run import run_oracle
from tests.deployment import ITEMS, PARTITIONS, Deployment, wait_until
from tests.faults.load import event_at
from tests.faults.memory import MemoryWatch, growth
from tests.faults.record import Bar, Record

pytestmark = pytest.mark.faults

SUSTAINED = 500
"""Profiles a second that the slow worker can store."""
USERS = 20_000
"""So many that a chunk holds nobody twice: a profile stored is an event applied."""
LOAD = 0.8
OVERLOAD = 1.6
SOAK_S, SHORT_SOAK_S = 1_800.0, 6.0
OVERLOADED = (0.2, 0.3)
"""Of the soak's time: when the load is twice as high."""
TICK_S = 0.25
BACKLOG, SHORT_BACKLOG = 1_000_000, 20_000
SAMPLE = 500
"""Users whose profiles are recomputed; events are counted for all."""


@pytest.mark.timeout(3600)
def test_a_slow_worker_drains_its_lag_and_its_memory_settles(
    deployment: Deployment, request: pytest.FixtureRequest, record: Record
) -> None:
    lasts_s = SOAK_S if request.config.getoption("--long") else SHORT_SOAK_S
    slowly = ["tests.faults.slow_worker", str(1.0 / SUSTAINED)]
    worker = deployment.start_wrapped_worker(slowly, is_prepared=False)
    worker.wait_ready()
    watch = MemoryWatch(worker.process.pid, lasts_s / 360)
    watch.start()
    pace, sent, due = threading.Event(), 0, 0.0
    lags: list[float] = []
    began_s = time.monotonic()
    while (gone := (time.monotonic() - began_s) / lasts_s) < 1.0:
        is_over = OVERLOADED[0] <= gone < OVERLOADED[1]
        due += SUSTAINED * (OVERLOAD if is_over else LOAD) * TICK_S
        deployment.send_events([event_at(number, USERS) for number in range(sent, int(due))])
        sent = int(due)
        lags.append(worker.metric("driftline_lag_records"))
        pace.wait(TICK_S - (time.monotonic() - began_s) % TICK_S)
    samples = watch.end()
    drains_s = time.monotonic()
    deployment.wait_committed(sent, within_s=300)
    drains_s = time.monotonic() - drains_s
    assert worker.stop() == 0
    report = run_oracle(deployment.settings, sample_users=SAMPLE)
    assert report.faults() == []
    assert report.events_applied == sent
    record.note(
        "slow worker, soak at 80% load",
        1,
        report,
        {"growth in the last half": Bar(0.05, [growth(samples)])},
        minutes=lasts_s / 60.0,
        sustained_events_per_s=SUSTAINED,
        largest_lag=max(lags),
        lag_at_the_end=lags[-1],
        drained_after_s=drains_s,
        resident_mib_at_half=samples[len(samples) // 2][1],
        resident_mib_at_the_end=samples[-1][1],
        resident_mib_most=max(mib for _, mib in samples),
    )


@pytest.mark.timeout(3600)
def test_a_worker_that_starts_far_behind_catches_up_in_bounded_memory(
    deployment: Deployment, request: pytest.FixtureRequest, record: Record
) -> None:
    count = BACKLOG if request.config.getoption("--long") else SHORT_BACKLOG
    events = synthetic_events(count, users=count // 100, items=ITEMS, partitions=PARTITIONS, seed=5)
    fill(deployment.settings.broker.bootstrap, deployment.topics.events, events)
    began_s = time.monotonic()
    worker = deployment.start_wrapped_worker(["tests.faults.quick_worker"], is_prepared=False)
    watch = MemoryWatch(worker.process.pid, count / 4e6)
    watch.start()
    worker.wait_ready()
    ready_s = time.monotonic()
    deployment.wait_committed(count, within_s=900)
    done_s = time.monotonic()
    time.sleep(3 * watch.every_s)  # three at least, however fast the worker was
    samples = [mib for at, mib in watch.end() if at >= ready_s - began_s]
    assert worker.stop() == 0
    report = run_oracle(deployment.settings, sample_users=SAMPLE)
    assert report.faults() == []
    assert report.events_applied == count
    third = len(samples) // 3
    record.note(
        "starts a million events behind",
        1,
        report,
        {"most held in the last third / in the middle": Bar(1.05, [
            max(samples[2 * third :]) / max(samples[third : 2 * third])
        ])},
        resident_mib_most=max(samples),
        resident_mib_when_ready=samples[0],
        caught_up_s=done_s - ready_s,
        events_per_s=count / (done_s - ready_s),
    )  # fmt: skip


def test_lag_is_told_while_a_worker_is_behind(deployment: Deployment) -> None:
    worker = deployment.start_wrapped_worker(["tests.faults.slow_worker", "0.02"])
    worker.wait_ready()
    deployment.send_events([event_at(number, USERS) for number in range(200)])
    wait_until("a lag", lambda: worker.metric("driftline_lag_records") > 0)
    deployment.wait_committed(200)
    wait_until("none left", lambda: worker.metric("driftline_lag_records") == 0)
    assert worker.stop() == 0
