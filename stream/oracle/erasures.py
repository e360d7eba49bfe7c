"""Is an erased user found anywhere, in what stands in the topics after her erasure?

Looked at is what a reader of the topics gets: the newest record of each key on the compacted ones,
and every dead letter that no tombstone deleted.  A user who goes on after her erasure, where that
is accepted, has things again: they must come from what she did since.  Times are the broker's.
The events themselves stay for as long as their topic keeps them, and are not looked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from profiles.answers import PREDICTION
from profiles.state import RecordLayout, decode_records
from stream.letters import is_tombstone, original_of, place, standing, users_in
from stream.oracle.records import Raw

BEGAN_ANEW = "accept"
"""Of `privacy.after_erasure`: what a user does afterwards counts."""


def read_erasures(records: Iterable[Raw]) -> dict[bytes, int]:
    """When each user was last erased, Unix ms."""
    erased: dict[bytes, int] = {}
    for raw in records:
        try:
            user = json.loads(raw.value or b"null")["user_id"].encode()
        except (ValueError, TypeError, KeyError, AttributeError):
            continue  # a dead letter, not an erasure
        if user == raw.key:
            erased[user] = max(raw.timestamp_ms, erased.get(user, 0))
    return erased


@dataclass(slots=True)
class Watch:
    """Passes a topic's records on and remembers the newest one of each erased user."""

    users: Mapping[bytes, int]
    newest: dict[bytes, Raw] = field(default_factory=dict)

    def over(self, records: Iterable[Raw]) -> Iterator[Raw]:
        """The same records."""
        for raw in records:
            if raw.key is not None and raw.key in self.users:
                self.newest[raw.key] = raw
            yield raw

    def held(self) -> dict[bytes, Raw]:
        """Users of whom something stands there, with it."""
        return {user: raw for user, raw in self.newest.items() if raw.value}


@dataclass(frozen=True, slots=True)
class Letters:
    """Dead letters that stand in their topic; `deleted`: keys of those that tombstones deleted."""

    standing: list[Raw]
    deleted: frozenset[tuple[int, bytes]]

    @classmethod
    def of(cls, records: Iterable[Raw]) -> Letters:
        """Of one dead-letter topic, which is read whole."""
        whole = list(records)
        deleted = {(raw.partition, raw.key or b"") for raw in whole if is_tombstone(raw)}
        return cls(list(standing(whole, whole)), frozenset(deleted))

    def is_deleted(self, partition: int, offset: int) -> bool:
        """Whether the letter about the record there was deleted."""
        return (partition, place(partition, offset)) in self.deleted


@dataclass(frozen=True, slots=True)
class Since:
    """What happened after an erasure, as far as it was accepted.

    `appended_ms`: of every event, by place; `declared`: users who said something about themselves.
    """

    erased: Mapping[bytes, int]
    appended_ms: Mapping[tuple[int, int], int]
    declared: Mapping[bytes, Raw]
    is_accepted: bool

    def is_later(self, user: bytes, at_ms: int | None) -> bool:
        """Whether she did something at this time that may have brought her back."""
        return self.is_accepted and at_ms is not None and at_ms >= self.erased[user]

    def has_declared(self, user: bytes) -> bool:
        """Whether her declaration is of after the erasure."""
        raw = self.declared.get(user)
        return raw is not None and self.is_later(user, raw.timestamp_ms)


def find_erased(
    since: Since,
    profiles: Mapping[bytes, Raw],
    recommendations: Mapping[bytes, Raw],
    letters: Iterable[Raw],
    layout: RecordLayout,
) -> dict[bytes, list[str]]:
    """Erased users who are still found, and where: `users`, `profiles`, `recommendations`,
    `dead letters`."""
    found: dict[bytes, list[str]] = {}
    for user in since.declared:
        if not since.has_declared(user):
            found.setdefault(user, []).append("users")
    for user, raw in profiles.items():
        record, _ = decode_records(layout, [raw.value or b""])
        last_ms = since.appended_ms.get((raw.partition, int(record["offset"][0])))
        if not (since.is_later(user, last_ms) or since.has_declared(user)):
            found.setdefault(user, []).append("profiles")
    for user, raw in recommendations.items():
        if not since.is_later(user, _caused_ms(raw, since)):
            found.setdefault(user, []).append("recommendations")
    for raw in letters:
        # Afterwards others may name her: what is refused of theirs is not what was hers.
        own = original_of(raw).key
        for user in users_in(raw, since.erased.keys()):
            is_later = raw.timestamp_ms >= since.erased[user]
            if not is_later or (user == own and not since.is_accepted):
                found.setdefault(user, []).append("dead letters")
    return found


def _caused_ms(raw: Raw, since: Since) -> int | None:
    """When what caused a recommendation reached the broker; of a request, when it was answered."""
    try:
        # Any: decoded JSON is anything.
        made: dict[str, Any] = json.loads(raw.value or b"null")
        if made["cause"] in ("request", PREDICTION):
            return raw.timestamp_ms
        return since.appended_ms.get((made["cause_partition"], made["cause_offset"]))
    except (ValueError, TypeError, KeyError):
        return None
