"""What a message says of an item, whoever it is for: JSON that is written once and copied since.

Ids, titles and tags of the items that are recommended make up most of a message's bytes and never
change between two messages.  So they are kept as bytes in one array, by catalogue row, and
`stream.slate_loops` copies them without touching a Python object.  An item is written when it is
first named, and again when the catalogue has a newer one.
"""

from __future__ import annotations

import msgspec
import numpy as np

from profiles.catalog import Catalog, Rows
from profiles.growing import with_room
from stream.slate_loops import ID_START, PIECE_END, TAGS_END, TAGS_START, TITLE_START, Bytes

LEAST_BYTES, LEAST_ROWS = 1 << 16, 1024
LEAST_REWRITTEN = 1_000
"""What was rewritten stays where it was, with tags that nothing has any more.  When as much was
rewritten as is in use, and at least so much, all is forgotten."""
_UNWRITTEN = -1


class ItemPieces:
    """Pieces of the items of one catalogue.  Used on the state thread alone.

    Shapes: text (bytes,), places (N, 5), tag_numbers (tags of all items,), tag_places (different
    tags, 2): where each tag's ``,"tag":…`` stands in `text`.
    """

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._begin()

    def _begin(self) -> None:
        self.text: Bytes = np.zeros(LEAST_BYTES, np.uint8)
        self.places: Rows = np.zeros((LEAST_ROWS, 5), np.intp)
        self.tag_numbers: Rows = np.zeros(LEAST_ROWS, np.intp)
        self.tag_places: Rows = np.zeros((64, 2), np.intp)
        self.longest_tag = 0
        self._versions: Rows = np.full(LEAST_ROWS, _UNWRITTEN)
        self._number_of: dict[str, int] = {}
        self._text_end = self._tags_end = 0
        self._written = self._rewritten = 0

    def bring(self, rows: Rows) -> None:
        """See that these rows are written as the catalogue has them now.

        All that are read before the next call: it may begin anew.  Shapes: rows (M,).
        """
        if self._rewritten > max(self._written, LEAST_REWRITTEN):
            self._begin()  # what is still named is written again when it is
        size = len(self._catalog)
        self.places = with_room(self.places, size)
        self._versions = with_room(self._versions, size, fill=_UNWRITTEN)
        named = rows[self._catalog.versions[rows] != self._versions[rows]]
        for row in np.unique(named).tolist():
            self._write(row)

    def _write(self, row: int) -> None:
        item = self._catalog.items[row]
        is_new = self._versions[row] == _UNWRITTEN
        self._written += is_new
        self._rewritten += not is_new
        start = self._text_end
        title_start = self._append(b'"item_id":' + msgspec.json.encode(item.item_id))
        end = title_start
        if item.title:
            end = self._append(b',"title":' + msgspec.json.encode(item.title))
        numbers = list(map(self._tag, item.tags))
        tags_start, tags_end = self._tags_end, self._tags_end + len(numbers)
        self.tag_numbers = with_room(self.tag_numbers, tags_end)
        self.tag_numbers[tags_start:tags_end] = numbers
        self._tags_end = tags_end
        columns = [ID_START, TITLE_START, PIECE_END, TAGS_START, TAGS_END]
        self.places[row, columns] = start, title_start, end, tags_start, tags_end
        self._versions[row] = self._catalog.versions[row]

    def _tag(self, tag: str) -> int:
        number = self._number_of.get(tag)
        if number is None:
            number = self._number_of[tag] = len(self._number_of)
            start = self._text_end
            end = self._append(b',"tag":' + msgspec.json.encode(tag))
            self.tag_places = with_room(self.tag_places, number + 1)
            self.tag_places[number] = start, end
            self.longest_tag = max(self.longest_tag, end - start)
        return number

    def _append(self, piece: bytes) -> int:
        """Returns: where the piece ends."""
        end = self._text_end + len(piece)
        self.text = with_room(self.text, end)
        self.text[self._text_end : end] = np.frombuffer(piece, np.uint8)
        self._text_end = end
        return end
