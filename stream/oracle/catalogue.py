"""The items topic, read to its end: which items there were, and which texts they had."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from profiles.wire import key64
from stream.oracle.records import Raw


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Items in order of first appearance.  Shapes: keys, text_keys, is_stable, first_ms (N,);
    shown (N, columns), what they show beside their text.

    `is_stable`: the content never changed, so that its vector is the same at all times; `first_ms`:
    when the item was first produced.  A withdrawn item keeps its row, as it does in a worker.
    """

    ids: tuple[str, ...]
    rows: dict[str, int]
    texts: tuple[str, ...]
    keys: npt.NDArray[np.uint64]
    text_keys: npt.NDArray[np.uint64]
    is_stable: npt.NDArray[np.bool_]
    first_ms: npt.NDArray[np.int64]
    shown: npt.NDArray[np.float16]


def read_catalogue(
    records: Iterable[Raw],
    parts: Sequence[str] = ("{title}", "{tags}", "{text}"),
    widths: Mapping[str, int] = MappingProxyType({}),
) -> Catalogue:
    """Take in item messages; what is no item is passed over, as is a tombstone.

    `parts`: what the language model reads of an item (`data.item_text`); `widths`: what it shows
    beside that (`model.vectors`).
    """
    rows: dict[str, int] = {}
    texts: list[str] = []
    shown: list[npt.NDArray[np.float16]] = []
    stable: list[bool] = []
    first: list[int] = []
    for record in records:
        item = _object(record.value)
        name = item.get("item_id")
        if not isinstance(name, str) or not name or record.key != name.encode():
            continue
        text, vectors = _text(item, parts), _vectors(item, widths)
        if vectors is None:
            continue  # a dead letter
        row = rows.setdefault(name, len(texts))
        if row == len(texts):
            texts.append(text)
            shown.append(vectors)
            stable.append(True)
            first.append(record.timestamp_ms)
        elif texts[row] != text or not np.array_equal(shown[row], vectors):
            texts[row], shown[row] = text, vectors
            stable[row] = False
    return Catalogue(
        ids=tuple(rows),
        rows=rows,
        texts=tuple(texts),
        keys=np.array([key64(name) for name in rows], dtype=np.uint64),
        text_keys=np.array(
            [_content(*content) for content in zip(texts, shown, strict=True)], dtype=np.uint64
        ),
        is_stable=np.array(stable, dtype=np.bool_),
        first_ms=np.array(first, dtype=np.int64),
        shown=np.array(shown, np.float16).reshape(len(texts), sum(widths.values()) + len(widths)),
    )


# Any: decoded JSON is anything.
def _object(payload: bytes | None) -> dict[str, Any]:
    try:
        found = json.loads(payload or b"null")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _vectors(item: dict[str, Any], widths: Mapping[str, int]) -> npt.NDArray[np.float16] | None:
    """For each name 1 and the vector at unit length, or noughts; None if one is none, or has
    another length.

    >>> _vectors({"vectors": {"image": [0, 2]}}, {"image": 2, "sound": 1}).tolist()
    [1.0, 0.0, 1.0, 0.0, 0.0]
    """
    vectors = item.get("vectors", {})
    if not isinstance(vectors, dict) or not all(map(_is_vector, vectors.values())):
        return None
    found: list[float] = []
    for name, width in sorted(widths.items()):
        numbers = vectors.get(name, [0.0] * width)
        if len(numbers) != width:
            return None
        length = math.sqrt(math.fsum(number * number for number in numbers))
        found += [float(length > 0), *(number / (length or 1.0) for number in numbers)]
    return np.array(found, dtype=np.float16)


def _is_vector(numbers: object) -> bool:
    """A list of numbers as the contract wants them: no text, no truth value, none beyond 1e30."""
    return isinstance(numbers, list) and all(
        isinstance(each, int | float) and not isinstance(each, bool) and abs(each) <= 1e30
        for each in numbers
    )


def _content(text: str, vectors: npt.NDArray[np.float16]) -> int:
    """The name of what an item's vector is made from, as releases have it."""
    if not vectors.any():
        return key64(text)
    return key64(f"{text}\0{hashlib.sha256(vectors.astype('<f2').tobytes()).hexdigest()}")


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
