"""The one thread that owns profiles, catalogue and spaces.

Stores are read and written, and events applied, on this thread alone; so nothing needs a lock,
disk never blocks the event loop, and a swap of the space happens between two batches by
construction.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class StateThread:
    """Runs functions one after another."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="state")

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `work` on the thread and await its result."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: work(*args, **kwargs))

    def close(self) -> None:
        """Let the running function finish; drop what waits."""
        self._pool.shutdown(wait=True, cancel_futures=True)
