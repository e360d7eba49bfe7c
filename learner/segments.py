"""Events of a data set as the segments that training reads, without a replay buffer between.

For work that has the whole past at hand: tuning, and comparisons on a fixed split.  Ids are hashed
as everywhere; arrival is the order of the sequence.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from learner.records import EVENT, Row, to_segment
from learner.sampling import Segment
from profiles.errors import LearnerError
from profiles.events import Event
from profiles.wire import key64


def segments_of_rows(rows: Iterable[Row]) -> list[Segment]:
    """One segment per user with all of the user's events, the first one included as a target."""
    users: dict[int, list[tuple[int, int, float, int, float, int]]] = {}
    for order, row in enumerate(rows, start=1):
        event = (order, row.item, row.ts, row.event_id, row.value, row.action)
        users.setdefault(row.user, []).append(event)
    return [to_segment(user, 0, 0, np.array(events, EVENT)) for user, events in users.items()]


def whole_segments(events: Iterable[Event], actions: Mapping[str, int]) -> list[Segment]:
    """`segments_of_rows` of events that are not hashed yet.

    Args:
        actions: index of each action in the head's order (`ActionWeights.names`).
    Raises: LearnerError naming an action that has no weight.
    """
    return segments_of_rows(_rows(events, actions))


def _rows(events: Iterable[Event], actions: Mapping[str, int]) -> Iterator[Row]:
    for number, event in enumerate(events):
        action = actions.get(event.action)
        if action is None:
            raise LearnerError(
                f"action {event.action!r} of event {event.event_id!r} has no weight; add it to the "
                "setting `actions`"
            )
        user, item, event_id = map(key64, (event.user_id, event.item_id, event.event_id))
        yield Row(0, number, user, item, action, event.value or 0.0, event.ts, event_id)
