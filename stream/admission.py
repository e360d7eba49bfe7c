"""Events of erased users: older than the erasure never, later ones by `privacy.after_erasure`.

Looked at once for each chunk of a partition that has erased somebody; elsewhere it costs nothing.
A refused event becomes a dead letter without key and contents, which would be hers: the place of
the original is in its headers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from profiles.fences import Fences
from stream.chunks import Parsed
from stream.codecs import DeadLetter, Decoded, kept_only

AfterErasure = Literal["accept", "forget", "refuse"]
REASON = "erased"
DETAIL = (
    "the user of this event was erased and privacy.after_erasure is `refuse`; stop producing "
    "events of erased users"
)


@dataclass(frozen=True, slots=True)
class Blank:
    """A record of which nothing but its place is told."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes]] = ()


def admit(
    decoded: Decoded, fences: Fences, topic_key: int, mode: AfterErasure
) -> tuple[Decoded, Counter[str]]:
    """The events that may be applied, and how many were not: `before`, `forgotten`, `refused`."""
    counts: Counter[str] = Counter()
    keep: list[int] = []
    refused: list[DeadLetter] = []
    for at, (user, record) in enumerate(zip(decoded.users, decoded.records, strict=True)):
        if fences.of(user) is None:
            keep.append(at)
        elif fences.holds_back(user, topic_key, record.offset):
            counts["before"] += 1
        elif mode == "accept":
            keep.append(at)
        elif mode == "forget":
            counts["forgotten"] += 1
        else:
            counts["refused"] += 1
            refused.append(DeadLetter(blank(record), REASON, DETAIL))
    if not counts:
        return decoded, counts
    kept = kept_only(decoded, keep)
    return replace(kept, dead=[*kept.dead, *refused]), counts


def is_welcome(user: bytes, fences: Fences, mode: AfterErasure) -> bool:
    """Whether a request or a declaration of a user is taken."""
    return mode == "accept" or fences.of(user) is None


def blank(record: Parsed) -> Blank:
    """A record without what it said."""
    return Blank(record.offset, record.timestamp, record.timestamp_type)
