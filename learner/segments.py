"""Events of a data set as the segments that training reads, without a replay buffer between.

For work that has the whole past at hand: tuning, and comparisons on a fixed split.  Ids are hashed
as everywhere; arrival is the order of the sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from learner.records import EVENT, to_segment
from learner.sampling import Segment
from profiles.errors import LearnerError
from profiles.events import Event, key64


def whole_segments(events: Iterable[Event], actions: Mapping[str, int]) -> list[Segment]:
    """One segment per user with all of the user's events, the first one included as a target.

    Args:
        actions: index of each action in the head's order (`ActionWeights.names`).
    Raises: LearnerError naming an action that has no weight.
    """
    users: dict[str, list[tuple[int, int, float, int, float, int]]] = {}
    for order, event in enumerate(events, start=1):
        action = actions.get(event.action)
        if action is None:
            raise LearnerError(
                f"action {event.action!r} of event {event.event_id!r} has no weight; add it to the "
                "setting `actions`"
            )
        row = (order, key64(event.item_id), event.ts, 0, event.value or 0.0, action)
        users.setdefault(event.user_id, []).append(row)
    return [to_segment(key64(user), 0, 0, np.array(rows, EVENT)) for user, rows in users.items()]
