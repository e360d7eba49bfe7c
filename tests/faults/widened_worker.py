"""A quick worker in which a fetch outlasts a rebalance nearly every time, not once in a hundred.

    python -m tests.faults.widened_worker worker --instance a

A fetch that finds nothing lasts longer, and a moment passes between Faust's seek to the committed
offset and the flow's beginning: what is fetched in it is for nobody (`stream.chunks`).
"""

from __future__ import annotations

import asyncio
import sys

import stream.chunks
from stream.chunks import ChunkConsumer
from tests.faults.quick_worker import run

FETCH_S = 2.0
MOMENT_S = 0.6


def widen() -> None:
    """Make both longer."""
    stream.chunks.LOOK_AGAIN_S = FETCH_S
    perform_seek = ChunkConsumer.perform_seek

    async def and_wait(self: ChunkConsumer) -> None:
        await perform_seek(self)
        await asyncio.sleep(MOMENT_S)

    ChunkConsumer.perform_seek = and_wait  # type: ignore[method-assign,assignment]  # a stand-in


if __name__ == "__main__":
    widen()
    run(sys.argv[1:])
