"""Which releases the store may let go: all but the newest, and never one that is in use.

The learner alone removes releases, after it has announced one.  A store may be shared by several
deployments, each with its own `releases` topic: so a release is only removed if a notice on *our*
topic names it.  The notices stay: `driftline releases list` tells what there once was.
"""

from __future__ import annotations

from collections.abc import Sequence

from profiles.board import SERVED, ReleaseBoard
from profiles.errors import ReleaseError
from profiles.logs import get_logger
from profiles.registry import ReleaseStore

log = get_logger("learner.retention")

UNDER_WAY = ("candidate", "shadow", "canary")
ROLLBACKS = 2
"""Rollbacks, one after another, for which the releases are kept whatever their age."""


def in_use(board: ReleaseBoard) -> set[str]:
    """What serves or may come to serve: candidates on their way, and where rollbacks lead."""
    notices = board.all()
    served = [notice.release_id for notice in notices if notice.status in SERVED]
    under_way = [notice.release_id for notice in notices if notice.status in UNDER_WAY]
    return {*served[-1 - ROLLBACKS :], *under_way}


def superfluous(names: Sequence[str], board: ReleaseBoard, keep: int) -> list[str]:
    """Releases to remove, of those in the store (`names`, oldest first)."""
    ours = [name for name in names if board.get(name) is not None]
    used = in_use(board)
    return [name for name in ours[: max(len(ours) - keep, 0)] if name not in used]


def remove_old(store: ReleaseStore, board: ReleaseBoard, keep: int) -> None:
    """Remove what is superfluous, from the learner's cache too.  A store that fails is told of."""
    try:
        gone = superfluous(store.names(), board, keep)
        for name in gone:
            store.remove(name)
        store.forget_cached(in_use(board))
    except ReleaseError as error:
        log.warning("old releases not removed", error=str(error))
        return
    if gone:
        log.info("old releases removed", releases=len(gone), newest=gone[-1])
