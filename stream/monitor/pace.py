"""What time it is by the items: the newest one's own time, and how long ago it came.

So an hour passes in an hour where items are of now, alerts end though nothing more comes, and a
replay of the past is judged by the times of the past.
"""

from __future__ import annotations


class ItemClock:
    """Not safe for threads.

    >>> clock = ItemClock()
    >>> clock.saw(1_000.0, now_s=5.0); clock.saw(990.0, now_s=7.0)
    >>> clock.read(now_s=8.0)
    1003.0
    """

    def __init__(self) -> None:
        self._ahead_s: float | None = None

    def saw(self, at_s: float, now_s: float) -> None:
        """An item of that time came now; `now_s` is of any clock that goes evenly."""
        ahead_s = at_s - now_s
        self._ahead_s = ahead_s if self._ahead_s is None else max(self._ahead_s, ahead_s)

    def read(self, now_s: float) -> float | None:
        """The time by the items; None before the first."""
        return None if self._ahead_s is None else now_s + self._ahead_s
