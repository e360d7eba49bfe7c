"""What people said before they accepted or rejected something, kept to learn how sure to be.

    c <user>         the user's conversation: its last steps, and the last turn with a verdict
    a <arrival no.>  the user whose conversation moved last at this number: the oldest go first

A turn begins with words and ends with the next ones; in between, what was recommended is accepted
or rejected.  The replay buffer keeps no words (docs/decisions/0035-words.md), these conversations
keep them for as many users as `learner.judged_conversations` says, sealed and erased as histories
are.  Training does not see them: they only calibrate (learner/confidence.py).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from learner.disk import Disk
from learner.reservoir import USER, Batch
from profiles.errors import LearnerError

STEPS = 16
"""Last steps kept of a conversation: what is older has faded from the profile."""
_ORDER = struct.Struct(">Q")

T = TypeVar("T")


class Step(msgspec.Struct, frozen=True, array_like=True):
    """Something said (`text`), or something done with an item (`item`, a `key64`)."""

    text: str
    item: int
    action: int
    value: float
    ts: float


class Case(msgspec.Struct, frozen=True, array_like=True):
    """A turn with a verdict: what led to the recommendation, and what became of its items."""

    user: int
    steps: tuple[Step, ...]
    accepted: tuple[int, ...]
    rejected: tuple[int, ...]


class _Conversation(msgspec.Struct, array_like=True):
    """`asked`: how many steps there were when the last words were said; 0 for none yet."""

    order: int
    steps: tuple[Step, ...] = ()
    asked: int = 0
    judged: Case | None = None


@dataclass(frozen=True, slots=True)
class Turn:
    """One event read from Kafka.  `verdict`: 1 accepts the item, -1 rejects it, 0 neither."""

    partition: int
    offset: int
    user: int
    step: Step
    verdict: int


class Conversations:
    """The conversations on the replay buffer's disk; `limit` users' at most."""

    def __init__(self, disk: Disk, limit: int, held: int) -> None:
        self._disk, self._limit, self.held = disk, limit, held

    def take(self, batch: Batch, turns: Sequence[Turn], order: int) -> None:
        """Follow the turns; writes go into the caller's batch.  `order`: a number never used."""
        users: dict[int, list[Turn]] = {}
        for turn in turns:
            users.setdefault(turn.user, []).append(turn)
        found = self._disk.get_many([_key(user) for user in users])
        for at, ((user, theirs), saved) in enumerate(zip(users.items(), found, strict=True)):
            talk = _Conversation(0) if saved is None else _decoded(saved, _Conversation)
            if saved is None:
                self.held += 1
            else:
                batch.delete(_touch(talk.order))
            for turn in theirs:
                _follow(talk, turn)
            talk.order = order + at
            batch.put(_key(user), msgspec.msgpack.encode(talk))
            batch.put(_touch(talk.order), USER.pack(user))

    def trim(self, batch: Batch) -> None:
        """Let the oldest beyond the limit go; what `take` did must be written by now."""
        spare = self.held - self._limit
        if spare <= 0:
            return
        for touch, user in self._disk.scan(b"a"):
            if spare <= 0:
                break
            batch.delete(touch)
            batch.delete(b"c" + user)
            self.held, spare = self.held - 1, spare - 1

    def cases(self) -> list[Case]:
        """Turns with a verdict, one of each user, by user."""
        talks = (_decoded(saved, _Conversation) for _, saved in self._disk.scan(b"c"))
        return [talk.judged for talk in talks if talk.judged is not None]

    def erase(self, batch: Batch, user: int) -> int:
        """Forget a user.  Returns: how many steps and cases of hers were held."""
        saved = self._disk.get(_key(user))
        if saved is None:
            return 0
        talk = _decoded(saved, _Conversation)
        batch.delete(_key(user))
        batch.delete(_touch(talk.order))
        self.held -= 1
        return len(talk.steps) + (talk.judged is not None)


def _follow(talk: _Conversation, turn: Turn) -> None:
    """Add one step; a verdict belongs to what had been said before it."""
    step = turn.step
    if turn.verdict and talk.asked:
        so_far = talk.steps[: talk.asked]
        case = talk.judged
        if case is None or case.steps != so_far:
            case = Case(turn.user, so_far, (), ())
        accepted, rejected = set(case.accepted), set(case.rejected)
        # The last word on an item counts.
        accepted.discard(step.item)
        rejected.discard(step.item)
        (accepted if turn.verdict > 0 else rejected).add(step.item)
        talk.judged = Case(turn.user, so_far, tuple(sorted(accepted)), tuple(sorted(rejected)))
    talk.steps = (*talk.steps, step)
    if step.text:
        talk.asked = len(talk.steps)
    gone = max(len(talk.steps) - STEPS, 0)
    talk.steps, talk.asked = talk.steps[gone:], max(talk.asked - gone, 0)


def cases_to_bytes(cases: Sequence[Case]) -> bytes:
    """For a round's saved plan."""
    return msgspec.msgpack.encode(cases)


def cases_from_bytes(payload: bytes) -> list[Case]:
    """The inverse; of nothing, none.  Raises: LearnerError for a damaged payload."""
    return _decoded(payload, list[Case]) if payload else []


def still_to_take(turns: Sequence[Turn], stored: Mapping[int, int]) -> list[Turn]:
    """Without those that were taken before.  `stored`: next offset of each partition."""
    return [turn for turn in turns if turn.offset >= stored.get(turn.partition, 0)]


def _decoded(payload: bytes, kind: type[T]) -> T:
    try:
        return msgspec.msgpack.decode(payload, type=kind)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise LearnerError(
            f"a kept conversation is damaged: {error}; move the learner's directory away to learn "
            "anew from the events that are still there"
        ) from error


def _key(user: int) -> bytes:
    return b"c" + USER.pack(user)


def _touch(order: int) -> bytes:
    return b"a" + _ORDER.pack(order)
