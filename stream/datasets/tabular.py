"""Any table of events, CSV or Parquet, with or without a table of items beside it.

A mapping says which column is which of our fields; common names are guessed.  Its keys are the
event fields `user_id item_id action ts value session_id event_id`, the item fields `item_id title
text tags` behind the prefix `items.`, and `items`, the path of the item table.  A value that
starts with ``=`` is a constant: ``action`` -> ``=view``.  With neither column nor constant the
action is `rate` where there is a value and `view` otherwise.

A folder is read as one events file (events, interactions, ratings, clicks...) and one items file
(items, products, articles...).  Without an item table, items are made from the events' own
columns.  Cells are read as text first, so that an id like ``007`` stays one.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiles.errors import DatasetError
from profiles.items import Item
from profiles.wire import MAX_ID_LENGTH, MAX_TAGS, MAX_TEXT_LENGTH
from stream.datasets.dataset import Codes, Dataset, EventTable

EVENT_GUESSES: Mapping[str, tuple[str, ...]] = {
    "user_id": ("userid", "user", "uid", "visitorid", "customerid", "memberid", "accountid",
                "reviewerid", "clientid"),
    "item_id": ("itemid", "item", "iid", "productid", "movieid", "articleid", "contentid",
                "bookid", "trackid", "songid", "videoid", "asin", "sku", "newsid"),
    "ts": ("ts", "timestamp", "time", "eventtime", "datetime", "createdat", "date", "eventts",
           "unixtime"),
    "action": ("action", "event", "eventtype", "behavior", "behaviour", "behaviortype", "type"),
    "value": ("value", "rating", "score", "stars", "weight", "dwelltime", "amount"),
    "session_id": ("sessionid", "session", "usersession"),
    "event_id": ("eventid",),
}  # fmt: skip
ITEM_GUESSES: Mapping[str, tuple[str, ...]] = {
    "item_id": (*EVENT_GUESSES["item_id"], "id"),
    "title": ("title", "name", "itemname", "productname", "movietitle", "headline"),
    "text": ("text", "description", "abstract", "overview", "summary", "body", "content"),
    "tags": ("tags", "genres", "categories", "category", "genre", "class", "labels"),
}
EVENT_FILES = ("events", "interactions", "ratings", "clicks", "behaviors", "transactions", "logs")
ITEM_FILES = ("items", "products", "articles", "movies", "books", "news", "catalogue", "catalog")
SUFFIXES = (".csv", ".tsv", ".parquet", ".csv.gz", ".tsv.gz")
NEEDED = ("user_id", "item_id", "ts")
"""Without these an event is none."""
UNITS_S = ((1e11, 1.0), (1e14, 1e-3), (1e17, 1e-6), (np.inf, 1e-9))
"""Largest plausible timestamp of each unit, and that unit in seconds (s, ms, µs, ns)."""


def load_tabular(path: Path, mapping: Mapping[str, str]) -> Dataset:
    """Read a table of events and, where there is one, of items.

    Raises: DatasetError naming the missing column and the columns that were found.
    """
    if not path.exists():
        raise DatasetError(f"{str(path)!r} does not exist; give a CSV or Parquet file or a folder")
    known = {*EVENT_GUESSES, "items", *(f"items.{name}" for name in ITEM_GUESSES)}
    if unknown := sorted(set(mapping) - known):
        raise DatasetError(
            f"--map names unknown fields {', '.join(unknown)}; known are {', '.join(sorted(known))}"
        )
    events_path = _find(path, EVENT_FILES) if path.is_dir() else path
    if events_path is None:
        called = [" or ".join(names[:3]) for names in (EVENT_FILES, ITEM_FILES)]
        raise DatasetError(
            f"no events file in {str(path)!r}, which holds {_held(path)}: name the file itself, "
            f"--path {path / 'FILE'}, and the items' by --map items={path / 'FILE'}, or call them "
            f"{called[0]}, and {called[1]} ({', '.join(SUFFIXES)})"
        )
    items_path = Path(mapping["items"]) if "items" in mapping else None
    if items_path is None and path.is_dir():
        items_path = _find(path, ITEM_FILES)

    table = _Table(_read(events_path), str(events_path), mapping, EVENT_GUESSES)
    table.check(NEEDED)
    events = _events(table, prefix=path.resolve().stem)
    own = {name[len("items.") :]: to for name, to in mapping.items() if name.startswith("items.")}
    if items_path is not None:
        items = _Table(_read(items_path), str(items_path), own, ITEM_GUESSES)
    else:
        # A text beside an event is more likely a review than a description of the item.
        guesses = {**ITEM_GUESSES, "item_id": EVENT_GUESSES["item_id"], "text": ()}
        shared = {"item_id": mapping["item_id"]} if "item_id" in mapping else {}
        items = _Table(table.frame, table.source, {**shared, **own}, guesses)
    return Dataset(
        name=path.resolve().stem,
        items=_items(items, events.items),
        events=events.in_time_order(),
        source=str(events_path),
    )


@dataclass(frozen=True, slots=True)
class _Table:
    """A table and which of its columns is which field: as mapped, else as guessed."""

    frame: pd.DataFrame
    source: str
    mapping: Mapping[str, str]
    guesses: Mapping[str, tuple[str, ...]]

    def constant(self, name: str) -> str | None:
        """The text after ``=`` if the field is mapped to a constant."""
        given = self.mapping.get(name, "")
        return given[1:] if given.startswith("=") else None

    def column(self, name: str) -> pd.Series[Any] | None:
        """The column that holds a field.  Raises: DatasetError if the mapped one is missing."""
        if name in self.mapping:
            if self.mapping[name] not in self.frame.columns:
                raise DatasetError(
                    f"{self.source}: column {self.mapping[name]!r}, mapped to {name}, is missing; "
                    f"found {self._found()}"
                )
            return self.frame[self.mapping[name]]
        by_plain = {_plain(column): column for column in reversed(self.frame.columns)}
        guess = next((guess for guess in self.guesses[name] if guess in by_plain), None)
        return None if guess is None else self.frame[by_plain[guess]]

    def check(self, names: Sequence[str], option: str = "") -> None:
        """Whether there is a column or a constant for each of these fields.

        Raises: DatasetError naming all that are missing; `option`: what stands before a field's
        name when it is mapped.
        """
        if missing := [
            name for name in names if self.constant(name) is None and self.column(name) is None
        ]:
            given = " ".join(f"--map {option}{name}=COLUMN" for name in missing)
            raise DatasetError(
                f"{self.source}: no column for {', '.join(missing)}; found {self._found()}. "
                f"Say which it is: {given}"
            )

    def need(self, name: str, option: str = "") -> pd.Series[Any]:
        """The column that holds a field.  Raises: DatasetError if there is none."""
        self.check((name,), option)
        column = self.column(name)
        assert column is not None, f"{name} is a constant"
        return column

    def codes(self, name: str) -> Codes | None:
        """A field's texts, from its column or its constant."""
        constant = self.constant(name)
        if constant is not None:
            return Codes.constant(constant, len(self.frame))
        column = self.column(name)
        return None if column is None else Codes.of(_texts(column))

    def numbers(self, name: str) -> npt.NDArray[np.float64] | None:
        """A field's numbers, NaN where a cell is empty."""
        constant = self.constant(name)
        column = self.column(name) if constant is None else None
        try:
            if constant is not None:
                return np.full(len(self.frame), float(constant))
            if column is None:
                return None
            return pd.to_numeric(column).to_numpy(np.float64, na_value=np.nan)
        except (ValueError, TypeError) as error:
            raise DatasetError(f"{self.source}: {name} is not numeric: {error}") from error

    def _found(self) -> str:
        return ", ".join(map(str, self.frame.columns))


