"""Orders of people as a worker obeys them: between two batches, and before it serves at all.

A blocked item is no candidate: the catalogue's `available` leaves it out, which every ranking
starts from (events, requests, exploration, users without a profile, any release).  Events of it
still move profiles.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from profiles.catalog import Catalog
from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.policies import PolicyBoard
from stream.broadcast import Broadcast
from stream.chunks import Chunk, ChunkApp
from stream.state_thread import StateThread

log = get_logger("stream.policies")


class PolicyFeed:
    """Follows the policies topic for one worker."""

    def __init__(
        self, catalog: Catalog, broadcast: Broadcast, state: StateThread, metrics: WorkerMetrics
    ) -> None:
        self._catalog, self._broadcast = catalog, broadcast
        self._state, self._metrics = state, metrics
        self._board = PolicyBoard()

    def follow(self, app: ChunkApp, fail: Callable[[BaseException], None]) -> None:
        """Declare the agent on the app; `fail` is told what it cannot go on with."""

        async def run_policies(stream: Any) -> None:  # Any: Faust types streams by codec
            async for chunk in stream:
                try:
                    await self.take(chunk)
                except Exception as error:
                    fail(error)
                    raise

        app.agent(self._broadcast.channel, name="policies")(run_policies)

    async def take(self, chunk: Chunk) -> None:
        """Obey a chunk of orders."""
        for record in chunk.records:
            self._board.put_payload(record.key, record.value)
        items, tags = self._board.items, self._board.tags
        blocked = await self._state.run(self._catalog.block, items, tags)
        self._metrics.items_blocked.set(blocked)
        log.info("orders obeyed", items=len(items), tags=len(tags), blocked=blocked)
        self._broadcast.handled(chunk)

    async def read_all(self) -> None:
        """Return once everything that stands in the topic now is obeyed."""
        await self._broadcast.caught_up()
