"""One release laid over the current catalogue: the arrays that serving reads.

A `Space` is built beside the serving one when a release arrives, and the worker flips a single
reference between two batches.  Its item vectors come from the release (the learner has encoded
them); only items that are newer than the release, or whose text changed since, are encoded by
the worker.  Nothing in a space ever comes from another release: that is the product's first
promise, and this class is where it is kept.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from profiles.catalog import Catalog, Keys, Rows
from profiles.cells import Cells
from profiles.growing import lengthened
from profiles.head import embed_items
from profiles.key_index import KeyIndex
from profiles.layers import Floats
from profiles.lowest import Picked
from profiles.release import Release
from profiles.said import TextVectors, step_vectors
from profiles.state import bloom_slots

MIXED_ITEMS = 500_000
"""A larger catalogue's items are mixed for each batch anew: the table would take as much memory as
their vectors do twice over, 256 MB at so many items of 64 dimensions."""
LEAST_UNSORTED = 1_024
"""So many new rows are looked at one by one before rows are sorted again (`rows_by_first_slot`),
and there is room for them."""
LIFTED_OUT = 0.5
"""A row that is lifted by so much more than when cells were built is looked at by every query."""


class Space:
    """Item arrays of one release, by catalogue row.

    Shapes: vectors (N, D); bias (N,); known (N,) whether the row has a vector; counts (N,) events
    that the release has learned of each item; lifts (N,) what the present trend adds to its scores
    (`profiles.trend`); slots (N, 4) Bloom bits of each item for the seen filter.  A row is known
    only for the text that its vector was made from: `extend` notices when the catalogue's text has
    changed since.
    """

    def __init__(
        self, release: Release, catalog: Catalog, seen_bytes: int, *, empty: bool = False
    ) -> None:
        """`empty`: no row of the catalogue is in it yet; `take_in` brings them."""
        self.release = release
        self.head = release.head
        self.key = np.uint64(release.key)
        self.release_id = release.release_id
        self._catalog = catalog
        self._seen_bytes = seen_bytes
        self._vectors: Floats = np.zeros((0, release.head.shape.dim), dtype=np.float32)
        self._mixed: Floats = np.zeros((0, 2 * release.head.shape.dim), dtype=np.float32)
        self._bias: Floats = np.zeros(0, dtype=np.float32)
        self._columns: Floats = np.zeros((release.head.shape.dim + 1, 0), dtype=np.float32)
        self._known = np.zeros(0, dtype=np.bool_)
        self._counts = np.zeros(0, dtype=np.float32)
        self._lifts = np.zeros(0, dtype=np.float32)
        self._lifts_in_cells = np.zeros(0, dtype=np.float32)
        self._text_keys = np.zeros(0, dtype=np.uint64)
        self._slots: Rows = np.zeros((0, 4), dtype=np.intp)
        self._places = KeyIndex()
        self._filled = 0
        bits = 8 * seen_bytes
        self._by_first_slot = np.zeros(0, np.intp), np.zeros(bits + 1, np.intp)
        self.cells: Cells | None = None
        self.texts = TextVectors(release.head)
        self._changed: list[Rows] | None = None
        if not empty:
            self.extend()

    @property
    def vectors(self) -> Floats:
        return self._vectors[: self._filled]

    def picked(self, rows: Rows, keys: Keys) -> Floats | Picked:
        """What events brought, as the model reads it: items, or where the row is -1 words.

        Shapes: rows and keys (...), keys of items or words.
        """
        if len(self._mixed) and not (rows < 0).any():
            return Picked(self.vectors, self._mixed[: self._filled], rows)
        return step_vectors(self.vectors, self.texts, rows, keys)

    @property
    def bias(self) -> Floats:
        return self._bias[: self._filled]

    @property
    def columns(self) -> Floats:
        """Vectors and biases lying the other way, to be multiplied with whole profiles: a product
        with `vectors.T` would copy it first, which for few profiles takes longer than multiplying.

        Shapes: (D + 1, N), the last row biases and lifts, -inf for rows that are not known.
        """
        return self._columns[:, : self._filled]

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        return self._known[: self._filled]

    @property
    def counts(self) -> Floats:
        return self._counts[: self._filled]

    @property
    def lifts(self) -> Floats:
        return self._lifts[: self._filled]

    @property
    def lifted_bias(self) -> Floats:
        """Bias and lift of each item, -inf where it is not known.  Shapes: (N,)."""
        out: Floats = self.columns[-1]
        return out

    def lift(self, lifts: Floats) -> None:
        """Let the scores of items follow the trend.  Shapes: (M,), of the first M rows."""
        rows = slice(0, min(len(lifts), self._filled))
        self._lifts[rows] = lifts[rows]
        np.add(self._bias[rows], self._lifts[rows], out=self._columns[-1, rows])
        self._columns[-1, rows][~self._known[rows]] = -np.inf
        if self.cells is not None:
            # Cells are searched by what their rows were worth when they were built.
            higher = self._lifts[rows].copy()
            higher[: len(self._lifts_in_cells)] -= self._lifts_in_cells[: len(higher)]
            self.cells.leave(np.flatnonzero(higher > LIFTED_OUT))

    @property
    def slots(self) -> Rows:
        return self._slots[: self._filled]

    def rows_by_first_slot(self) -> tuple[Rows, Rows]:
        """Rows sorted by their first Bloom bit, and where the rows of each bit start.

        The newest may be missing: sorting a million rows anew for each new item would take longer
        than a round.  Shapes: -> (M,), M <= N, (bits + 1,).
        """
        covered = len(self._by_first_slot[0])
        if self._filled - covered > max(LEAST_UNSORTED, covered // 16):
            first = self.slots[:, 0]
            order = np.argsort(first, kind="stable")
            starts = np.searchsorted(first[order], np.arange(8 * self._seen_bytes + 1))
            self._by_first_slot = order, starts
        return self._by_first_slot

    def extend(self) -> Rows:
        """Take in rows that the catalogue gained, let go of those whose text changed.

        Returns: rows that need encoding.
        """
        held = slice(0, self._filled)
        changed = self._text_keys[held] != self._catalog.text_keys[held]
        for row in np.flatnonzero(changed).tolist():
            self.forget_text(row)
        self.take_in(len(self._catalog))
        return self.missing()

    def take_in(self, most: int) -> bool:
        """Take in rows that the catalogue gained, at most so many.  Returns: whether it has more.

        Of a large catalogue all at once would hold events up (`stream.release_feed`).
        """
        size = len(self._catalog)
        rows = np.arange(self._filled, min(size, self._filled + most))
        if len(rows):
            self._reserve(size)
            self._slots[rows] = bloom_slots(self._catalog.keys[rows], self._seen_bytes)
            self._filled += len(rows)
            self._take_from_release(rows)
        return self._filled < size

    def uncovered(self) -> int:
        """Known rows that no index of candidates stands for."""
        if self.cells is None:
            return int(self.known.sum())
        return len(self.cells.tail(self.known))

    def begin_index(self) -> Callable[[], Cells]:
        """What builds an index of the rows known now, in any thread; changes are noted meanwhile.

        The work reads vectors that may be written under its hands: a row that changes is looked
        at by every query after `finish_index`, so that only its cell is a little off.
        """
        self._changed = []
        rows, vectors = np.flatnonzero(self.known), self.vectors
        self._lifts_in_cells = self.lifts.copy()
        bias = self.bias + self._lifts_in_cells
        scale = float(self.head.score_scale[0])
        return lambda: Cells(rows, vectors, bias, scale, seed=int(self.key) % 2**32)

    def finish_index(self, cells: Cells) -> None:
        """Serve candidates from these cells."""
        for rows in self._changed or ():
            cells.leave(rows)
        self._changed, self.cells = None, cells

    def missing(self) -> Rows:
        """Rows without a vector of this release's making, for their present text."""
        return np.flatnonzero(~self.known)

    def forget_text(self, row: int) -> None:
        """The text of an item changed: its vector is no longer true."""
        if row < self._filled:
            self._known[row] = False
            self._columns[-1, row] = -np.inf
            self._take_from_release(np.array([row]))

    def set_text_vectors(
        self, rows: Rows, text_vectors: Floats, text_keys: npt.NDArray[np.uint64]
    ) -> None:
        """Vectors of new items from this release's language model.

        Rows whose text (or picture) changed again meanwhile are left unknown.
        Shapes: rows (M,), text_vectors (M, T), text_keys (M,) of the texts that were encoded.
        """
        current = self._catalog.text_keys[rows] == text_keys
        rows, text_vectors = rows[current], text_vectors[current]
        table = self.release.items
        at = self._in_release(rows)
        inside = at >= 0
        ids = np.zeros((len(rows), self.head.shape.dim), dtype=np.float32)
        counts = np.zeros(len(rows), dtype=np.float32)
        bias = np.full(len(rows), self.head.new_item_bias[0], dtype=np.float32)
        ids[inside], counts[inside] = table.ids[at[inside]], table.counts[at[inside]]
        bias[inside] = table.bias[at[inside]]
        shown = self._catalog.shown[rows]
        self._text_keys[rows] = text_keys[current]
        self._put(rows, embed_items(self.head, text_vectors, ids, counts, shown), bias)

    def _take_from_release(self, rows: Rows) -> None:
        self._text_keys[rows] = self._catalog.text_keys[rows]
        at = self._in_release(rows)
        table = self.release.items
        rows, at = rows[at >= 0], at[at >= 0]
        self._counts[rows] = table.counts[at]
        same_text = table.text_keys[at] == self._catalog.text_keys[rows]
        good, source = rows[same_text], at[same_text]
        self._put(good, table.vectors[source], table.bias[source])

    def _put(self, rows: Rows, vectors: Floats, bias: Floats) -> None:
        """Rows become known.  Shapes: rows (M,), vectors (M, D), bias (M,)."""
        self._vectors[rows], self._bias[rows] = vectors, bias
        if len(self._mixed):
            self._mixed[rows] = self.head.lowest.mixed(vectors)
        self._columns[:-1, rows] = vectors.T
        self._columns[-1, rows] = bias + self._lifts[rows]
        self._known[rows] = True
        if self._changed is not None:
            self._changed.append(rows)
        if self.cells is not None:
            self.cells.leave(rows)

    def _in_release(self, rows: Rows) -> Rows:
        return self._places.rows_of(self.release.items.keys, self._catalog.keys[rows])

    def _reserve(self, size: int) -> None:
        if size <= len(self._bias):
            return
        # Room for a quarter more: else the first new item after a swap moved the whole space.
        room = max(size + size // 4 + LEAST_UNSORTED, 2 * len(self._bias))
        self._vectors = lengthened(self._vectors, room)
        mixed = room if size <= MIXED_ITEMS else 0
        self._mixed = lengthened(self._mixed[:mixed], mixed)
        self._columns = lengthened(self.columns, room, axis=1)
        self._columns[-1, self._filled :] = -np.inf
        self._bias = lengthened(self._bias, room)
        self._known = lengthened(self._known, room)
        self._counts = lengthened(self._counts, room)
        self._lifts = lengthened(self._lifts, room)
        self._text_keys = lengthened(self._text_keys, room)
        self._slots = lengthened(self._slots, room)
