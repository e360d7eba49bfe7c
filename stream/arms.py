"""Two releases resident at once, and which of them serves whom.

While a candidate is a canary it serves a hash share of the users and the serving release all
others.  A user belongs to one arm: her profile, the item vectors and the head that meet in one
computation are always of that arm's release.  Whoever changes arm is rebuilt like anybody after a
swap, on her next event or by the sweep.  Without a canary there is one arm, with everybody in it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.applying import Applied, apply_batch
from profiles.catalog import Catalog, Rows
from profiles.judging import Batch
from profiles.rate_cap import RateCap
from profiles.rebuild import rebuild
from profiles.rollout import in_canary
from profiles.space import Space
from profiles.state import Records


@dataclass(frozen=True, slots=True)
class Canary:
    """A candidate's space and the part of the users that it serves."""

    space: Space
    share: float


@dataclass(frozen=True, slots=True)
class Arm:
    """One space, and who of a batch's users it serves.  Shapes: members (B,) over the users."""

    space: Space
    members: npt.NDArray[np.bool_]

    def among(self, rows: Rows) -> Rows:
        """Positions in `rows` whose user belongs to this arm."""
        return np.flatnonzero(self.members[rows])


def split(serving: Space, canary: Canary | None, users: Sequence[bytes]) -> list[Arm]:
    """The arms of a batch of users: one without a canary, else two, either of them maybe empty."""
    everybody = np.ones(len(users), dtype=np.bool_)
    if canary is None:
        return [Arm(serving, everybody)]
    chosen = in_canary(users, canary.space.release_id, canary.share)
    return [Arm(serving, ~chosen), Arm(canary.space, chosen)]


def apply_to_arms(
    records: Records,
    batch: Batch,
    arms: Sequence[Arm],
    catalog: Catalog,
    topic_key: int,
    prequential_share: float,
    cap: RateCap | None = None,
) -> list[Applied]:
    """`apply_batch` for each arm's events; positions in what comes back are those of `batch`."""
    if len(arms) == 1:
        space = arms[0].space
        return [apply_batch(records, batch, space, catalog, topic_key, prequential_share, cap)]
    found: list[Applied] = []
    for arm in arms:
        where = arm.among(batch.users)
        part = apply_batch(
            records, batch.take(where), arm.space, catalog, topic_key, prequential_share, cap
        )
        found.append(
            Applied(
                applied=where[part.applied],
                replayed=where[part.replayed],
                repeated=where[part.repeated],
                refused=where[part.refused],
                ranked=where[part.ranked],
                ranks=part.ranks,
            )
        )
    return found


def joined(parts: Sequence[Applied]) -> Applied:
    """What became of the whole batch; the events of one user keep their order."""
    if len(parts) == 1:
        return parts[0]
    return Applied(
        applied=np.concatenate([part.applied for part in parts]),
        replayed=np.concatenate([part.replayed for part in parts]),
        repeated=np.concatenate([part.repeated for part in parts]),
        refused=np.concatenate([part.refused for part in parts]),
        ranked=np.concatenate([part.ranked for part in parts]),
        ranks=np.concatenate([part.ranks for part in parts]),
    )


def stale(records: Records, arms: Sequence[Arm]) -> npt.NDArray[np.bool_]:
    """Which profiles are not of their arm's space.  Shapes: -> (B,)."""
    wrong = np.zeros(len(records), dtype=np.bool_)
    for arm in arms:
        wrong |= arm.members & (records["release"] != arm.space.key)
    return wrong


def rebuild_stale(
    records: Records, arms: Sequence[Arm], catalog: Catalog, rows: Rows | None = None
) -> None:
    """Rebuild profiles that are not of their arm's space, in place; `rows`: only among these."""
    for arm in arms:
        mine = np.flatnonzero(arm.members) if rows is None else rows[arm.among(rows)]
        rebuild(records, mine[records["release"][mine] != arm.space.key], arm.space, catalog)
