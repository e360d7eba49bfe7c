"""The end of a round in the buffer: which fresh events become examples, and which exams."""

from __future__ import annotations

import msgspec
import numpy as np

from learner.records import Events, UserHistory


def is_exam_user(user: int) -> bool:
    """Half of the users sit exams: their held-out events are never trained on."""
    return (user >> 17) & 1 == 1


class Graduation(msgspec.Struct):
    """Work that a kill may interrupt; saved with every slice of it that is done.

    Events with arrival numbers from `start` to before `upto` stop being fresh.  From the border
    (`border_ts`, `border_order`) on, those of exam users go to the exams of `period`.  `cursor`:
    users whose last event came before it are done.
    """

    start: int
    upto: int
    cursor: int
    border_ts: float
    border_order: int
    period: int

    def parts(self, user: int, history: UserHistory) -> tuple[Events, int, int]:
        """(events, first, cut): events[first:cut] become examples, events[cut:] exams."""
        events = history.events[history.events["order"] < self.upto]
        first = int(np.searchsorted(events["order"], self.start))
        later = events["ts"] > self.border_ts
        level = (events["ts"] == self.border_ts) & (events["order"] >= self.border_order)
        held = (later | level)[first:]
        cut = len(events)
        if is_exam_user(user) and held.any():
            cut = first + int(np.argmax(held))
        return events, first, cut
