"""Amazon reviews: one JSON object per line, with the products' metadata beside them.

A folder with a reviews file and a metadata file (its name starts with ``meta``), each .jsonl or
.json, plain or .gz.  Both generations of the fields are read: 2018 (reviewerID, asin, overall,
unixReviewTime) and 2023 (user_id, parent_asin, rating, timestamp in ms).
Source: https://amazon-reviews-2023.github.io.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np

from profiles.errors import DatasetError
from profiles.items import Item
from profiles.wire import MAX_ID_LENGTH, MAX_TAGS, MAX_TEXT_LENGTH
from stream.datasets.dataset import Codes, Dataset, EventTable

MILLISECONDS = 1e11  # no time in seconds is larger before the year 5138


class Review(msgspec.Struct, gc=False):
    """A line of the reviews file, either generation."""

    asin: str = ""
    user_id: str | None = None
    reviewerID: str | None = None
    parent_asin: str | None = None
    rating: float | None = None
    overall: float | None = None
    timestamp: float | None = None
    unixReviewTime: float | None = None


class Product(msgspec.Struct):
    """A line of the metadata file, either generation."""

    asin: str = ""
    parent_asin: str | None = None
    title: str | None = None
    description: str | list[str] | None = None
    categories: list[str | list[str]] | None = None
    category: list[str] | None = None


Row = TypeVar("Row", Review, Product)


def load_amazon(folder: Path) -> Dataset:
    """Read reviews as events `rate` and products as items.  Raises: DatasetError."""
    files = [path for path in sorted(folder.glob("*")) if _is_lines(path)]
    reviews = next((path for path in files if not path.name.startswith("meta")), None)
    products = next((path for path in files if path.name.startswith("meta")), None)
    if reviews is None:
        raise DatasetError(f"no reviews (*.jsonl, *.json, also .gz) in {str(folder)!r}")
    rows = list(_rows(reviews, Review))
    times = [row.timestamp or row.unixReviewTime or np.nan for row in rows]
    stars = [row.rating if row.rating is not None else row.overall for row in rows]
    events = EventTable(
        prefix="amazon",
        lines=np.arange(1, len(rows) + 1, dtype=np.int64),
        users=Codes.of(np.array([row.user_id or row.reviewerID for row in rows], dtype=object)),
        items=Codes.of(np.array([row.parent_asin or row.asin for row in rows], dtype=object)),
        actions=Codes.constant("rate", len(rows)),
        ts=np.array([time / 1000 if time > MILLISECONDS else time for time in times], np.float64),
        values=np.array([np.nan if star is None else star for star in stars], np.float64),
    ).checked(str(reviews))
    items: dict[str, Item] = {}
    wanted = set(events.items.texts)  # the metadata names far more products than were reviewed
    for product in _rows(products, Product) if products else ():
        item_id = product.parent_asin or product.asin
        if item_id in wanted and item_id not in items:
            items[item_id] = _item(item_id, product)
    for item_id in events.items.texts:
        items.setdefault(item_id, Item(item_id, title=item_id))
    return Dataset(
        f"amazon-{reviews.name.partition('.')[0]}",
        list(items.values()),
        events.in_time_order(),
        source=str(folder),
    )


def _item(item_id: str, product: Product) -> Item:
    parts = product.description or ""
    text = parts if isinstance(parts, str) else " ".join(parts)
    tags: list[str] = []
    for entry in product.categories or product.category or []:
        tags.extend([entry] if isinstance(entry, str) else entry)
    kept = dict.fromkeys(tag[:MAX_ID_LENGTH] for tag in tags if tag)
    title = (product.title or "")[:MAX_TEXT_LENGTH]
    return Item(item_id, title, text[:MAX_TEXT_LENGTH], tags=list(kept)[:MAX_TAGS])


def _is_lines(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith((".jsonl", ".json"))


def _rows(path: Path, kind: type[Row]) -> Iterator[Row]:
    """Every line as a struct.  Raises: DatasetError naming the first line that does not fit."""
    decoder = msgspec.json.Decoder(kind)
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                yield decoder.decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                raise DatasetError(f"{path}, line {number}: {error}") from error
