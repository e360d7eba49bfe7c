"""The form every data set is brought into: items, users, and events in time order.

Events stay in numpy columns (about 30 bytes each, so MovieLens-20M fits in 0.7 GB) and become
`Event` values only when somebody looks at them.  The order is by time; equal timestamps keep the
order of the file, without which published results have moved by a quarter of the test set.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiles.errors import DatasetError
from profiles.events import Event
from profiles.items import Item, User
from profiles.wire import MAX_ID_LENGTH, Scalar


@dataclass(frozen=True, slots=True)
class Codes:
    """A column of texts, each distinct one held once.  `code` -1 stands for none.

    Shapes: code (N,), int32.
    """

    code: npt.NDArray[np.int32]
    texts: tuple[str, ...]

    # Any: pandas' own stubs take a wider type than its `Series` states.
    @classmethod
    def of(cls, column: Any) -> Codes:
        """Encode anything that pandas can factorize; empty cells become -1."""
        code, distinct = pd.factorize(column)
        return cls(code.astype(np.int32), tuple(str(text) for text in distinct))

    @classmethod
    def constant(cls, text: str, rows: int) -> Codes:
        """The same text in every row."""
        return cls(np.zeros(rows, np.int32), (text,))

    def take(self, order: npt.NDArray[np.int64]) -> Codes:
        """The rows named by `order`.  Shapes: order (M,) -> (M,)."""
        return Codes(self.code[order], self.texts)

    def counts(self) -> dict[str, int]:
        """How often each text occurs.

        >>> Codes.of(np.array(["view", "like", "view"])).counts()
        {'view': 2, 'like': 1}
        """
        counted = np.bincount(self.code[self.code >= 0], minlength=len(self.texts))
        return dict(zip(self.texts, counted.tolist(), strict=True))

    def at(self, row: int) -> str | None:
        """The text of one row."""
        code = int(self.code[row])
        return None if code < 0 else self.texts[code]


@dataclass(frozen=True, slots=True)
class EventTable(Sequence[Event]):
    """Events in columns, read as a sequence of `Event`.

    `lines` are the rows' numbers in their file, from which the event ids `<prefix>-<line>` are
    made, unless the file has ids of its own (`ids`).  `values` is NaN where there is none.
    """

    prefix: str
    lines: npt.NDArray[np.int64]
    users: Codes
    items: Codes
    actions: Codes
    ts: npt.NDArray[np.float64]
    values: npt.NDArray[np.float64]
    sessions: Codes | None = None
    ids: Codes | None = None
    context: dict[str, Scalar] | None = None

    def __len__(self) -> int:
        return len(self.ts)

    @overload
    def __getitem__(self, index: int) -> Event: ...
    @overload
    def __getitem__(self, index: slice) -> EventTable: ...
    def __getitem__(self, index: int | slice) -> Event | EventTable:
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        row = range(len(self))[index]
        return next(iter(self.take(np.array([row]))))

    def __iter__(self) -> Iterator[Event]:
        # Lists: a numpy scalar costs ten times as much as a Python one, and breaks the encoder.
        users, items, actions = self.users.texts, self.items.texts, self.actions.texts
        rows = zip(
            self.users.code.tolist(),
            self.items.code.tolist(),
            self.actions.code.tolist(),
            self.ts.tolist(),
            self.values.tolist(),
            self.lines.tolist(),
            strict=True,
        )
        sessions, ids = self.sessions, self.ids
        for row, (user, item, action, ts, value, line) in enumerate(rows):
            yield Event(
                event_id=(ids and ids.at(row)) or f"{self.prefix}-{line}",
                user_id=users[user],
                item_id=items[item],
                action=actions[action],
                ts=ts,
                value=None if value != value else value,
                session_id=sessions.at(row) if sessions else None,
                context=self.context,
            )

    def take(self, order: npt.NDArray[np.int64]) -> EventTable:
        """The rows named by `order`, in that order."""
        return EventTable(
            prefix=self.prefix,
            lines=self.lines[order],
            users=self.users.take(order),
            items=self.items.take(order),
            actions=self.actions.take(order),
            ts=self.ts[order],
            values=self.values[order],
            sessions=self.sessions.take(order) if self.sessions else None,
            ids=self.ids.take(order) if self.ids else None,
            context=self.context,
        )

    def in_time_order(self) -> EventTable:
        """Sorted by time; equal timestamps keep the order of the file."""
        return self.take(np.argsort(self.ts, kind="stable"))

    def checked(self, source: str) -> EventTable:
        """This table, if every row can become a message.

        Raises: DatasetError naming the column and the first bad line.
        """
        for name, codes in (("user", self.users), ("item", self.items), ("action", self.actions)):
            missing = np.flatnonzero(codes.code < 0)
            if len(missing):
                raise DatasetError(
                    f"{source}: {len(missing)} rows have no {name} "
                    f"(the first is line {self.lines[missing[0]]}); remove or complete them"
                )
            for text in codes.texts:
                if not 0 < len(text) <= MAX_ID_LENGTH or "\x00" in text:
                    raise DatasetError(
                        f"{source}: {name} id {text[:40]!r} is not 1 to {MAX_ID_LENGTH} characters "
                        "without NUL; shorten or hash the ids"
                    )
        bad = np.flatnonzero(~np.isfinite(self.ts) | (self.ts < 0))
        if len(bad):
            raise DatasetError(
                f"{source}: {len(bad)} rows have no usable time (the first is line "
                f"{self.lines[bad[0]]}); Unix seconds, milliseconds, microseconds or ISO 8601"
            )
        return self


@dataclass(frozen=True, slots=True)
class Dataset:
    """A data set, ready to be replayed.  `synthetic` marks one that a program made up."""

    name: str
    items: list[Item]
    events: Sequence[Event]
    users: list[User] = field(default_factory=list)
    synthetic: bool = False
    source: str = ""

    def describe(self) -> str:
        """One line for people.

        >>> Dataset("empty", [], []).describe()
        'empty: 0 items, 0 events, 0 declared users'
        """
        made_up = " (synthetic)" if self.synthetic else ""
        return (
            f"{self.name}{made_up}: {len(self.items)} items, {len(self.events)} events, "
            f"{len(self.users)} declared users"
        )
