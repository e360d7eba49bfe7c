"""When the next event of a replay is due, and how a replay is held or ended."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

__all__ = ["Gate", "Pace"]

Gate = Callable[[int], float | None]
"""Asked before every event with the number sent so far: seconds to wait and ask again, or None."""

STOP_POLL_S = 0.1
"""How long a stop can go unseen while we wait."""


class Pace:
    """Lets events through at `rate` a second, at `speedup` times their own pace, or at once.

    Time spent at the gate does not count as lateness: after a pause the flow goes on at its pace
    instead of catching up in one burst.
    """

    def __init__(
        self, speedup: float | None, rate: float | None, stop: threading.Event, gate: Gate | None
    ) -> None:
        self._speedup = speedup
        self._rate = rate
        self._stop = stop
        self._gate = gate
        self._started_s = time.monotonic()
        self._first_ts: float | None = None

    async def wait_for(self, ts: float, sent: int) -> bool:
        """Wait until the event of time `ts` may go; False when the replay is to stop instead."""
        if self._gate is not None:
            while not self._stop.is_set() and (pause_s := self._gate(sent)):
                held_from = time.monotonic()
                await self._sleep_until(held_from + pause_s)
                self._started_s += time.monotonic() - held_from
        if (due_s := self._due_s(ts, sent)) is not None:
            await self._sleep_until(due_s)
        return not self._stop.is_set()

    def _due_s(self, ts: float, sent: int) -> float | None:
        if self._rate is not None:
            return self._started_s + sent / self._rate
        if self._speedup is not None:
            if self._first_ts is None:
                self._first_ts = ts
            return self._started_s + (ts - self._first_ts) / self._speedup
        return None

    async def _sleep_until(self, due_s: float) -> None:
        left_s = due_s - time.monotonic()
        while left_s > 0 and not self._stop.is_set():
            await asyncio.sleep(min(left_s, STOP_POLL_S))
            left_s = due_s - time.monotonic()
