"""An approximate index of item vectors: rows grouped into cells, and a look into the likely ones.

Cells come from k-means over (scaled vector, weighted bias), a tree of splits so that a million
items take seconds.  Inside a cell, one byte a coordinate says how a row differs from the mean: 65
bytes an item, read in one piece.  Scores are near; the caller ranks the few candidates exactly.

How far a query looks adapts to it.  A cell's best score is estimated as its mean plus `z` standard
deviations of what is left inside cells (Malkov & Yashunin's graphs and fixed probes were measured
beside it: docs/decisions/0016-candidates-by-cells.md).  First the likeliest cells are read; then
every other cell whose estimate beats the k-th score found.  A query that would read more than
`WIDE_SHARE` of all cells is handed back: plain multiplication is cheaper for it.

What surprised us: gathering rows from the space's own vectors costs four times their product,
one pass over int8 copies as much as over float32; float16 costs seven times that in numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.catalog import Rows
from profiles.layers import Floats

Bools = npt.NDArray[np.bool_]

CELL_ROWS = 256
"""No cell is larger; on average they are two thirds full."""
STRIPS = 16
BRANCH = 64
SAMPLE_PER_CENTRE = 32
ITERATIONS = 4
SLICE_ROWS = 8192
FIRST_CELLS = 32
FIRST_PART = 64
"""Every query reads at least 32 cells and one in 64: fewer cost recall at a million items."""
WIDE_SHARE = 0.2
CODES = 127
BIAS_WEIGHT = 2.0
"""Spread of the bias against that of a vector's coordinates, for the distance between items."""


@dataclass(frozen=True, slots=True)
class Found:
    """Candidates of B queries.

    Shapes: rows (B, M) catalogue rows, -1 for none; wide (B,) queries that need every row instead
    (theirs are empty).
    """

    rows: Rows
    wide: Bools


