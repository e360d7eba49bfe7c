"""The catalogue as the workers hold it: items in arrival order, found by id or by 64-bit key.

An item keeps its row for the life of the process, also when its text changes or it is withdrawn,
so that a row number is a safe name inside one process.  It never leaves the process: on disk and
on the wire, items go by id or key.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.growing import lengthened
from profiles.item_text import TextOf
from profiles.items import Item
from profiles.key_index import KeyIndex
from profiles.modalities import TEXT_ALONE, Halves, Modalities, content_key, places
from profiles.wire import key64

Keys = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.intp]

KEPT_MASKS = 32
"""Tags asked for lately, of which it is kept which items have them: a byte for each item."""


class Catalog:
    """Items by row.  Rows only grow.

    `text_of`: what the language model reads of an item; `modalities`: what it shows beside it.
    The items kept here are without their vectors, which are in `shown`.
    """

    def __init__(
        self, text_of: TextOf = Item.full_text, modalities: Modalities = TEXT_ALONE
    ) -> None:
        self.text_of = text_of
        self.modalities = modalities
        self.having = {name: 0 for name, _ in modalities.widths}
        """Items that have each modality."""
        self.items: list[Item] = []
        self.rows: dict[str, int] = {}
        self._tagged: dict[str, set[int]] = {}
        self._masks: dict[str, npt.NDArray[np.bool_]] = {}
        self._withdrawn: set[int] = set()
        self._blocked: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()
        self._keys = np.zeros(1024, dtype=np.uint64)
        self._text_keys = np.zeros(1024, dtype=np.uint64)
        self._versions = np.zeros(1024, dtype=np.intp)
        self._shown = np.zeros((1024, modalities.columns), dtype=np.float16)
        self._on_sale = np.zeros(1024, dtype=np.bool_)
        self._available = np.zeros(1024, dtype=np.bool_)
        self._permitted = np.zeros(1024, dtype=np.bool_)
        self._index = KeyIndex()
        self.version = 0
        """Counts changes: what was derived from the catalogue is compared by it."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def keys(self) -> Keys:
        """Shapes: (N,), `key64` of each item id."""
        return self._keys[: len(self.items)]

    @property
    def text_keys(self) -> Keys:
        """Shapes: (N,), `content_key` of each item: its text, and what it shows beside it."""
        return self._text_keys[: len(self.items)]

    @property
    def versions(self) -> Rows:
        """Shapes: (N,), what `version` was when each item was last put."""
        return self._versions[: len(self.items)]

    @property
    def shown(self) -> Halves:
        """Shapes: (N, columns), `Modalities.read` of each item."""
        return self._shown[: len(self.items)]

    @property
    def available(self) -> npt.NDArray[np.bool_]:
        """Shapes: (N,), whether each item may be recommended: on sale, and not blocked."""
        return self._available[: len(self.items)]

    @property
    def permitted(self) -> npt.NDArray[np.bool_]:
        """Shapes: (N,), the same without asking whether they are on sale."""
        return self._permitted[: len(self.items)]

    def put(self, item: Item) -> tuple[int, bool]:
        """Add or replace.  Returns: (row, whether its content is new and must be encoded).

        Raises: BadMessage (bad-vector); then nothing has changed.
        """
        shown = self.modalities.read(item)
        text_key = content_key(self.text_of(item), shown)
        if item.vectors:
            item = msgspec.structs.replace(item, vectors={})
        self.version += 1
        row = self.rows.get(item.item_id)
        if row is None:
            row = len(self.items)
            if row == len(self._keys):
                self._grow()
            self.items.append(item)
            self.rows[item.item_id] = row
            self._keys[row] = key64(item.item_id)
            changed = True
        else:
            changed = int(self._text_keys[row]) != text_key
            self.items[row] = item
        self._text_keys[row] = text_key
        self._versions[row] = self.version
        for place in places(self.modalities.widths):
            before, now = self._shown[row, place.present], shown[place.present]
            self.having[place.name] += int(now > 0) - int(before > 0)
        self._shown[row] = shown
        self._withdrawn.discard(row)
        self._on_sale[row] = item.available
        self._permitted[row] = not self._is_blocked(item)
        self._available[row] = item.available and self._permitted[row]
        for tag in item.tags:
            self._tagged.setdefault(tag, set()).add(row)
        for tag, mask in self._masks.items():
            if row < len(mask):  # else it is made anew when it is asked for
                mask[row] = tag in item.tags
        return row, changed

    def withdraw(self, item_id: str) -> None:
        """Never recommend it again; its row stays, so that histories still read."""
        row = self.rows.get(item_id)
        if row is not None:
            self._withdrawn.add(row)
            self._available[row] = self._permitted[row] = False

    def block(self, items: frozenset[str], tags: frozenset[str]) -> int:
        """Recommend none of these items, and none with one of these tags, until told otherwise.

        Returns: how many items that keeps back.
        """
        self._blocked = items, tags
        blocked = self.with_tags(sorted(tags))
        blocked[[self.rows[item] for item in items if item in self.rows]] = True
        size = len(self)
        self._permitted[:size] = ~blocked
        self._permitted[list(self._withdrawn)] = False
        self._available[:size] = self._on_sale[:size] & self._permitted[:size]
        return int(blocked.sum())

    def _is_blocked(self, item: Item) -> bool:
        items, tags = self._blocked
        return item.item_id in items or not tags.isdisjoint(item.tags)

    def with_tags(self, tags: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Items that carry at least one of the tags.  Shapes: -> (N,)."""
        mask = np.zeros(len(self), dtype=np.bool_)
        for tag in tags:
            if tag in self._tagged:
                mask |= self._with_tag(tag)
        return mask

    def _with_tag(self, tag: str) -> npt.NDArray[np.bool_]:
        """Of a tag that was asked for lately, as it was answered then and kept up since: a request
        must not look at each of 300,000 items that have it."""
        mask = self._masks.pop(tag, None)
        if mask is None or len(mask) < len(self):
            mask = np.zeros(len(self._keys), dtype=np.bool_)
            # The set may still name items that have lost the tag since.
            mask[[row for row in self._tagged[tag] if tag in self.items[row].tags]] = True
        self._masks[tag] = mask  # the last of them now
        if len(self._masks) > KEPT_MASKS:
            del self._masks[next(iter(self._masks))]
        return mask[: len(self)]

    def rows_of(self, keys: Keys) -> Rows:
        """Rows of items by key, -1 where the catalogue has none.  Any shape."""
        return self._index.rows_of(self.keys, keys)

    def _grow(self) -> None:
        room = 2 * len(self._keys)
        self._keys = lengthened(self._keys, room)
        self._text_keys = lengthened(self._text_keys, room)
        self._versions = lengthened(self._versions, room)
        self._shown = lengthened(self._shown, room)
        self._on_sale = lengthened(self._on_sale, room)
        self._available = lengthened(self._available, room)
        self._permitted = lengthened(self._permitted, room)
