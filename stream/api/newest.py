"""A mapping of bounded size that keeps what was written last."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Newest(Generic[Key, Value]):
    """At most `size` entries; a new one beyond that pushes out the one written longest ago.

    >>> newest = Newest[str, int](2)
    >>> for key, value in [("a", 1), ("b", 2), ("a", 3), ("c", 4)]:
    ...     newest.put(key, value)
    >>> newest.get("a"), newest.get("b"), len(newest)
    (3, None, 2)
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._entries: OrderedDict[Key, Value] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, key: Key, value: Value) -> None:
        """Write an entry."""
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._size:
            self._entries.popitem(last=False)

    def get(self, key: Key) -> Value | None:
        """Read an entry, which does not make it newer."""
        return self._entries.get(key)

    def drop(self, key: Key) -> None:
        """Forget an entry, if there is one."""
        self._entries.pop(key, None)

    def newest_first(self, count: int) -> list[Key]:
        """The keys written last."""
        keys = reversed(self._entries)
        return [key for key, _ in zip(keys, range(count), strict=False)]
