"""One profile, three ways to compute it: step by step, over a sequence, and in torch."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from learner.model import Batch, LinearRecurrence, from_head
from profiles.head import Head, HeadShape, embed_items
from profiles.layers import Floats
from profiles.updater import (
    Steps,
    advance,
    advance_all,
    advance_to_last,
    profile_at_start,
    start_state,
)

TOLERANCE = 1e-5


def random_head(rng: np.random.Generator, layers: int) -> Head:
    shape = HeadShape(dim=8, layers=layers, hidden=12, text_dim=10, actions=3)
    arrays = {
        name: rng.normal(0.0, 0.4, size).astype(np.float32) for name, size in shape.arrays().items()
    }
    for name, array in arrays.items():
        if name.endswith("gain") or name == "score_scale":
            np.add(np.abs(array), np.float32(0.5), out=array)
    arrays["id_gate"] = np.array([5.0], np.float32)
    return Head.from_arrays(shape, ("a", "b", "c"), arrays)


def random_steps(
    rng: np.random.Generator, vectors: Floats, users: int, length: int
) -> tuple[Steps, np.ndarray[tuple[int, int], np.dtype[np.int64]]]:
    items = rng.integers(len(vectors), size=(users, length))
    gaps = rng.choice([0.0, 1.0, 60.0, 5e3, 9e4, 4e6, 6e8], size=(users, length))
    gaps[:, 0] = np.nan
    gaps[rng.random((users, length)) < 0.1] = np.nan
    steps = Steps(
        items=vectors[items],
        actions=rng.integers(3, size=(users, length)),
        values=rng.choice([0.0, 1.0, 5.0, -3.0, 900.0], size=(users, length)).astype(np.float32),
        gaps_s=gaps,
    )
    return steps, items


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    layers=st.integers(1, 3),
    users=st.integers(1, 5),
    length=st.integers(1, 12),
)
def test_step_by_step_equals_sequence_equals_torch(
    seed: int, layers: int, users: int, length: int
) -> None:
    rng = np.random.default_rng(seed)
    head = random_head(rng, layers)
    text = rng.normal(size=(9, 10)).astype(np.float32)
    ids = rng.normal(size=(9, 8)).astype(np.float32)
    counts = rng.integers(0, 20, size=9).astype(np.float32)
    vectors = embed_items(head, text, ids, counts)
    steps, items = random_steps(rng, vectors, users, length)
    mask = np.arange(length)[None] < rng.integers(1, length + 1, size=users)[:, None]

    final, whole = advance_all(head, start_state(head, users), steps, mask)

    state = start_state(head, users)
    stepped = np.zeros_like(whole)
    assert isinstance(steps.items, np.ndarray)
    for step in range(length):
        one = Steps(
            steps.items[:, step], steps.actions[:, step], steps.values[:, step],
            steps.gaps_s[:, step],
        )  # fmt: skip
        moved, profile = advance(head, state, one)
        real = mask[:, step]
        state[real] = moved[real]
        stepped[:, step] = profile
    assert np.abs(final - state).max() < TOLERANCE
    assert np.abs((whole - stepped)[mask]).max() < TOLERANCE

    alone, profile = advance_to_last(head, start_state(head, users), steps, mask)
    assert np.abs(alone - final).max() < TOLERANCE
    assert np.abs(profile - whole[np.arange(users), mask.sum(axis=1) - 1]).max() < TOLERANCE

    twin = from_head(head, 9, ids=ids, counts=counts).eval()
    batch = Batch(
        items=torch.from_numpy(items),
        actions=torch.from_numpy(steps.actions),
        values=torch.from_numpy(steps.values),
        gaps_s=torch.from_numpy(steps.gaps_s.astype(np.float32)),
        mask=torch.from_numpy(mask),
        targets=torch.zeros((users, length + 1), dtype=torch.int64),
        weights=torch.zeros((users, length + 1)),
        replayed=torch.zeros(users, dtype=torch.bool),
        verdicts=torch.zeros((users, length + 1), dtype=torch.uint8),
    )
    with torch.no_grad():
        twin_vectors = twin.served_vectors(torch.from_numpy(text))
        profiles = twin.profiles(twin_vectors, batch).numpy()
    assert np.abs(twin_vectors.numpy() - vectors).max() < TOLERANCE
    assert np.abs((profiles[:, 1:] - whole)[mask]).max() < TOLERANCE
    assert np.abs(profiles[:, 0] - profile_at_start(head, users)).max() < TOLERANCE


def test_padding_anywhere_changes_nothing() -> None:
    rng = np.random.default_rng(3)
    head = random_head(rng, 2)
    vectors = rng.normal(size=(5, 8)).astype(np.float32)
    steps, _ = random_steps(rng, vectors, 2, 6)
    mask = np.array([[True, False, True, True, False, True], [False] * 5 + [True]])

    final, _ = advance_all(head, start_state(head, 2), steps, mask)

    assert isinstance(steps.items, np.ndarray)
    for user in range(2):
        kept = np.flatnonzero(mask[user])
        only = Steps(
            steps.items[[user]][:, kept], steps.actions[[user]][:, kept],
            steps.values[[user]][:, kept], steps.gaps_s[[user]][:, kept],
        )  # fmt: skip
        alone, _ = advance_all(head, start_state(head, 1), only, np.ones((1, len(kept)), np.bool_))
        assert np.abs(final[user] - alone[0]).max() < TOLERANCE


def test_a_head_survives_the_way_to_torch_and_back() -> None:
    head = random_head(np.random.default_rng(4), 2)

    back = from_head(head, 7).to_head()

    for name, array in head.arrays().items():
        assert np.array_equal(back.arrays()[name], array), name


def test_the_hand_written_backward_pass_is_the_derivative() -> None:
    torch.manual_seed(5)
    gate = torch.rand(4, 2, 3, dtype=torch.float32)
    candidate, start = torch.randn(4, 2, 3), torch.randn(2, 3)
    weights = torch.randn(4, 2, 3)

    def by_hand(*inputs: torch.Tensor) -> torch.Tensor:
        states: torch.Tensor = LinearRecurrence.apply(*inputs)
        return (states * weights).sum()

    def plain(gate: torch.Tensor, candidate: torch.Tensor, start: torch.Tensor) -> torch.Tensor:
        held, total = start, torch.zeros(())
        for step in range(len(gate)):
            held = held + gate[step] * (candidate[step] - held)
            total = total + (held * weights[step]).sum()
        return total

    grads = []
    for loss_of in (by_hand, plain):
        inputs = [t.clone().requires_grad_() for t in (gate, candidate, start)]
        grads.append(torch.autograd.grad(loss_of(*inputs), inputs))
    for mine, theirs in zip(*grads, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
