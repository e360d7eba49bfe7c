"""The search for the rate that a worker sustains (benchmarks/capacity.py)."""

from __future__ import annotations

import pytest

from benchmarks.capacity import highest


@pytest.mark.parametrize("capacity", [130.0, 500.0, 3_000.0, 21_500.0])
def test_the_rate_found_is_sustained_and_a_tenth_more_is_not(capacity: float) -> None:
    found = highest(lambda rate: rate <= capacity, first=500.0, precision=1.1, steps=14)

    assert found <= capacity < found * 1.1


def test_a_worker_that_sustains_nothing_ends_the_search() -> None:
    assert highest(lambda rate: False, first=500.0, precision=1.1, steps=14) == 0.0


def test_a_rate_that_failed_once_is_never_exceeded() -> None:
    asked: list[float] = []

    def has_a_bad_moment(rate: float) -> bool:
        asked.append(rate)
        return len(asked) != 3

    found = highest(has_a_bad_moment, first=500.0, precision=1.1, steps=14)

    assert 1_000.0 <= found < asked[2] == 2_000.0
    assert max(asked) == 2_000.0
