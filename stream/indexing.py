"""Indexes of candidates, built beside whatever serves.

A space of more than `serving.exact_items` items gets its cells (`profiles.cells`) before it serves,
and new ones when so many items came later that looking at each of them costs more than it saves.
The k-means runs in a thread of its own and lets go of the interpreter in its matrix products; only
its two ends, noting what to index and putting the result in place, run on the state thread.
"""

from __future__ import annotations

import asyncio
import time

from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.space import Space
from stream.event_path import EventPath
from stream.state_thread import StateThread

log = get_logger("stream.indexing")

LOOK_EVERY_S = 2.0
REBUILD_SHARE = 0.25
"""Of `exact_items`: so many rows outside the cells call for new ones."""


class Indexer:
    """Builds indexes, one at a time."""

    def __init__(
        self, path: EventPath, state: StateThread, metrics: WorkerMetrics, exact_items: int
    ) -> None:
        self._path = path
        self._state = state
        self._metrics = metrics
        self._exact_items = exact_items
        self._turn = asyncio.Lock()

    def is_due(self, space: Space) -> bool:
        """Whether a space needs an index, or another one."""
        if len(space.known) <= self._exact_items:
            return False
        bound = self._exact_items if space.cells is None else REBUILD_SHARE * self._exact_items
        return space.uncovered() > bound

    async def index(self, space: Space) -> None:
        """Build what is due.  Returns when the space ranks through it."""
        async with self._turn:
            if not await self._state.run(self.is_due, space):
                return
            started = time.perf_counter()
            build = await self._state.run(space.begin_index)
            cells = await asyncio.to_thread(build)
            await self._state.run(space.finish_index, cells)
            seconds = time.perf_counter() - started
            self._metrics.index_seconds.observe(seconds)
            log.info(
                "candidates indexed",
                release=space.release_id,
                items=len(space.known),
                cells=len(cells),
                seconds=round(seconds, 2),
            )

    async def run(self) -> None:
        """Keep the indexes of whatever serves fit for the catalogue as it grows."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            for space in self._path.resident:
                await self.index(space)
