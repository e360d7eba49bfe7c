"""A worker that stood still past its session and wakes up: it must not go on where it was."""

from __future__ import annotations

import signal

import pytest

from stream.oracle.run import run_oracle
from tests.deployment import Deployment, make_events, wait_until
from tests.faults.record import Record

pytestmark = pytest.mark.faults

USERS = 30


@pytest.mark.timeout(1800)
def test_a_worker_suspended_past_its_session_wakes_up_to_what_others_did(
    deployment: Deployment, repeats: int, record: Record
) -> None:
    first = deployment.start_quick_worker("a")
    first.wait_ready()
    second = deployment.start_quick_worker("b")
    second.wait_ready()
    each = 0

    def is_shared() -> bool:
        held = [worker.metric("driftline_profiles{") for worker in (first, second)]
        return min(held) > 0 and sum(held) == USERS

    def go_on(events: int) -> None:
        nonlocal each
        deployment.send_events(make_events(USERS, each=events, start=each))
        each += events
        deployment.wait_applied(USERS * each)
        assert deployment.applied() == {f"user-{number}": each for number in range(USERS)}

    for _ in range(repeats):
        go_on(5)
        wait_until("both hold profiles", is_shared)
        first.process.send_signal(signal.SIGSTOP)
        try:
            go_on(5)
        finally:
            first.process.send_signal(signal.SIGCONT)
        wait_until("both hold profiles again", is_shared)
        go_on(5)
    report = run_oracle(deployment.settings)
    assert report.faults() == []
    record.note("SIGSTOP past the session, SIGCONT", repeats, report)
