"""The catalogue as the learner sees it: which items exist and what their texts are.

`CatalogueFeed` follows the compacted `items` topic in memory, one entry per item; `snapshot`
freezes it for a round, in a fixed order, so that a round never sees the catalogue move.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.item_text import TextOf
from profiles.items import Item
from profiles.release import Keys
from profiles.wire import key64

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """N items, ordered by key.

    Shapes: keys (N,) ascending `key64` of item ids; texts N strings; text_keys (N,) `key64` of
    the texts.
    """

    keys: Keys
    texts: tuple[str, ...]
    text_keys: Keys

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, keys: Keys) -> Rows:
        """Row of each item key, -1 for an item that is not here.  Shapes: (...) -> (...)."""
        if not len(self.keys):
            return np.full(keys.shape, -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1).astype(np.int64)


def make_catalogue(items: Iterable[Item], text_of: TextOf = Item.full_text) -> Catalogue:
    """Freeze items.  An id that comes twice keeps its last text.

    >>> made = make_catalogue([Item("i1", title="Heat"), Item("i2", title="Alien")])
    >>> sorted(made.texts), len(made)
    (['Alien', 'Heat'], 2)
    """
    texts = {key64(item.item_id): text_of(item) for item in items}
    return _frozen(texts)


def _frozen(texts: dict[int, str]) -> Catalogue:
    keys = np.array(sorted(texts), dtype=np.uint64)
    ordered = tuple(texts[int(key)] for key in keys)
    text_keys = np.array([key64(text) for text in ordered], dtype=np.uint64)
    return Catalogue(keys, ordered, text_keys)


class CatalogueFeed:
    """The live catalogue; not thread-safe, owned by the service's main thread."""

    def __init__(self, text_of: TextOf = Item.full_text) -> None:
        self._text_of = text_of
        self._texts: dict[int, str] = {}
        self._frozen: Catalogue | None = None

    def __len__(self) -> int:
        return len(self._texts)

    def put(self, item: Item) -> None:
        """Add an item or replace its text."""
        self._texts[key64(item.item_id)] = self._text_of(item)
        self._frozen = None

    def remove(self, item_id: str) -> None:
        """Forget an item (its tombstone arrived)."""
        if self._texts.pop(key64(item_id), None) is not None:
            self._frozen = None

    def snapshot(self) -> Catalogue:
        """The catalogue now; unchanged catalogues give the same object."""
        if self._frozen is None:
            self._frozen = _frozen(self._texts)
        return self._frozen
