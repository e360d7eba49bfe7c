"""How releases do live, told to the learner: sums of ranked events, every few seconds.

What could not be sent when a worker dies is lost: the learner's tests need no event in particular.
A canary that this worker does not serve is told in the same way, as long as it is one.
"""

from __future__ import annotations

import asyncio
import time

from profiles.metrics import WorkerMetrics
from profiles.notices import OutcomeWindow
from profiles.settings.learning import RolloutSettings
from profiles.wire import encode
from stream.event_path import EventPath
from stream.publisher import Message, Publisher, Sent
from stream.release_feed import ReleaseFeed
from stream.state_thread import StateThread


class Reporting:
    """Takes the sums away from the event path and sends them."""

    def __init__(
        self,
        path: EventPath,
        releases: ReleaseFeed,
        publisher: Publisher,
        state: StateThread,
        metrics: WorkerMetrics,
        topic: str,
        worker: str,
        settings: RolloutSettings,
    ) -> None:
        self._path, self._releases, self._publisher = path, releases, publisher
        self._state, self._metrics = state, metrics
        self._topic, self._worker, self._every_s = topic, worker, settings.window_s

    async def run(self) -> None:
        """Report for as long as the worker lives."""
        began_s = time.time()
        while True:
            await asyncio.sleep(self._every_s)
            began_s = await self.report(began_s)

    async def report(self, began_s: float) -> float:
        """Send what has been gathered since `began_s`.  Returns: up to when that was."""
        sums = await self._state.run(self._path.tally.take_outcomes)
        ended_s = time.time()
        windows = [
            OutcomeWindow(name, self._worker, began_s, ended_s, found.messages())
            for name, found in sums.items()
        ] + [
            OutcomeWindow(name, self._worker, began_s, ended_s, refusal=reason)
            for name, reason in self._releases.refused_canaries().items()
        ]
        if windows:
            sent = Sent()
            messages = [Message(window.release_id.encode(), encode(window)) for window in windows]
            await self._publisher.send(sent, self._topic, 0, messages)
            await sent.acknowledged()
            self._metrics.outcome_windows.inc(len(windows))
        return ended_s
