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
        row = np.zeros(self.columns, dtype=np.float16)
        for at, name, width in self._places():
            given = item.vectors.get(name)
            if given is None:
                continue
            if len(given) != width:
                raise BadMessage(
                    "bad-vector",
                    f"vectors.{name} of item {item.item_id!r} has {len(given)} numbers, "
                    f"model.vectors says {width}; leave it out, or send {width}",
                )
            vector = np.array(given, dtype=np.float64)
            length = float(np.linalg.norm(vector))
            if length > 0.0:
                row[at] = 1.0
                row[at + 1 : at + 1 + width] = vector / length
        return row

    def has(self, rows: npt.NDArray[np.floating]) -> dict[str, npt.NDArray[np.bool_]]:
        """Which items have which modality.  Shapes: rows (N, columns) -> (N,) by name."""
        return {name: rows[:, at] > 0.5 for at, name, _ in self._places()}

    def _places(self) -> Iterator[tuple[int, str, int]]:
        at = 0
        for name, width in self.widths:
            yield at, name, width
            at += 1 + width


TEXT_ALONE = Modalities()


def content_key(text: str, row: Halves) -> int:
    """A name for all that an item's vector is made from: its text, and what it shows beside it.

    An item without vectors has the name of its text, as before there were any.
    """
    if not row.any():
        return key64(text)
    shown = hashlib.sha256(row.astype("<f2").tobytes()).hexdigest()
    return key64(f"{text}\0{shown}")
