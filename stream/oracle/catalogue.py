"""The items topic, read to its end: which items there were, and which texts they had."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from profiles.wire import key64
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


def read_catalogue(
    records: Iterable[Raw], parts: Sequence[str] = ("{title}", "{tags}", "{text}")
) -> Catalogue:
    """Take in item messages; what is no item is passed over, as is a tombstone.

    `parts`: what the language model reads of an item (`data.item_text`).
    """
    rows: dict[str, int] = {}
    texts: list[str] = []
    stable: list[bool] = []
    first: list[int] = []
    for record in records:
        item = _object(record.value)
        name = item.get("item_id")
        if not isinstance(name, str) or not name or record.key != name.encode():
            continue
        text = _text(item, parts)
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


def _text(item: dict[str, Any], parts: Sequence[str]) -> str:
    """What the contract says that the language model reads.

    >>> _text({"title": "Heat", "attributes": {"year": 1995}},
    ...       ["{title}", "by {attributes.by}", "of {attributes.year}"])
    'Heat. of 1995'
    """
    found = {"title": item.get("title", ""), "tags": ", ".join(item.get("tags", []))}
    found["text"] = item.get("text", "")
    for name, value in item.get("attributes", {}).items():
        found[f"attributes.{name}"] = "" if value is None else str(value)
    filled = []
    for part in parts:
        fields = re.findall(r"{(.+?)}", part)
        if all(found.get(field) for field in fields):
            filled.append(re.sub(r"{(.+?)}", lambda match: found[match[1]], part))
    return ". ".join(text for text in filled if text)
