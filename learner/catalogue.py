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
from profiles.modalities import TEXT_ALONE, Halves, Modalities, content_key
from profiles.release import Keys
from profiles.wire import key64

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """N items, ordered by key.

    Shapes: keys (N,) ascending `key64` of item ids; texts N strings; text_keys (N,) `content_key`
    of the items; shown (N, columns) `Modalities.read` of the items, None without modalities.
    """

    keys: Keys
    texts: tuple[str, ...]
    text_keys: Keys
    shown: Halves | None = None

    def __len__(self) -> int:
        return len(self.keys)

    def rows(self, keys: Keys) -> Rows:
        """Row of each item key, -1 for an item that is not here.  Shapes: (...) -> (...)."""
        if not len(self.keys):
            return np.full(keys.shape, -1, dtype=np.int64)
        place = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        return np.where(self.keys[place] == keys, place, -1).astype(np.int64)


def make_catalogue(
    items: Iterable[Item],
    text_of: TextOf = Item.full_text,
    modalities: Modalities = TEXT_ALONE,
) -> Catalogue:
    """Freeze items.  An id that comes twice keeps its last text.

    Raises: BadMessage (bad-vector).

    >>> made = make_catalogue([Item("i1", title="Heat"), Item("i2", title="Alien")])
    >>> sorted(made.texts), len(made)
    (['Alien', 'Heat'], 2)
    """
    feed = CatalogueFeed(text_of, modalities)
    for item in items:
        feed.put(item)
    return feed.snapshot()


class CatalogueFeed:
    """The live catalogue; not thread-safe, owned by the service's main thread."""

    def __init__(
        self, text_of: TextOf = Item.full_text, modalities: Modalities = TEXT_ALONE
    ) -> None:
        self._text_of = text_of
        self._modalities = modalities
        self._items: dict[int, tuple[str, Halves]] = {}
        self._frozen: Catalogue | None = None

    def __len__(self) -> int:
        return len(self._items)

    def put(self, item: Item) -> None:
        """Add an item or replace its content.  Raises: BadMessage (bad-vector)."""
        self._items[key64(item.item_id)] = self._text_of(item), self._modalities.read(item)
        self._frozen = None

    def remove(self, item_id: str) -> None:
        """Forget an item (its tombstone arrived)."""
        if self._items.pop(key64(item_id), None) is not None:
            self._frozen = None

    def snapshot(self) -> Catalogue:
        """The catalogue now; unchanged catalogues give the same object."""
        if self._frozen is None:
            self._frozen = self._freeze()
        return self._frozen

    def _freeze(self) -> Catalogue:
        keys = np.array(sorted(self._items), dtype=np.uint64)
        contents = [self._items[key] for key in keys.tolist()]
        text_keys = np.array([content_key(*content) for content in contents], dtype=np.uint64)
        shown = None
        if columns := self._modalities.columns:
            shown = np.zeros((len(keys), columns), dtype=np.float16)
            for row, (_, own) in enumerate(contents):
                shown[row] = own
        return Catalogue(keys, tuple(text for text, _ in contents), text_keys, shown)
