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
    """The events that may be applied, and how many were not: `before`, `forgotten`, `refused`.

    What could not be used of hers goes the same way, instead of becoming a dead letter as it is.
    """
    counts: Counter[str] = Counter()
    keep: list[int] = []
    refused: list[DeadLetter] = []
    for at, (user, record) in enumerate(zip(decoded.users, decoded.records, strict=True)):
        fate = _fate(user, record, fences, topic_key, mode)
        if fate == "kept":
            keep.append(at)
        elif fate == "refused":
            refused.append(DeadLetter(blank(record), REASON, DETAIL))
        counts[fate] += 1
    dead: list[DeadLetter] = []
    for letter in decoded.dead:
        fate = _fate(letter.record.key, letter.record, fences, topic_key, mode)
        if fate == "kept":
            dead.append(letter)
        elif fate == "refused":
            refused.append(DeadLetter(blank(letter.record), REASON, DETAIL))
        counts[fate] += 1
    del counts["kept"]
    if not counts:
        return decoded, counts
    return replace(kept_only(decoded, keep), dead=[*dead, *refused]), counts


def _fate(
    user: bytes | None, record: Parsed, fences: Fences, topic_key: int, mode: AfterErasure
) -> str:
    if user is None or fences.of(user) is None:
        return "kept"
    if fences.holds_back(user, topic_key, record.offset):
        return "before"
    return {"accept": "kept", "forget": "forgotten", "refuse": "refused"}[mode]


def is_welcome(user: bytes, fences: Fences, mode: AfterErasure) -> bool:
    """Whether a request or a declaration of a user is taken."""
    return mode == "accept" or fences.of(user) is None


def blank(record: Parsed) -> Blank:
    """A record without what it said."""
    return Blank(record.offset, record.timestamp, record.timestamp_type)
