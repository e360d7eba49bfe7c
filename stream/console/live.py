"""The last five minutes as a list of moments, and whoever follows them.

One task looks once a second, however many pages are open; each page gets what has been and then
each new moment.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

import msgspec

from stream.console.gauges import Figures, Gauges
from stream.console.signs import Quality, Signs

EVERY_S = 1.0
KEPT = 300


class Moment(msgspec.Struct, frozen=True):
    """What the page *Live* shows of one second; `serving`: the release that serves."""

    figures: Figures
    quality: list[Quality]
    serving: str | None = None


class Live:
    """Moments of the last minutes, oldest first.  `ended`: the process is about to stop."""

    def __init__(self, signs: Signs, serving: Callable[[], str | None] = lambda: None) -> None:
        self._signs = signs
        self._serving = serving
        self._moments: deque[Moment] = deque(maxlen=KEPT)
        self._count = 0
        self._changed = asyncio.Event()
        self.ended = False

    async def run(self, gauges: Gauges) -> None:
        """Look every second, for as long as the process lives."""
        while True:
            figures = await gauges.look(self._signs.causes())
            if figures is not None:
                self.add(Moment(figures, self._signs.quality(time.time()), self._serving()))
            await asyncio.sleep(EVERY_S)

    def add(self, moment: Moment) -> None:
        """Take a moment in and wake who follows."""
        self._moments.append(moment)
        self._count += 1
        self._wake()

    def end(self) -> None:
        """No more moments: whoever follows is let go."""
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        """All who wait hold this event; who comes next waits for another one."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def follow(self) -> AsyncIterator[list[Moment]]:
        """All that are kept, then each new one."""
        seen = self._count
        yield list(self._moments)
        while not self.ended:
            if self._count == seen:
                await self._changed.wait()
            new, seen = min(self._count - seen, len(self._moments)), self._count
            if new:
                yield list(self._moments)[-new:]
