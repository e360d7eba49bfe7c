"""The items of a recommendation as JSON, written by a loop that copies (`stream.slate_loops`).

A list of ten items with two reasons each is 50 Python objects and two kilobytes of text.  Making
the objects, and the text of them, was half of what an answered event cost (decision 0064).  The
loop puts the same text together from the pieces that the catalogue alone decides
(`stream.item_pieces`) and from numbers: what it writes is an array of `profiles.answers.ScoredItem`
and is read back as one in the tests.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import msgspec
import numpy as np

from profiles.catalog import Catalog, Rows
from profiles.exploration import Slates
from profiles.layers import Floats
from profiles.wire import encode
from stream.item_pieces import ItemPieces
from stream.slate_loops import Bytes, write_slates

LEAST_BUFFER = 1 << 18


class _Logged(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What exploration and rules say of a slot, as in `ScoredItem`."""

    propensity: float = 1.0
    rank: int = 0


@dataclass(frozen=True, slots=True)
class Said:
    """What is said of ranked items.

    Shapes: rows (B, K) catalogue rows, -1 for none; scores (B, K); past (B, K, R) rows of the items
    of past events, shares (B, K, R) what each carries; otherwise (B, K) of `Otherwise`; chances
    (B, K), or (B, 0) where the release has no calibration.
    """

    rows: Rows
    scores: Floats
    past: Rows
    shares: Floats
    otherwise: Rows
    chances: Floats


class SlateWriter:
    """Writes the items of lists of one catalogue."""

    def __init__(self, catalog: Catalog) -> None:
        self._pieces = ItemPieces(catalog)
        self._buffer: Bytes = np.zeros(0, np.uint8)

    def write(self, said: Said, slates: Slates | None = None) -> list[msgspec.Raw]:
        """Each user's items, a JSON array of `ScoredItem`.  `slates`: what was logged of them."""
        # Where no share is positive the row is nobody's, and nothing is copied of it.
        self._pieces.bring(np.concatenate([said.rows[said.rows >= 0], said.past[said.shares > 0]]))
        logged, logged_ends = _logged(said.rows, slates)
        users = len(said.rows)
        ends = np.zeros(users + 1, np.intp)
        size = max(len(self._buffer), LEAST_BUFFER)
        while users and ends[-1] <= 0:
            if size > len(self._buffer):
                self._buffer = np.zeros(size, np.uint8)
            write_slates(
                np.ascontiguousarray(said.rows),
                np.ascontiguousarray(said.scores, np.float32),
                said.past,
                said.shares,
                said.otherwise,
                said.chances,
                logged,
                logged_ends,
                self._pieces.text,
                self._pieces.places,
                self._pieces.tag_numbers,
                self._pieces.tag_places,
                self._pieces.longest_tag,
                self._buffer,
                ends,
            )
            size *= 2
        text = self._buffer[: ends[-1]].tobytes()
        return [msgspec.Raw(text[start:stop]) for start, stop in itertools.pairwise(ends.tolist())]


def _logged(rows: Rows, slates: Slates | None) -> tuple[Bytes, Rows]:
    """What is written of each slot besides, and where that of each ends; mostly nothing."""
    if slates is None:
        return np.zeros(0, np.uint8), np.zeros((0, 0), np.intp)
    ends = np.zeros(rows.shape, np.intp)
    pieces = []
    for propensity, rank in slates.logged(rows >= 0):
        inner = encode(_Logged(propensity, rank))[1:-1]
        pieces.append(b"," + inner if inner else b"")
    ends[rows >= 0] = [len(piece) for piece in pieces]
    return np.frombuffer(b"".join(pieces), np.uint8), np.cumsum(ends.ravel()).reshape(rows.shape)
