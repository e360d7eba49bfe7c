"""The items topic, read to its end: which items there were, and which texts they had."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from profiles.events import key64
from stream.oracle.records import Raw


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items in order of first appearance.  Shapes: keys, text_keys, is_stable, first_ms (N,).

    `is_stable`: the text never changed, so that its vector is the same at all times; `first_ms`:
    when the item was first produced.  A withdrawn item keeps its row, as it does in a worker.
    """

    ids: tuple[str, ...]
    rows: dict[str, int]
    texts: tuple[str, ...]
    keys: npt.NDArray[np.uint64]
    text_keys: npt.NDArray[np.uint64]
    is_stable: npt.NDArray[np.bool_]
    first_ms: npt.NDArray[np.int64]


def read_catalogue(records: Iterable[Raw]) -> Catalogue:
    """Take in item messages; what is no item is passed over, as is a tombstone."""
    rows: dict[str, int] = {}
    texts: list[str] = []
    stable: list[bool] = []
    first: list[int] = []
    for record in records:
        item = _object(record.value)
        name = item.get("item_id")
        if not isinstance(name, str) or not name or record.key != name.encode():
            continue
        text = _text(item)
        row = rows.setdefault(name, len(texts))
        if row == len(texts):
            texts.append(text)
            stable.append(True)
            first.append(record.timestamp_ms)
        elif texts[row] != text:
            texts[row] = text
            stable[row] = False
    return Catalogue(
        ids=tuple(rows),
        rows=rows,
        texts=tuple(texts),
        keys=np.array([key64(name) for name in rows], dtype=np.uint64),
        text_keys=np.array([key64(text) for text in texts], dtype=np.uint64),
        is_stable=np.array(stable, dtype=np.bool_),
        first_ms=np.array(first, dtype=np.int64),
    )


# Any: decoded JSON is anything.
def _object(payload: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(payload or b"null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _text(item: dict[str, Any]) -> str:
    """What the contract says that the language model reads: title, tags, body.

    >>> _text({"title": "Heat", "tags": ["Crime"]})
    'Heat. Crime'
    """
    parts = [item.get("title", ""), ", ".join(item.get("tags", [])), item.get("text", "")]
    return ". ".join(part for part in parts if part)