class Cells:
    """The cells of one space.  Build it in any thread; `search` and `leave` on the state thread.

    Shapes: N rows given, C cells.
    """

    def __init__(self, rows: Rows, vectors: Floats, bias: Floats, scale: float, seed: int) -> None:
        """Group `rows`.  Shapes: rows (N,) into vectors (*, D) and bias (*,)."""
        spread = float(bias[rows].std()) if len(rows) else 0.0
        width = vectors.shape[1]
        coordinate = scale * float(np.sqrt(np.square(vectors[rows[:SLICE_ROWS]]).mean() or 1.0))
        self._bias_weight = np.float32(BIAS_WEIGHT * coordinate / spread if spread > 0 else 1.0)
        self._scale = np.float32(scale)
        points = np.empty((len(rows), width + 1), np.float32)
        for at in range(0, len(rows), SLICE_ROWS):
            part = rows[at : at + SLICE_ROWS]
            points[at : at + SLICE_ROWS, :width] = vectors[part] * self._scale
            points[at : at + SLICE_ROWS, width] = bias[part] * self._bias_weight
        chance = np.random.default_rng(seed)
        groups = list(_groups(points, np.arange(len(rows)), chance))
        sizes = np.array([len(group) for group in groups], np.intp)
        order = np.concatenate(groups) if groups else np.zeros(0, np.intp)
        self._rows = rows[order].astype(np.int32)
        self._starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.intp)
        self._means = np.zeros((len(groups), width + 1), np.float32)
        self._radius = np.zeros(len(groups), np.float32)
        self._steps = np.zeros(len(groups), np.float32)
        self._codes = np.zeros((len(rows), width + 1), np.int8)
        inside = np.zeros((width + 1, width + 1), np.float64)
        for cell, group in enumerate(groups):
            held = points[group]
            self._means[cell] = held.mean(axis=0)
            held -= self._means[cell]
            step = max(float(np.abs(held).max()) / CODES, 1e-12)
            self._steps[cell] = step
            self._codes[self._starts[cell] : self._starts[cell + 1]] = np.rint(held / step)
            square = held.T @ held
            self._radius[cell] = np.sqrt(np.trace(square) / len(group))
            inside += square
        self._spread = (inside / max(np.trace(inside), 1e-12)).astype(np.float32)
        self._z = np.float32(deviations(len(rows)))
        # By catalogue row, for `leave`; rows beyond it came later.
        self._is_held = np.zeros(len(vectors), np.bool_)
        self._is_held[rows] = True
        self._tail: Rows | None = None

    def __len__(self) -> int:
        return len(self._means)

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        parts = (self._rows, self._codes, self._means, self._radius, self._steps, self._is_held)
        return sum(part.nbytes for part in parts)

    def leave(self, rows: Rows) -> None:
        """These rows have another vector now: they are looked at by every query from here on."""
        self._is_held[rows[rows < len(self._is_held)]] = False
        self._tail = None

    def tail(self, known: Bools) -> Rows:
        """Known rows that no cell stands for.  Shapes: known (N,) -> (T,)."""
        if self._tail is None or len(known) > len(self._is_held):
            later = np.zeros(max(len(known) - len(self._is_held), 0), np.bool_)
            self._is_held = np.concatenate([self._is_held, later])
            self._tail = np.flatnonzero(known & ~self._is_held[: len(known)])
        return self._tail

    def search(self, query: Floats, allowed: Bools, k: int) -> Found:
        """At least k candidates of each query, where the cells have so many allowed rows.

        The tail is the caller's.  Shapes: query (B, D), allowed (N,).
        """
        weight = np.full((len(query), 1), 1.0 / self._bias_weight, np.float32)
        probe = np.concatenate([query, weight], axis=1)
        means = probe @ self._means.T
        deviation = np.sqrt(np.einsum("bd,bd->b", probe @ self._spread, probe).clip(0.0))
        estimate = means + (self._z * deviation)[:, None] * self._radius
        first = min(max(FIRST_CELLS, len(self) // FIRST_PART), len(self))
        chosen = np.zeros(estimate.shape, np.bool_)
        np.put_along_axis(chosen, _largest(estimate, first), True, axis=1)
        rows, scores = self._read(probe, means, chosen, allowed, k)
        # Where fewer than k were found this is -inf, and every cell is of interest.
        enough = scores[:, -1] if scores.shape[1] >= k else np.full(len(query), -np.inf)
        more = (estimate > enough[:, None]) & ~chosen
        wide = more.sum(axis=1) > max(WIDE_SHARE * len(self), first)
        more[wide] = False
        users = np.flatnonzero(more.any(axis=1))
        if len(users):
            further = np.full(rows.shape, -1, np.intp)
            read, _ = self._read(probe[users], means[users], more[users], allowed, k)
            further[users, : read.shape[1]] = read
            rows = np.concatenate([rows, further], axis=1)
        rows[wide] = -1
        return Found(rows, wide)

    def _read(
        self, probe: Floats, means: Floats, chosen: Bools, allowed: Bools, k: int
    ) -> tuple[Rows, Floats]:
        """The k best of the chosen cells.

        Shapes: means, chosen (B, C) -> rows, scores (B, <= k)."""
        cells, users = np.nonzero(chosen.T)
        distinct, first = np.unique(cells, return_index=True)
        ends = np.append(first[1:], len(cells))
        scores = np.full((len(cells), CELL_ROWS), -np.inf, np.float32)
        usable = self._is_held[: len(allowed)] & allowed[: len(self._is_held)]
        is_usable = usable[self._rows] if not usable.all() else None
        starts = self._starts.tolist()
        for cell, begin, end in zip(distinct.tolist(), first.tolist(), ends.tolist(), strict=True):
            where = slice(starts[cell], starts[cell + 1])
            part = probe[users[begin:end]] @ self._codes[where].astype(np.float32).T
            part *= self._steps[cell]
            part += means[users[begin:end], cell, None]
            if is_usable is not None and not (kept := is_usable[where]).all():
                part[:, ~kept] = -np.inf
            scores[begin:end, : part.shape[1]] = part
        return self._best(scores, cells, users, len(probe), k)

    def _best(
        self, scores: Floats, cells: Rows, users: Rows, count: int, k: int
    ) -> tuple[Rows, Floats]:
        """The k best scores of a user lie in the k strips with the best maxima.

        A strip is every `STRIPS`-th row of a cell, so that maxima are taken along memory.
        Shapes: scores (P, CELL_ROWS), cells and users (P,), pairs in order of the cells.
        """
        order = np.argsort(users, kind="stable")
        many = np.bincount(users, minlength=count)
        place = np.arange(len(users)) - np.repeat(np.cumsum(many) - many, many)
        pairs = np.zeros((count, int(many.max(initial=0))), np.intp)
        pairs[users[order], place] = order
        maxima = scores.reshape(len(scores), -1, STRIPS).max(axis=1)
        by_place = np.full((*pairs.shape, STRIPS), -np.inf, np.float32)
        by_place[users[order], place] = maxima[order]
        peaks = by_place.reshape(count, -1)
        best = _largest(peaks, k)
        pair = np.take_along_axis(pairs, best // STRIPS, axis=1)
        column = (best % STRIPS)[:, :, None] + np.arange(0, CELL_ROWS, STRIPS)
        inner = scores[pair[:, :, None], column]
        # A place without a pair names pair 0, whose scores are not this user's.
        inner[np.isneginf(np.take_along_axis(peaks, best, axis=1))] = -np.inf
        places = (self._starts[cells[pair]][:, :, None] + column).reshape(count, -1)
        inner = inner.reshape(count, -1)
        top = _largest(inner, k)
        inner = np.take_along_axis(inner, top, axis=1)
        places = np.take_along_axis(places, top, axis=1)
        by_score = np.argsort(-inner, axis=1, kind="stable")
        inner = np.take_along_axis(inner, by_score, axis=1)
        places = np.take_along_axis(places, by_score, axis=1)
        found = np.isfinite(inner)
        rows = np.where(found, self._rows[np.where(found, places, 0)], -1).astype(np.intp)
        return rows, inner


def _largest(values: Floats, k: int) -> Rows:
    """Columns of the k largest values of each row, in no order.  Shapes: (B, M) -> (B, <= k)."""
    width = values.shape[1]
    k = min(k, width)
    return np.argpartition(values, width - k, axis=1)[:, width - k :]


def deviations(rows: int) -> float:
    """How many standard deviations above its cell's mean the best of `rows` items may stand.

    Three quarters of what the largest of so many normal numbers reaches, sqrt(2 ln n): measured,
    docs/decisions/0016-candidates-by-cells.md.

    >>> round(deviations(100_000), 2), round(deviations(1_000_000), 2)
    (3.6, 3.94)
    """
    return 0.75 * float(np.sqrt(2.0 * np.log(max(rows, 2))))


def _groups(points: Floats, members: Rows, chance: np.random.Generator) -> Iterator[Rows]:
    """Split members until no group is larger than a cell."""
    wanted = -(-len(members) * 3 // (2 * CELL_ROWS))
    if len(members) <= CELL_ROWS:
        if len(members):
            yield members
        return
    label = _nearest(points, members, _centres(points, members, min(wanted, BRANCH), chance))
    order = np.argsort(label, kind="stable")
    borders = np.flatnonzero(np.diff(label[order])) + 1
    parts = np.split(members[order], borders)
    if len(parts) == 1:  # equal points: any cut will do
        parts = np.array_split(members, -(-len(members) // CELL_ROWS))
    for part in parts:
        yield from _groups(points, part, chance)


def _centres(points: Floats, members: Rows, count: int, chance: np.random.Generator) -> Floats:
    """k-means (Lloyd) on a sample.  Shapes: -> (count, D)."""
    size = min(len(members), SAMPLE_PER_CENTRE * count)
    sample = np.sort(chance.choice(members, size, replace=False))
    centres: Floats = points[np.sort(chance.choice(sample, count, replace=False))]
    for _ in range(ITERATIONS):
        label = _nearest(points, sample, centres)
        order = np.argsort(label, kind="stable")
        filled, first = np.unique(label[order], return_index=True)
        sums = np.add.reduceat(points[sample[order]], first, axis=0)
        counts = np.diff(np.append(first, size))
        centres[filled] = sums / counts[:, None]
    return centres


def _nearest(points: Floats, members: Rows, centres: Floats) -> Rows:
    """Index of the nearest centre.  Shapes: members (M,), centres (K, D) -> (M,)."""
    half = np.float32(0.5) * np.einsum("kd,kd->k", centres, centres)
    label = np.empty(len(members), np.intp)
    for at in range(0, len(members), SLICE_ROWS):
        part = members[at : at + SLICE_ROWS]
        label[at : at + SLICE_ROWS] = (points[part] @ centres.T - half).argmax(axis=1)
    return label
