"""A release every 200 ms under load: each recommendation is of exactly one."""

from __future__ import annotations

import threading

import pytest

from stream.oracle.run import run_oracle
from tests.deployment import Deployment, wait_until
from tests.faults.load import Load
from tests.faults.record import Record

pytestmark = pytest.mark.faults

EVERY_S = 0.2
SHORT, LONG = 15, 300


@pytest.mark.timeout(3600)
def test_releases_that_follow_each_other_five_times_a_second_never_mix(
    deployment: Deployment, record: Record, request: pytest.FixtureRequest
) -> None:
    count = LONG if request.config.getoption("--long") else SHORT
    names = [deployment.store.names()[0], deployment.new_release(31), deployment.new_release(32)]
    worker = deployment.start_worker()
    worker.wait_ready()
    load = Load(deployment)
    load.start()
    paced = threading.Event()
    try:
        for number in range(count):
            deployment.announce(names[(number + 1) % 3])
            paced.wait(EVERY_S)
        last = names[count % 3]
        serving = f'driftline_serving_release_info{{release_id="{last}"}}'
        wait_until("the last one serves", lambda: worker.metric(serving) == 1.0)
    finally:
        sent = load.end()
    deployment.wait_committed(sent, within_s=120)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    assert report.mixed_release_recommendations == 0
    assert worker.metric("driftline_swaps_total") >= min(count, 3)
    swaps = sum(report.swaps_by_partition.values())
    record.note("a release every 200 ms", count, report, swaps_seen=swaps)
