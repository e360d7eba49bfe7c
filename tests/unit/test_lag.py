"""Lag in seconds: the age of what is under way, else since when something has been waiting."""

from __future__ import annotations

from pathlib import Path

import pytest

from stream.lag import LagClock, bytes_of

pytestmark = pytest.mark.unit

PLACE = ("events", 0)


def test_what_was_fetched_is_as_old_as_its_timestamp_says() -> None:
    assert LagClock().lag_s(PLACE, 3, oldest_ms=40_000, now_s=52.5) == 12.5


def test_a_producer_whose_clock_is_ahead_makes_no_negative_lag() -> None:
    assert LagClock().lag_s(PLACE, 3, oldest_ms=90_000, now_s=52.5) == 0.0


def test_what_was_not_fetched_waits_from_when_it_was_first_seen_until_nothing_waits() -> None:
    clock = LagClock()
    assert [
        clock.lag_s(PLACE, n, None, now_s) for n, now_s in [(4, 10.0), (9, 13.0), (0, 14.0)]
    ] == [
        0.0,
        3.0,
        0.0,
    ]
    assert clock.lag_s(PLACE, 1, None, now_s=99.0) == 0.0


def test_a_partition_that_comes_back_begins_anew() -> None:
    clock = LagClock()
    clock.lag_s(PLACE, 4, None, now_s=10.0)
    clock.keep([("events", 1)])
    assert clock.lag_s(PLACE, 4, None, now_s=20.0) == 0.0


def test_a_store_takes_what_its_files_do_and_one_that_is_gone_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.sst").write_bytes(b"x" * 30)
    (tmp_path / "b.log").write_bytes(b"y" * 12)
    assert bytes_of(tmp_path) == 42
    assert bytes_of(tmp_path / "gone") == 0
