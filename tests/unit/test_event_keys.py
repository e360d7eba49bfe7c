"""Names of event ids: stable on disk, different for different ids, evenly spread."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.event_keys import event_keys
from profiles.wire import MAX_ID_LENGTH

pytestmark = pytest.mark.unit

ids = st.text(st.characters(exclude_characters="\x00"), min_size=1, max_size=MAX_ID_LENGTH)


def test_names_never_change_since_profiles_on_disk_hold_them() -> None:
    stored = [0x35C30F47239D7124, 0xC2EB4B8298EFEC80, 0x8BA463571FB02D23]
    assert event_keys(["a", "sess-1", "x" * MAX_ID_LENGTH]).tolist() == stored


@given(st.lists(ids, min_size=1, max_size=6))
def test_a_name_does_not_depend_on_the_neighbours(event_ids: list[str]) -> None:
    alone = [event_keys([event_id])[0] for event_id in event_ids]
    assert event_keys(event_ids).tolist() == alone
    assert len(set(alone)) == len(set(event_ids))
    assert min(alone) > 0


def test_ids_that_differ_little_get_names_that_differ_everywhere() -> None:
    names = event_keys([f"{prefix}-{n}" for prefix in ("a", "b", "aa") for n in range(50_000)])
    assert len(np.unique(names)) == len(names)
    for bit in range(64):
        share = float(((names >> np.uint64(bit)) & np.uint64(1)).mean())
        assert 0.49 < share < 0.51
