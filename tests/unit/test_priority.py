"""A round's thread makes way; the thread that started it does not."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable

import pytest

from learner.jobs import Job
from learner.priority import Priority

pytestmark = [
    pytest.mark.unit,
    pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities on Linux only"),
]


def seen() -> tuple[int, int]:
    thread = threading.get_native_id()
    return os.sched_getscheduler(thread), os.getpriority(os.PRIO_PROCESS, thread)


def of_a_job(priority: Priority) -> tuple[int, int]:
    def work(is_cancelled: Callable[[], bool]) -> tuple[int, int]:
        return seen()

    job = Job("round", work, priority)
    assert job.join(10.0)
    return job.result()


def test_an_idle_round_runs_under_the_idle_policy_and_its_owner_does_not() -> None:
    before = seen()

    assert of_a_job(Priority(19, "idle")) == (os.SCHED_IDLE, 19)
    assert seen() == before


def test_a_normal_round_is_only_nice() -> None:
    assert of_a_job(Priority(19, "normal")) == (os.SCHED_OTHER, 19)
