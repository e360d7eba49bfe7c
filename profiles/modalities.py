"""What an item shows beside its text: vectors of its pictures, its sound, its place in a graph.

A producer gives them with the item (`Item.vectors`); `model.vectors` says which of them this
deployment reads, by name and number of dimensions.  `profiles.head.embed_items` joins them to the
text.  An item may lack any of them: then its other parts speak for it.

An item's row holds, for each modality in order of name, 1 and the vector at unit length, or 0 and
noughts where the item has none.  Rows are float16: a worker's catalogue keeps them all, and every
process must embed an item from the same numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.errors import BadMessage
from profiles.items import Item
from profiles.wire import key64

Halves = npt.NDArray[np.float16]
Widths = tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a modality stands: `present` its column of noughts and ones in an item's row, `vector`
    the columns after it, `weights` its rows of a head's `vector_weight`."""

    name: str
    width: int
    present: int
    vector: slice
    weights: slice


def places(widths: Widths) -> Iterator[Place]:
    """Every modality's place, in order of name.

    >>> [(each.present, each.vector, each.weights) for each in places((("a", 2), ("b", 3)))]
    [(0, slice(1, 3, None), slice(0, 2, None)), (3, slice(4, 7, None), slice(2, 5, None))]
    """
    at = used = 0
    for name, width in widths:
        vector, weights = slice(at + 1, at + 1 + width), slice(used, used + width)
        yield Place(name, width, at, vector, weights)
        at, used = at + 1 + width, used + width


NOTHING: Halves = np.zeros(0, dtype=np.float16)
"""The row of every item where there are no modalities: one, not one for each."""


@dataclass(frozen=True, slots=True)
class Modalities:
    """Names and numbers of dimensions, in order of name.

    >>> pictures = Modalities.of({"image": 2})
    >>> pictures.read(Item("i1", vectors={"image": [3.0, 4.0]})).tolist()
    [1.0, 0.60009765625, 0.7998046875]
    >>> pictures.read(Item("i2")).tolist()
    [0.0, 0.0, 0.0]
    """

    widths: Widths = ()

    @classmethod
    def of(cls, widths: Mapping[str, int]) -> Modalities:
        """From `model.vectors`."""
        return cls(tuple(sorted(widths.items())))

    @property
    def columns(self) -> int:
        """Width of an item's row."""
        return sum(1 + width for _, width in self.widths)

    def read(self, item: Item) -> Halves:
        """An item's row; vectors under other names are not looked at.

        A vector of noughts points nowhere: it counts as none.
        Shapes: -> (columns,).  Raises: BadMessage (bad-vector) for a vector of another length.
        """
        if not self.widths:
            return NOTHING
        row = np.zeros(self.columns, dtype=np.float16)
        for place in places(self.widths):
            given = item.vectors.get(place.name)
            if given is None:
                continue
            if len(given) != place.width:
                raise BadMessage(
                    "bad-vector",
                    f"vectors.{place.name} of item {item.item_id!r} has {len(given)} numbers, "
                    f"model.vectors says {place.width}; leave it out, or send {place.width}",
                )
            vector = np.array(given, dtype=np.float64)
            length = float(np.linalg.norm(vector))
            if length > 0.0:
                row[place.present] = 1.0
                row[place.vector] = vector / length
        return row


TEXT_ALONE = Modalities()


def content_key(text: str, row: Halves) -> int:
    """A name for all that an item's vector is made from: its text, and what it shows beside it.

    An item without vectors has the name of its text, as before there were any.
    """
    if not row.any():
        return key64(text)
    shown = hashlib.sha256(row.astype("<f2").tobytes()).hexdigest()
    return key64(f"{text}\0{shown}")
