"""Ranking against the size of the catalogue: everything, or candidates by cells.

In one process, without Kafka, which adds nothing here.  The arrays stand in for a space: ranking
reads nothing else of one.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import cast

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Result, say
from benchmarks.scale.growth import exponent
from benchmarks.scale.synthetic import random_head, vectors
from profiles.cells import Cells
from profiles.head import Head
from profiles.layers import Floats
from profiles.scoring import candidates, exact
from profiles.space import Space

K = 24
"""What `recommend` asks for at the default k of 10."""
BATCH = 64


@dataclass(slots=True)
class Stand:
    """What ranking reads of a `Space`."""

    head: Head
    vectors: Floats
    bias: Floats
    known: npt.NDArray[np.bool_]
    cells: Cells | None = None


def measure(sizes: list[int], queries: int, dim: int, seed: int) -> Result:
    """Milliseconds per user and recall@10 over catalogue sizes, for both kinds of vectors."""
    head = random_head(dim, 1, 8, ("click",), seed)
    found: Result = {"vectors": "synthetic", "batch_users": BATCH, "k": K, "kinds": {}}
    for kind in ("clustered", "random"):
        rows = [_size(kind, size, queries, dim, head, seed) for size in sizes]
        counts = [row["items"] for row in rows]
        found["kinds"][kind] = {
            "sizes": rows,
            "exponent_exact": exponent(counts, [row["exact_ms"] for row in rows]),
            "exponent_cells": exponent(counts, [row["cells_ms"] for row in rows]),
            "exponent_build": exponent(counts, [row["build_s"] for row in rows]),
        }
    return found


def _size(kind: str, count: int, queries: int, dim: int, head: Head, seed: int) -> Result:
    made = vectors(kind, count, queries, dim, seed)
    stand = Stand(head, made.items, made.bias, np.ones(count, np.bool_))
    space = cast(Space, stand)
    parts = [made.queries[at : at + BATCH] for at in range(0, queries, BATCH)]
    started = time.perf_counter()
    best = np.concatenate([exact(part, space, stand.known, K).rows[:, :10] for part in parts])
    exact_ms = 1e3 * (time.perf_counter() - started) / queries
    started = time.perf_counter()
    scale = float(head.score_scale[0])
    cells = Cells(np.arange(count), made.items, made.bias, scale, seed)
    build_s = time.perf_counter() - started
    wide = np.concatenate([cells.search(part, stand.known, K).wide for part in parts])
    stand.cells = cells
    started = time.perf_counter()
    near = np.concatenate([candidates(part, space, stand.known, K).rows[:, :10] for part in parts])
    cells_ms = 1e3 * (time.perf_counter() - started) / queries
    started = time.perf_counter()
    for query in made.queries[:8]:
        candidates(query[None], space, stand.known, K)
    alone_ms = 1e3 * (time.perf_counter() - started) / 8
    hits = (best[:, :, None] == near[:, None, :]).any(axis=2)
    row = {
        "items": count,
        "exact_ms": round(exact_ms, 4),
        "cells_ms": round(cells_ms, 4),
        "alone_ms": round(alone_ms, 3),
        "recall_at_10": round(float(hits.mean()), 4),
        "handed_back": round(float(wide.mean()), 3),
        "build_s": round(build_s, 2),
        "index_bytes_per_item": round(cells.nbytes / count, 1),
    }
    say(f"{kind}: {row}")
    return row
