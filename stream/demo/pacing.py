"""How fast the demo's events flow: evenly, and at a trickle near the end if learning is not done.

Releases must be swapped while events flow.  On a slow machine the last few per cent are therefore
stretched until every worker has made two swaps, or until patience ends.
"""

from __future__ import annotations

import time
from collections.abc import Callable

HOLD_FROM = 0.97
"""Share of the events after which the flow waits for learning."""
TRICKLE_PER_S = 10.0
POLL_S = 0.1


class DemoGate:
    """A `stream.pacing.Gate`.  `sent` is the number of events let through so far.

    `is_learned` says whether the wanted swaps have happened; after `patience_s`, counted from
    the start, nothing is waited for any more.
    """

    def __init__(
        self,
        total: int,
        patience_s: float,
        is_learned: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sent = 0
        self._hold_from = int(total * HOLD_FROM)
        self._is_learned = is_learned
        self._clock = clock
        self._patient_until_s = clock() + patience_s
        self._last_s = 0.0

    @property
    def is_holding(self) -> bool:
        """Whether the flow is a trickle now."""
        return self.sent >= self._hold_from and not self._may_flow()

    def __call__(self, sent: int) -> float | None:
        self.sent = sent
        if sent < self._hold_from or self._may_flow():
            return None
        now_s = self._clock()
        if now_s - self._last_s >= 1.0 / TRICKLE_PER_S:
            self._last_s = now_s
            return None
        return POLL_S

    def _may_flow(self) -> bool:
        return self._is_learned() or self._clock() >= self._patient_until_s
