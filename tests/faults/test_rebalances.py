"""One worker, three, one again, while events flow: nothing is lost and no partition gets stuck."""

from __future__ import annotations

import numpy as np
import pytest

from stream.oracle.records import read_topic
from stream.oracle.run import run_oracle
from tests.deployment import Deployment
from tests.faults.load import Load
from tests.faults.record import Record

pytestmark = pytest.mark.faults


@pytest.mark.timeout(3600)
def test_partitions_that_move_to_three_workers_and_back_lose_nothing(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    first = deployment.start_worker("a")
    first.wait_ready()
    load = Load(deployment)
    load.start()
    try:
        for turn in range(repeats):
            others = [deployment.start_worker(name) for name in "bc"]
            for worker in others:
                worker.wait_ready()
            # One leaves in good order and one is killed.
            assert others[turn % 2].stop() == 0
            others[1 - turn % 2].kill()
            deployment.wait_committed(load.sent, within_s=120)
    finally:
        sent = load.end()
    deployment.wait_committed(sent, within_s=120)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    assert report.events_applied == sent
    assert first.stop() == 0
    record.note("rebalance 1-3-1 under load", repeats, report, longest_pause_s=pause_s(deployment))


def pause_s(deployment: Deployment) -> float:
    """The longest time in which a partition under load got no recommendation."""
    settings, topics = deployment.settings, deployment.topics
    times: dict[int, list[int]] = {}
    for raw in read_topic(settings.broker, topics.recommendations):
        times.setdefault(raw.partition, []).append(raw.timestamp_ms)
    return max(float(np.diff(np.sort(each)).max()) / 1000.0 for each in times.values())