def _events(table: _Table, prefix: str) -> EventTable:
    rows = len(table.frame)
    values = table.numbers("value")
    action = table.codes("action")
    first_line = 1 if table.source.endswith(".parquet") else 2  # after the header
    return EventTable(
        prefix=prefix,
        lines=np.arange(rows, dtype=np.int64) + first_line,
        users=table.codes("user_id") or Codes.of(table.need("user_id")),
        items=table.codes("item_id") or Codes.of(table.need("item_id")),
        actions=action or Codes.constant("view" if values is None else "rate", rows),
        ts=seconds(table.need("ts"), table.source),
        values=np.full(rows, np.nan) if values is None else values,
        sessions=table.codes("session_id"),
        ids=table.codes("event_id"),
    ).checked(table.source)


def _items(table: _Table, in_events: Codes) -> list[Item]:
    """Items of a table; those that only events name come last, known by their id alone."""
    ids = _texts(table.need("item_id", "items.")).tolist()
    columns = {name: table.column(name) for name in ("title", "text", "tags")}
    cells = [[None] * len(ids) if found is None else found.tolist() for found in columns.values()]
    items: dict[str, Item] = {}
    for item_id, title, text, tags in zip(ids, *cells, strict=True):
        if isinstance(item_id, str) and item_id and item_id not in items:
            items[item_id] = Item(item_id, _cell(title), _cell(text), tags=split_tags(tags))
    for item_id in in_events.texts:
        items.setdefault(item_id, Item(item_id, title=item_id))
    return list(items.values())


