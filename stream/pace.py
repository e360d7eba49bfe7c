"""Who gives way to the rounds of events: the sweep, and the fetches for the next one.

After a swap the users that events touch are rebuilt at their first event, which makes events dearer
just then.  A sweep that went on beside them at its own speed took the rest of the core, and latency
grew severalfold until everybody was rebuilt.

A fetch costs most of a millisecond of the same core however little it brings, and what it brings
waits for the end of the round anyway.  Two hundred a second, of a dozen events each, took a sixth
of the core and part of the event loop from the rounds they were made for (decision 0060).
"""

from __future__ import annotations

import asyncio
import contextlib

HARDLY_S = 0.01
"""Events that wait this long for their round are kept waiting by somebody.  A small round at half
load takes about half of it, a slice of the sweep a third."""
AT_MOST_S = 0.25
"""A worker that is never at leisure sweeps all the same, a slice in so long."""
NO_ROUND_S = 0.1
"""Without a round for so long there is nothing that could wait.  Well below `AT_MOST_S`, which
would end the wait before that is seen: an idle worker would go on sweeping like a busy one."""
QUEUED_S = 0.005
"""Events that waited this long for their round queue: then fetches are worth gathering.  At a tenth
of the sustained rate they do not, and putting fetches off would cost what it saves."""
FETCH_AGAIN_S = 0.005
"""So long at most a fetch is put off: of a long round, several are ready when it ends."""


class Pace:
    """Told by the events, asked by the sweep and by who fetches, on the event loop."""

    def __init__(self) -> None:
        self._waited_s = 0.0
        self._round = asyncio.Event()
        self._rest = asyncio.Event()
        self._rest.set()

    def note_round(self, waited_s: float) -> None:
        """A round begins, whose first event came `waited_s` ago."""
        self._waited_s = waited_s
        self._round.set()
        self._rest.clear()

    def note_rest(self) -> None:
        """The round is over."""
        self._rest.set()

    async def fetch_again(self) -> None:
        """Return when no round is under way or events do not queue, or after `FETCH_AGAIN_S`."""
        if self._waited_s > QUEUED_S and not self._rest.is_set():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FETCH_AGAIN_S):
                    await self._rest.wait()

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
