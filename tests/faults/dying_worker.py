"""A worker that ends itself by SIGKILL at a named point, or stands still there for ever.

    python -m tests.faults.dying_worker POINT NTH worker --instance a

The product knows nothing of it: this entry point wraps one method of each part before it starts
the command line of a quick worker.  `NTH` counts how often the point must have been passed before.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from profiles.store import PartitionStore
from profiles.topics import Topics
from stream.chunks import ChunkConsumer
from stream.delivery import Delivery
from stream.publisher import Publisher
from tests.faults.quick_worker import run

POINTS = (
    "before the write",
    "after the write",
    "after the changelog",
    "before the acknowledgement",
    "before the commit",
    "after the commit",
)
STALL = "never acknowledged"


class Fuse:
    """Burns down one pass at a time."""

    def __init__(self, nth: int) -> None:
        self._left = nth

    def burn(self) -> None:
        """The process ends here when enough passes are behind it."""
        self._left -= 1
        if self._left < 0:
            os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, nth: int) -> None:
    """Wrap what the point is about."""
    fuse = Fuse(nth)
    if point in ("before the write", "after the write"):
        _around_write(fuse, point.startswith("before"))
    elif point in ("before the commit", "after the commit"):
        _around_commit(fuse, point.startswith("before"))
    elif point == "after the changelog":
        _after_changelog(fuse)
    elif point == "before the acknowledgement":
        _before_acknowledgement(fuse)
    elif point == STALL:
        _never_acknowledged()
    else:
        raise SystemExit(f"no point {point!r}; there are {POINTS} and {STALL!r}")


# Any, below: what is wrapped keeps its own signature.


def _around_write(fuse: Fuse, is_before: bool) -> None:
    write: Callable[..., None] = PartitionStore.write

    def dying(self: PartitionStore, *arguments: Any) -> None:
        if is_before:
            fuse.burn()
        write(self, *arguments)
        if not is_before:
            fuse.burn()

    _put(PartitionStore, "write", dying)


def _around_commit(fuse: Fuse, is_before: bool) -> None:
    commit: Callable[..., Any] = ChunkConsumer._commit

    async def dying(self: ChunkConsumer, offsets: Any) -> Any:
        if is_before:
            fuse.burn()
        done = await commit(self, offsets)
        if not is_before:
            fuse.burn()
        return done

    _put(ChunkConsumer, "_commit", dying)


def _after_changelog(fuse: Fuse) -> None:
    pass_on: Callable[..., Any] = Publisher._pass_on
    changelog = Topics.under("").profiles

    async def dying(self: Publisher, batch: Any, topic: str, partition: int) -> Any:
        done = await pass_on(self, batch, topic, partition)
        if topic.endswith(changelog):
            fuse.burn()
        return done

    _put(Publisher, "_pass_on", dying)


def _before_acknowledgement(fuse: Fuse) -> None:
    note: Callable[..., None] = Delivery._note_changelog

    def dying(self: Delivery, *arguments: Any) -> None:
        fuse.burn()
        note(self, *arguments)

    _put(Delivery, "_note_changelog", dying)


def _never_acknowledged() -> None:
    async def waiting(self: Publisher, batch: Any, topic: str, partition: int) -> Any:
        await asyncio.Event().wait()

    _put(Publisher, "_pass_on", waiting)


def _put(owner: type, name: str, method: Callable[..., Any]) -> None:
    setattr(owner, name, method)


def main() -> None:
    """Arm, then be an ordinary `driftline`."""
    point, nth, *words = sys.argv[1:]
    arm(point, int(nth))
    run(words)


if __name__ == "__main__":
    main()
