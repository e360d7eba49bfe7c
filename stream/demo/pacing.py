"""How fast the demo's events flow: evenly, and at a trickle near the end if learning is not done.

Releases must be swapped while events flow.  On a slow machine the last few per cent are therefore
stretched until every worker has made two swaps, or until patience ends: so thinly that they last
as long as the patience does.
"""

from __future__ import annotations

import time
from collections.abc import Callable

HOLD_FROM = 0.97
"""Share of the events after which the flow waits for learning."""
POLL_S = 0.1


class DemoGate:
    """A `stream.pacing.Gate`.  `sent` is the number of events let through so far.

    `is_learned` says whether the wanted swaps have happened; `patience_s` after the first time it
    had to wait, nothing is waited for any more.
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
        self._apart_s = patience_s / max(1, total - self._hold_from)
        self._patience_s = patience_s
        self._is_learned = is_learned
        self._clock = clock
        self._patient_until_s: float | None = None
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
        if self._patient_until_s is None:
            self._patient_until_s = now_s + self._patience_s
        left_s = self._last_s + self._apart_s - now_s
        if left_s > 0:
            return min(left_s, POLL_S)
        self._last_s = now_s
        return None

    def _may_flow(self) -> bool:
        ends_s = self._patient_until_s
        return self._is_learned() or (ends_s is not None and self._clock() >= ends_s)