def seconds(column: pd.Series[Any], source: str = "the table") -> npt.NDArray[np.float64]:
    """Unix seconds of a time column: numbers in s, ms, µs or ns by their size, or ISO 8601.

    Times without a zone are taken for UTC.  Raises: DatasetError naming a value it cannot read.

    >>> seconds(pd.Series(["1970-01-01T00:01:00Z"])).tolist()
    [60.0]
    >>> seconds(pd.Series(["1700000000000"])).tolist()
    [1700000000.0]
    """
    numbers = pd.to_numeric(column, errors="coerce") if not _is_time(column) else None
    if numbers is not None and numbers.notna().any():
        if (lost := numbers.isna() & column.notna()).any():
            raise DatasetError(
                f"{source}: time {column[lost].iloc[0]!r} is not a number, others are"
            )
        plain = numbers.to_numpy(np.float64)
        middle = float(np.nanmedian(np.abs(plain)))
        return plain * next(unit for limit, unit in UNITS_S if middle < limit)
    try:
        moments = pd.to_datetime(column, utc=True, format="ISO8601")
    except (ValueError, TypeError) as error:
        raise DatasetError(
            f"{source}: times such as {column.iloc[0]!r} are neither numbers nor ISO 8601"
        ) from error
    nanoseconds = moments.dt.as_unit("ns").astype("int64").to_numpy()
    return np.where(moments.isna(), np.nan, nanoseconds / 1e9)


def _is_time(column: pd.Series[Any]) -> bool:
    return bool(pd.api.types.is_datetime64_any_dtype(column))


def _read(path: Path) -> pd.DataFrame:
    try:
        if path.suffix == ".parquet":
            return pd.read_parquet(path)
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8-sig") as file:
            head = file.readline()
        separator = max("\t;|,", key=head.count)
        return pd.read_csv(path, sep=separator, dtype=str, encoding="utf-8-sig")
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise DatasetError(f"{str(path)!r} cannot be read as CSV or Parquet: {error}") from error


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    candidates = (folder / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def _held(folder: Path) -> str:
    """Some of what is in a folder, for people."""
    return ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"


def _plain(name: object) -> str:
    """A column name without case, spaces and signs; `:token` of recbole's headers is dropped."""
    return re.sub(r"[^a-z0-9]", "", str(name).partition(":")[0].lower())


def _texts(column: pd.Series[Any]) -> pd.Series[Any]:
    """Ids as text; a whole number that Parquet kept as a float loses its `.0`."""
    if pd.api.types.is_float_dtype(column):
        column = column.astype("Int64") if (column.dropna() % 1 == 0).all() else column
    return column.astype("str").where(column.notna(), None)


def _cell(value: object) -> str:
    return "" if value is None or value != value else str(value)[:MAX_TEXT_LENGTH]


def split_tags(value: object) -> list[str]:
    """Tags out of one cell: a list, or text parted by ``|``, ``;`` or ``,``.

    >>> split_tags("Action|Sci-Fi"), split_tags(["a", "b"]), split_tags(None)
    (['Action', 'Sci-Fi'], ['a', 'b'], [])
    """
    if isinstance(value, (list, tuple, np.ndarray)):
        parts = [str(part) for part in value]
    else:
        parts = re.split(r"[|;,]", _cell(value).strip("[]"))
    cleaned = (part.strip(" '\"")[:MAX_ID_LENGTH] for part in parts)
    return list(dict.fromkeys(part for part in cleaned if part))[:MAX_TAGS]
