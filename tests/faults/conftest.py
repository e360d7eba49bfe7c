"""The record of the long lane, kept at the end of the session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.record import Record


@pytest.fixture(scope="session")
def record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """Noted by tests, written with `--long` alone."""
    made = Record(bool(request.config.getoption("--long")))
    yield made
    made.save()
