"""The lowest block without its matrix product: the formula, tables of items, what is kept."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles import space as spaces
from profiles.applying import apply_batch
from profiles.head import Head, HeadShape
from profiles.judging import Batch
from profiles.layers import VALUE_CLIP, Floats, gap_features
from profiles.lowest import Picked, read_events
from profiles.state import empty_records
from tests.unit.builders import (
    LAYOUT,
    SHAPE,
    TOPIC_KEY,
    make_batch,
    make_catalog,
    make_event,
    make_head,
    make_space,
)

pytestmark = pytest.mark.unit

ITEMS = 9
Doubles = npt.NDArray[np.float64]


def plainly(head: Head, picked: Picked, actions: npt.NDArray[np.int64], values: Floats,
            gaps_s: Doubles, mask: npt.NDArray[np.bool_], held: Floats) -> Doubles:  # fmt: skip
    """The block's formula, one event at a time, in float64.  Returns: the state after each."""
    gaps = gap_features(gaps_s).astype(np.float64)
    states = np.zeros((*mask.shape, head.shape.dim))
    for user in range(len(mask)):
        state = held[user].astype(np.float64)
        for step in range(mask.shape[1]):
            if mask[user, step]:
                x = picked.vectors[picked.rows[user, step]].astype(np.float64)
                x = x + head.action[actions[user, step]] + gaps[user, step] @ head.gap
                x = x + np.clip(values[user, step], -VALUE_CLIP, VALUE_CLIP) * head.value
                normed = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
                mixed = (normed * head.norm_gain[0] + head.norm_bias[0]) @ head.mix_weight[0]
                gate, candidate = np.split(mixed + head.mix_bias[0], 2)
                gate = 1.0 / (1.0 + np.exp(-gate - gaps[user, step] @ head.mix_gap[0]))
                state = (1.0 - gate) * state + gate * candidate
            states[user, step] = state
    return states


@given(seed=st.integers(0, 2**31), users=st.integers(1, 4), steps=st.integers(1, 9))
def test_the_state_is_what_the_formula_says(seed: int, users: int, steps: int) -> None:
    rng = np.random.default_rng(seed)
    shape = HeadShape(dim=int(rng.integers(2, 20)), layers=1, hidden=4, text_dim=3, actions=3)
    head = make_head(seed, shape)
    vectors = (rng.normal(size=(ITEMS, shape.dim)) * rng.choice([0.1, 1.0, 5.0])).astype(np.float32)
    picked = Picked(vectors, head.lowest.mixed(vectors), rng.integers(ITEMS, size=(users, steps)))
    actions = rng.integers(3, size=(users, steps))
    values = rng.choice([0.0, 1.0, -400.0], size=(users, steps)).astype(np.float32)
    gaps_s = rng.choice([np.nan, 0.0, 61.0, 1e5, 1e9], size=(users, steps))
    mask = rng.random((users, steps)) < 0.8
    held = rng.normal(size=(users, shape.dim)).astype(np.float32)
    before = held.copy()

    last, trail = read_events(
        head.lowest, picked, actions, values, gaps_s, mask, held, keep="x mixed states"
    )

    expected = plainly(head, picked, actions, values, gaps_s, mask, before)
    np.testing.assert_allclose(trail.states, expected, atol=1e-4)
    np.testing.assert_array_equal(held, trail.states[:, -1])
    assert not trail.x[~mask].any()
    assert not trail.mixed[~mask].any()
    for user in range(users):
        real = np.flatnonzero(mask[user])
        of_last = trail.x[user, real[-1]] if len(real) else np.zeros(shape.dim)
        np.testing.assert_array_equal(last[user], of_last)

    again = before.copy()
    _, nothing = read_events(head.lowest, picked, actions, values, gaps_s, mask, again)
    np.testing.assert_array_equal(again, held)
    assert nothing.x.shape[1] == nothing.mixed.shape[1] == nothing.states.shape[1] == 0


def test_items_that_stand_in_no_table_are_read_alike() -> None:
    rng = np.random.default_rng(1)
    head = make_head()
    vectors = rng.normal(size=(ITEMS, SHAPE.dim)).astype(np.float32)
    rows = rng.integers(ITEMS, size=(3, 4))
    states = []
    for picked in (
        Picked(vectors, head.lowest.mixed(vectors), rows),
        Picked.alone(head.lowest, vectors[rows]),
    ):
        held = np.zeros((3, SHAPE.dim), np.float32)
        read_events(
            head.lowest, picked, np.ones((3, 4), np.int64), np.ones((3, 4), np.float32),
            np.full((3, 4), 60.0), np.ones((3, 4), np.bool_), held,
        )  # fmt: skip
        states.append(held)
    np.testing.assert_allclose(states[0], states[1], atol=1e-6)


def test_no_action_is_an_action_that_adds_nothing() -> None:
    head = make_head()
    arrays = head.arrays()
    arrays["action"] = np.concatenate([arrays["action"][:-1], np.zeros((1, SHAPE.dim), np.float32)])
    head = Head.from_arrays(SHAPE, head.actions, arrays)
    vectors = np.random.default_rng(2).normal(size=(1, SHAPE.dim)).astype(np.float32)
    states = []
    for action in (SHAPE.actions - 1, SHAPE.actions):
        held = np.ones((1, SHAPE.dim), np.float32)
        read_events(
            head.lowest, Picked.alone(head.lowest, vectors[None]), np.array([[action]]),
            np.zeros((1, 1), np.float32), np.array([[5.0]]), np.ones((1, 1), np.bool_), held,
        )  # fmt: skip
        states.append(held)
    np.testing.assert_array_equal(states[0], states[1])


def test_a_catalogue_too_large_for_a_table_makes_the_same_profiles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    catalog = make_catalog(12)
    events = [(n % 3, n, make_event(f"u{n % 3}", n, f"i{n % 12}", action="like")) for n in range(9)]
    batch: Batch = make_batch(catalog, events)
    profiles = []
    for most in (spaces.MIXED_ITEMS, 5):
        monkeypatch.setattr(spaces, "MIXED_ITEMS", most)
        space = make_space(catalog, seed=3)
        is_table = isinstance(space.picked(batch.item_rows, batch.item_keys), Picked)
        assert is_table == (most >= 12)
        records = empty_records(LAYOUT, 3)
        apply_batch(records, batch, space, catalog, TOPIC_KEY, 0.0)
        profiles.append(records["profile"].copy())
    np.testing.assert_allclose(profiles[0], profiles[1], atol=1e-6)


@pytest.mark.parametrize(("row", "action"), [(ITEMS, 0), (-1, 0), (0, SHAPE.actions + 1), (0, -1)])
def test_an_item_or_action_that_there_is_not_is_refused(row: int, action: int) -> None:
    head = make_head()
    vectors = np.zeros((ITEMS, SHAPE.dim), np.float32)
    rows, actions = np.zeros((2, 2), np.intp), np.zeros((2, 2), np.int64)
    rows[1, 1], actions[1, 1] = row, action
    picked = Picked(vectors, head.lowest.mixed(vectors), rows)
    mask, nothing = np.ones((2, 2), np.bool_), np.zeros((2, 2), np.float32)
    gaps_s, held = np.zeros((2, 2)), np.zeros((2, SHAPE.dim), np.float32)
    with pytest.raises(IndexError, match=rf"item row {row} of 9 and action {action} of 3"):
        read_events(head.lowest, picked, actions, nothing, gaps_s, mask, held)
    mask[1, 1] = False
    read_events(head.lowest, picked, actions, nothing, gaps_s, mask, held)
