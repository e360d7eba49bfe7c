"""Fixtures over `tests.unit.builders`, and the one Hypothesis profile of the unit tests.

No database and no random seed: a run that fails fails again, on every machine.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings

from profiles.catalog import Catalog
from profiles.space import Space
from tests.unit.builders import make_catalog, make_space

settings.register_profile(
    "unit",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("unit")


@pytest.fixture
def catalog() -> Catalog:
    """Twenty items."""
    return make_catalog()


@pytest.fixture
def space(catalog: Catalog) -> Space:
    """A space in which each of the twenty has a vector."""
    return make_space(catalog)
