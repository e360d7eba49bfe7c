"""The bytes of the replay buffer: one event, one user's history, one example."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learner.sampling import Segment

EVENT = np.dtype(
    [
        ("order", "<i8"),
        ("item", "<u8"),
        ("ts", "<f8"),
        ("event_id", "<u8"),
        ("value", "<f4"),
        ("action", "u1"),
    ]
)
"""One event: arrival number, item key, Unix seconds, hashed event id, value, action index."""

Events = npt.NDArray[np.void]
HISTORY_HEAD = struct.Struct("<Qqq")
EXAMPLE_HEAD = struct.Struct("<QQHH")
"""User, events skipped, first target, period."""


@dataclass(frozen=True, slots=True)
class Row:
    """One event read from Kafka, ids already hashed (`key64`)."""

    partition: int
    offset: int
    user: int
    item: int
    action: int
    value: float
    ts: float
    event_id: int


@dataclass(frozen=True, slots=True)
class UserHistory:
    """A user's most recent events.

    `total` counts all ever ingested, `first_order` is the arrival number of the first one and
    `last_order` of the last.
    """

    total: int
    first_order: int
    last_order: int
    events: Events

    def to_bytes(self) -> bytes:
        head = HISTORY_HEAD.pack(self.total, self.first_order, self.last_order)
        return head + self.events.tobytes()

    @classmethod
    def from_bytes(cls, payload: bytes) -> UserHistory:
        total, first, last = HISTORY_HEAD.unpack_from(payload)
        return cls(total, first, last, np.frombuffer(payload, EVENT, offset=HISTORY_HEAD.size))

    @property
    def size_bytes(self) -> int:
        """Bytes that `to_bytes` gives."""
        return HISTORY_HEAD.size + self.events.nbytes

    def skipped(self) -> int:
        """Events of the user that are older than those held."""
        return self.total - len(self.events)


def to_segment(user: int, skipped: int, first_target: int, events: Events) -> Segment:
    """Events as the sampler reads them: by time, equal times in order of arrival.

    A late event may move a target before context; the border is then the first target's place.
    """
    by_time = np.argsort(events["ts"], kind="stable")
    ordered = events[by_time]
    targets = np.flatnonzero(by_time >= first_target)
    first = int(targets[0]) if len(targets) else len(ordered)
    return Segment(
        user=user,
        skipped=skipped,
        first_target=first,
        items=ordered["item"].astype(np.uint64),
        ts=ordered["ts"].astype(np.float64),
        actions=ordered["action"].astype(np.int64),
        values=ordered["value"].astype(np.float32),
        orders=ordered["order"].astype(np.int64),
    )


def example_to_bytes(
    user: int, skipped: int, first_target: int, period: int, events: Events
) -> bytes:
    """One example of a reservoir; begins with the user's pseudonym."""
    return EXAMPLE_HEAD.pack(user, skipped, first_target, period) + events.tobytes()


def example_from_bytes(payload: bytes) -> tuple[Segment, int]:
    """(segment, period).  An example whose first target is 0 begins with its targets."""
    user, skipped, first_target, period = EXAMPLE_HEAD.unpack_from(payload)
    events = np.frombuffer(payload, EVENT, offset=EXAMPLE_HEAD.size)
    return to_segment(user, skipped, first_target, events), period


def period_of_example(payload: bytes) -> int:
    """The period alone, without reading the events."""
    period: int = EXAMPLE_HEAD.unpack_from(payload)[3]
    return period


def orders_of_example(payload: bytes | None) -> list[int]:
    """Arrival numbers of an example's events."""
    if payload is None:
        return []
    orders: list[int] = np.frombuffer(payload, EVENT, offset=EXAMPLE_HEAD.size)["order"].tolist()
    return orders


def largest_example(length: int) -> int:
    """Bytes of the largest example cut for windows of `length` inputs."""
    return EXAMPLE_HEAD.size + (length + 1) * EVENT.itemsize
