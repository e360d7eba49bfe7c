"""Better restarted than stuck: ends the process when work is in flight and nothing moves.

A thread of its own, so that it also notices an event loop that is blocked.
"""

from __future__ import annotations

import os
import threading
import time

from profiles.logs import get_logger
from stream.delivery import Delivery

log = get_logger("stream.watchdog")


class Watchdog:
    """Looks every second; `close` ends it."""

    def __init__(self, delivery: Delivery, stall_after_s: float, exit_code: int) -> None:
        self._delivery = delivery
        self._stall_after_s = stall_after_s
        self._exit_code = exit_code
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()

    def _watch(self) -> None:
        while not self._closed.wait(1.0):
            idle_s = time.monotonic() - self._delivery.progress_at
            if self._delivery.in_flight and idle_s > self._stall_after_s:
                log.error("stalled, ending the process", seconds=round(idle_s, 1))
                os._exit(self._exit_code)
