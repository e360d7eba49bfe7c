"""A data set as a stream to be learned from: a base, then equal blocks, all in time order.

Period 0 is the base, periods 1 to B are the blocks.  A share of each period's events is *held*:
workers see and apply them, but the learner never does; they are what the matrix R is measured on.
Everything else follows the product: ids are hashed, actions numbered, as its feeds do it.

MovieLens users come in bursts: most of a block's events belong to people who were not there
before it.  That is what makes the groups (new, returning) worth looking at apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.offline.histories import Bools, Ints, first_times
from benchmarks.offline.interactions import Interactions
from learner.catalogue import Catalogue, make_catalogue
from learner.records import Row
from learner.sampling import ActionWeights
from profiles.config import Settings
from profiles.evaluation import UserSequence
from profiles.release import Keys
from profiles.wire import key64

RETURN_GAP_S = 7 * 86_400.0
"""A user who was silent for so long has come back."""
COLD_EVENTS = 5
"""An item with fewer events than this before the block is cold."""


@dataclass(frozen=True, slots=True)
class Timeline:
    """N events in time order, and the catalogue that they are about.

    Shapes: all (N,).  periods: 0 for the base, then 1 to B; held: events that no learner sees;
    items: row of the learner's catalogue; actions: number in the settings' order; user_keys:
    `key64`.
    """

    data: Interactions
    catalogue: Catalogue
    periods: Ints
    held: Bools
    items: Ints
    actions: Ints
    user_keys: Keys

    @property
    def blocks(self) -> int:
        """B, the number of blocks after the base."""
        return int(self.periods.max())

    def asked(self) -> Bools:
        """Events that can be recommended: not a repetition of the user's.  Shapes: -> (N,)."""
        return first_times(self.data.users, self.data.items)

    def counted(self) -> Ints:
        """Item of each event as a trend counts them: a user's first with it, -1 for the others."""
        return np.where(self.asked(), self.items, -1)

    def rows(self, period: int) -> list[Row]:
        """What the learner reads of one period, as if from partition 0, offsets from 0."""
        values = np.nan_to_num(self.data.values)
        return [
            Row(
                partition=0,
                offset=int(at),
                user=int(self.user_keys[at]),
                item=int(self.catalogue.keys[self.items[at]]),
                action=int(self.actions[at]),
                value=float(values[at]),
                ts=float(self.data.ts[at]),
                event_id=int(at) + 1,
            )
            for at in np.flatnonzero((self.periods == period) & ~self.held)
        ]

    def by_user(self) -> list[Ints]:
        """Each user's events, oldest first."""
        users = self.data.users
        order = np.argsort(users, kind="stable")
        ends = np.cumsum(np.bincount(users))[:-1]
        return [part for part in np.split(order, ends) if len(part)]

    def sequence(self, events: Ints) -> UserSequence:
        """Some events of one user, as `profiles.evaluation` walks them."""
        return UserSequence(
            self.items[events],
            self.actions[events],
            np.nan_to_num(self.data.values[events]),
            self.data.ts[events],
        )


def make_timeline(
    data: Interactions,
    settings: Settings,
    *,
    borders: Sequence[int],
    held_share: float,
    seed: int,
) -> Timeline:
    """Cut at `borders`: the end of the base, then of each block; events after them are left out.

    Of each block `held_share` is held, and of the base about as many events as of a block.
    """
    end, base = borders[-1], borders[0]
    data = data if end == len(data) else data.take(np.arange(end))
    names = ActionWeights.from_settings(settings.actions).names
    catalogue = make_catalogue(data.catalogue)
    periods = np.searchsorted(np.array(borders), np.arange(end), side="right")
    block = (end - base) / (len(borders) - 1)
    shares = np.where(periods == 0, held_share * min(block / base, 1.0), held_share)
    item_keys = np.array([key64(item.item_id) for item in data.catalogue], np.uint64)
    user_keys = np.array([key64(user) for user in data.user_ids], np.uint64)
    numbers = np.array([names.index(name) for name in data.action_names], np.int64)
    return Timeline(
        data=data,
        catalogue=catalogue,
        periods=periods.astype(np.int64),
        held=np.random.default_rng([seed, 61]).random(end) < shares,
        items=catalogue.rows(item_keys)[data.items],
        actions=numbers[data.actions],
        user_keys=user_keys[data.users],
    )


def make_groups(timeline: Timeline) -> dict[str, Bools]:
    """Each event's groups, told from what came before it; in the base nothing is told apart.

    new_users: the user's first event lies in the same block; returning_users: others who came
    back after `RETURN_GAP_S` within this block; cold_items: the item had fewer than `COLD_EVENTS`
    events before the block.  Shapes: (N,) each.
    """
    data, periods = timeline.data, timeline.periods
    new, returning, cold = (np.zeros(len(data), np.bool_) for _ in range(3))
    for events in timeline.by_user():
        mine = periods[events]
        new[events] = mine == mine[0]
        back = np.r_[False, np.diff(data.ts[events]) > RETURN_GAP_S]
        for period in np.unique(mine[back]):
            since = int(np.flatnonzero(back & (mine == period))[0])
            returning[events[since:][mine[since:] == period]] = True
    counts = np.zeros(len(data.catalogue), np.int64)
    for period in range(timeline.blocks + 1):
        now = periods == period
        cold[now] = counts[data.items[now]] < COLD_EVENTS
        counts += np.bincount(data.items[now], minlength=len(counts))
    tested = periods > 0
    return {
        "new_users": new & tested,
        "returning_users": returning & tested & ~new,
        "cold_items": cold & tested,
    }
