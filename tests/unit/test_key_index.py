"""Rows by key: as a dictionary would find them, however the keys collide and whenever they come."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.key_index import KeyIndex

pytestmark = pytest.mark.unit

# The lowest bits are all alike in many of these, so that searches run into one another.
keys = st.one_of(st.integers(0, 20), st.integers(0, 20).map(lambda n: (n << 40) + 7))


@given(st.lists(st.lists(keys, max_size=30), max_size=5), st.lists(keys, max_size=20))
def test_an_index_finds_what_a_dictionary_finds(parts: list[list[int]], wanted: list[int]) -> None:
    index, known, first = KeyIndex(), np.zeros(0, np.uint64), dict[int, int]()
    asked = np.array(wanted, np.uint64)
    for part in [[], *parts]:
        for key in part:
            first.setdefault(key, len(known))
            known = np.append(known, np.uint64(key))
        assert index.rows_of(known, asked).tolist() == [first.get(key, -1) for key in wanted]


def test_an_index_grows_and_keeps_the_shape_of_what_is_asked() -> None:
    known = np.random.default_rng(1).integers(2**63, size=50_000).astype(np.uint64)
    index = KeyIndex()
    for size in (1, 400, 600, 2_000, 50_000):
        rows = index.rows_of(known[:size], known[:size].reshape(1, -1))
        assert rows.tolist() == [list(range(size))]
    assert index.rows_of(known, np.zeros((0, 3), np.uint64)).shape == (0, 3)
    assert index.rows_of(known, np.array([[2**63 + 1], [2**64 - 1]], np.uint64)).max() == -1
