"""How fast the sweep may go: it takes the state thread's time while events hardly wait for it.

After a swap the users that events touch are rebuilt at their first event, which makes events dearer
just then.  A sweep that went on beside them at its own speed took the rest of the core, and latency
grew severalfold until everybody was rebuilt.
"""

from __future__ import annotations

import asyncio
import contextlib

HARDLY_S = 0.01
"""Events that wait this long for their round are kept waiting by somebody.  A round at half load
takes about half of it, a slice of the sweep too."""
AT_MOST_S = 1.0
"""A worker that is never at leisure sweeps all the same, a slice at a time."""
NO_ROUND_S = 0.25
"""Without a round for so long there is nothing that could wait."""


class Pace:
    """Told by the events, asked by the sweep, on the event loop."""

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._round = asyncio.Event()

    def note_round(self, waited_s: float) -> None:
        """A round begins, whose first event came `waited_s` ago."""
        self._waited_s = waited_s
        self._round.set()

    async def leisure(self) -> None:
        """Return once events hardly wait, or after `AT_MOST_S`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(AT_MOST_S):
                while self._waited_s > HARDLY_S:
                    await self._next_round()

    async def _next_round(self) -> None:
        self._round.clear()
        try:
            async with asyncio.timeout(NO_ROUND_S):
                await self._round.wait()
        except TimeoutError:
            self._waited_s = 0.0
