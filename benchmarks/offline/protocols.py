"""Three ways to part a data set: what may be learned from, and which events are then ranked.

    leave-one-out   fit on all but each user's last two events; the last but one is the
                    validation part, the last one the test
    global-time     fit on the first 90% of all events, weights frozen; the rest is ranked, and each
                    event joins its user's history after it was ranked ("successive"); validation
                    is the same inside the first 90%
    prequential     fit on the first 60%; then 8 equal blocks: rank a block's events one after the
                    other, then fit anew on everything so far; validation is the last fifth of
                    the base

In all of them an event is ranked against the whole catalogue, all items of it whether or not
anyone touched them yet, less what the user had before; its history is every earlier event of
that user, also one after the fit.  An event that repeats an item of its user cannot be
recommended then and is not asked about; it still joins the history.  Any event is something to
predict, a rating of one star as well (the convention of the published figures).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from benchmarks.offline.histories import Bools, Histories, Ints, first_times

VALIDATION_SHARE = 0.1
"""Of the part before a time split."""
BASE_SHARE = 0.6
BASE_VALIDATION_SHARE = 0.2
BLOCKS = 8
LEAST_EVENTS = 3
"""Leave-one-out takes users apart from this many events on; others are only learned from."""


@dataclass(frozen=True, slots=True)
class Stage:
    """One fit and what is ranked with it.  Shapes: fit (F,), asked (Q,) rows, ascending."""

    fit: Ints
    asked: Ints


@dataclass(frozen=True, slots=True)
class Split:
    """A protocol on a data set: the stage that every search uses, and those of the test."""

    protocol: str
    validation: Stage
    stages: tuple[Stage, ...]

    def asked(self) -> Ints:
        """All tested rows, stage after stage."""
        return np.concatenate([stage.asked for stage in self.stages])


def leave_one_out(users: Ints, items: Ints) -> Split:
    """The last event of every user is the test, the last but one the validation."""
    place = Histories(users).place
    from_end = np.bincount(users)[users] - 1 - place
    taken = from_end + place + 1 >= LEAST_EVENTS
    new = first_times(users, items)
    fit = np.flatnonzero(~taken | (from_end >= 2))
    return Split(
        "leave-one-out",
        Stage(fit, np.flatnonzero(taken & new & (from_end == 1))),
        (Stage(fit, np.flatnonzero(taken & new & (from_end == 0))),),
    )


def global_time(users: Ints, items: Ints, q: float = 0.9) -> Split:
    """The events after the `q` quantile of all events, in time, are the test."""
    new = first_times(users, items)
    border = int(len(users) * q)
    inner = int(border * (1.0 - VALIDATION_SHARE))
    return Split("global-time", _stage(new, inner, border), (_stage(new, border, len(users)),))


def prequential(users: Ints, items: Ints, blocks: int = BLOCKS) -> Split:
    """The first 60% are the base; the rest is ranked in equal blocks, each fit on all before it."""
    new = first_times(users, items)
    base = int(len(users) * BASE_SHARE)
    borders = np.linspace(base, len(users), blocks + 1).round().astype(int).tolist()
    inner = int(base * (1.0 - BASE_VALIDATION_SHARE))
    return Split(
        "prequential",
        _stage(new, inner, base),
        tuple(_stage(new, begin, end) for begin, end in itertools.pairwise(borders)),
    )


def _stage(new: Bools, begin: int, end: int) -> Stage:
    asked = np.arange(begin, end)
    return Stage(np.arange(begin), asked[new[begin:end]])


PROTOCOLS = {
    "leave-one-out": leave_one_out,
    "global-time": global_time,
    "prequential": prequential,
}
