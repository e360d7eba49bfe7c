"""Synthetic profiles and item vectors.  Labelled as such in every result that they lead to.

Profiles hold what a real one holds: a ring of events on unevenly popular items, rising times, a
seen filter of those items, random recurrent state.  How well such a record compresses is decided
by how much of its ring is filled; the state of a real user compresses no better.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.head import Head, HeadShape
from profiles.layers import Floats, layer_norm
from profiles.state import (
    RecordLayout,
    Records,
    bloom_slots,
    empty_records,
    mark_seen,
)

MEAN_EVENTS = 30
CATALOGUE = 10_000
START_S = 1_700_000_000.0


def profiles(
    layout: RecordLayout,
    events: npt.NDArray[np.int64],
    release: int,
    topic: int,
    chance: np.random.Generator,
) -> Records:
    """Profiles of users with so many events each.  Shapes: events (U,) -> (U,)."""
    users, slots = len(events), layout.history
    records = empty_records(layout, users)
    held = np.arange(slots)[None] < np.minimum(events, slots)[:, None]
    items = chance.integers(1, 1 << 63, size=CATALOGUE).astype(np.uint64)
    rows = np.minimum(chance.zipf(1.3, size=(users, slots)), CATALOGUE) - 1
    records["events"] = records["revision"] = events
    records["release"], records["topic"] = release, topic
    records["offset"] = records["emit_offset"] = chance.integers(1 << 30, size=users)
    records["emit_event"] = chance.integers(1, 1 << 62, size=users)
    records["emit_ms"] = int(START_S * 1000)
    records["state"] = chance.normal(size=(users, layout.layers, layout.dim))
    records["profile"] = chance.normal(size=(users, layout.dim))
    records["history"]["item"] = np.where(held, items[rows], 0)
    ts = START_S + np.sort(chance.random((users, slots)) * 1e6, axis=1).round(3)
    records["history"]["ts"] = np.where(held, ts, 0.0)
    records["last_ts"] = ts[:, -1]
    records["history"]["action"] = np.where(held, chance.integers(0, 10, size=(users, slots)), 0)
    ids = np.arange(layout.recent_ids)[None] < events[:, None]
    records["recent"] = np.where(ids, chance.integers(1, 1 << 62, size=ids.shape), 0)
    seen = records["seen"]
    bits = bloom_slots(records["history"]["item"].ravel(), layout.seen_bytes).reshape(
        users, slots, -1
    )
    for slot in range(slots):
        filled = np.flatnonzero(held[:, slot])
        mark_seen(seen, filled, bits[filled, slot])
    return records


def typical_events(users: int, chance: np.random.Generator) -> npt.NDArray[np.int64]:
    """Events per user: geometric with mean `MEAN_EVENTS`, so most users have few."""
    return chance.geometric(1.0 / MEAN_EVENTS, size=users).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Vectors:
    """A made-up space.  Shapes: items (N, D), bias (N,), queries (Q, D)."""

    items: Floats
    bias: Floats
    queries: Floats


def vectors(kind: str, count: int, queries: int, dim: int, seed: int) -> Vectors:
    """Vectors on the sphere that a LayerNorm leaves.

    `random`: without structure.  `clustered`: around 2 sqrt(N) unevenly popular centres with a
    falling spectrum, queries between two centres: what trained spaces look like.
    """
    chance = np.random.default_rng(seed)
    ones, nothing = np.ones(dim, np.float32), np.zeros(dim, np.float32)
    if kind == "random":
        items, wanted = chance.normal(size=(count, dim)), chance.normal(size=(queries, dim))
    else:
        centres = max(50, int(2 * np.sqrt(count)))
        falling = 1.0 / np.sqrt(1.0 + np.arange(dim))
        centre = chance.normal(size=(centres, dim)) * falling * 4.0
        weight = (1.0 + np.arange(centres)) ** -0.7
        weight /= weight.sum()
        items = centre[chance.choice(centres, count, p=weight)]
        items += chance.normal(size=(count, dim)) * falling
        one, other = chance.choice(centres, (2, queries), p=weight)
        wanted = 0.6 * centre[one] + 0.4 * centre[other]
        wanted += chance.normal(size=(queries, dim)) * falling
    return Vectors(
        layer_norm(items.astype(np.float32), ones, nothing),
        (0.5 * chance.normal(size=count)).astype(np.float32),
        layer_norm(wanted.astype(np.float32), ones, nothing),
    )


def random_head(dim: int, layers: int, hidden: int, actions: tuple[str, ...], seed: int) -> Head:
    """A head of random arrays: arithmetic costs the same whatever the numbers are."""
    chance = np.random.default_rng(seed)
    shape = HeadShape(dim=dim, layers=layers, hidden=hidden, text_dim=8, actions=len(actions))
    arrays = {
        name: (chance.normal(size=size) / np.sqrt(max(size[-1], 2))).astype(np.float32)
        for name, size in shape.arrays().items()
    }
    arrays["score_scale"] = np.array([1.0 / np.sqrt(dim)], np.float32)
    arrays["id_gate"] = np.array([10.0], np.float32)
    return Head.from_arrays(shape, actions, arrays)
