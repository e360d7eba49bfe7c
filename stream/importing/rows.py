"""What one line of a foreign file becomes, and the readings that all formats share.

A line has one of three fates: it yields events (and what it tells about their items), it is passed
over by name because it is no act on an item, or it is bad, which is a `BadMessage` like that of a
worker.  Where a format carries no id of an event, the id is a hash of what the line says, so that
an import that broke off can be repeated: workers know a repetition while it is among the user's
last `profile.recent_ids` events.
"""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

from profiles.errors import BadMessage, DatasetError
from profiles.events import Event
from profiles.items import Item
from profiles.wire import MAX_ID_LENGTH, MAX_TEXT_LENGTH
from stream.datasets.tabular import UNITS_S

Number = str | int | float
Actions = Mapping[str, str]
"""A format's own name of an act, in lower case, to our action."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a line holds.  `passed_over` names an act that is none of ours."""

    events: list[Event] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    passed_over: str = ""


Parse = Callable[[str], Found]
"""One line to what it holds.  Raises: BadMessage."""

Opening = Callable[[str, Actions], tuple[Parse, bool]]
"""A file's first line to the reader of its lines, and whether that first one is only a header.

Raises: DatasetError when the file cannot be of this format.
"""


def event_name(*parts: object) -> str:
    """An event id made of what the event says.

    >>> event_name("ann", "i1", 5) == event_name("ann", "i1", 5) != event_name("ann", "i2", 5)
    True
    """
    text = "\x1f".join(map(str, parts))
    return hashlib.blake2b(text.encode("utf-8", "backslashreplace"), digest_size=12).hexdigest()


def unix_seconds(time: Number | None) -> float:
    """Seconds, milliseconds, microseconds or nanoseconds, told by size, or ISO 8601 (UTC if no
    zone is named).  Raises: BadMessage (bad-time).

    >>> unix_seconds("1700000000000"), unix_seconds("1970-01-01T00:01:00Z")
    (1700000000.0, 60.0)
    """
    try:
        number = float(time) if time is not None else float("nan")
    except ValueError:
        try:
            moment = datetime.fromisoformat(str(time).strip().removesuffix(" UTC"))
        except ValueError as error:
            raise BadMessage("bad-time", f"time {time!r} is no number and not ISO 8601") from error
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not abs(number) < float("inf"):
        raise BadMessage("bad-time", f"time is {time!r}; Unix seconds or ISO 8601 is needed")
    return number * next(unit for limit, unit in UNITS_S if abs(number) < limit)


def number(text: Number | None, name: str) -> float | None:
    """A number, or None for an empty cell.  Raises: BadMessage (bad-value)."""
    if text is None or text == "":
        return None
    try:
        return float(text)
    except ValueError as error:
        raise BadMessage("bad-value", f"{name} is {text!r}, not a number") from error


def needed(value: Number | None, name: str) -> str:
    """An id as text.  Raises: BadMessage (invalid) when there is none."""
    if value is None or value == "":
        raise BadMessage("invalid", f"the line has no {name}")
    return str(value)


def described(item_id: str, title: str | None, category: str | None) -> list[Item]:
    """An item as the line of an event describes it, or none when it does not."""
    tags = [category[:MAX_ID_LENGTH]] if category else []
    return [Item(item_id, title[:MAX_TEXT_LENGTH], tags=tags)] if title else []


def column_reader(
    header: str, known: Mapping[str, tuple[str, ...]], needs: tuple[str, ...]
) -> Callable[[str], dict[str, str]]:
    """From a CSV line to its cells by our names; `known` gives the columns' names in the file.

    Raises: DatasetError when a column in `needs` is missing.
    """
    separator = max("\t;,", key=header.count)
    columns = [name.strip().lower().partition(":")[0] for name in cells(header, separator)]
    places = {
        ours: columns.index(theirs)
        for ours, names in known.items()
        for theirs in reversed(names)
        if theirs in columns
    }
    if missing := [ours for ours in needs if ours not in places]:
        raise DatasetError(
            f"no column for {', '.join(missing)}; the header names {', '.join(columns)}, looked "
            f"for {', '.join(name for ours in missing for name in known[ours])}"
        )

    def read(line: str) -> dict[str, str]:
        row = cells(line, separator)
        if len(row) != len(columns):
            raise BadMessage(
                "invalid", f"the line has {len(row)} columns, the header {len(columns)}"
            )
        return {ours: row[place] for ours, place in places.items()}

    return read


def cells(line: str, separator: str) -> list[str]:
    """The cells of one CSV line.  Raises: BadMessage (malformed)."""
    try:
        return next(csv.reader([line], delimiter=separator, strict=True), [])
    except csv.Error as error:
        raise BadMessage("malformed", f"the line is not CSV: {error}") from error
