"""What the learner remembers, on disk: recent histories, past examples, and how far it has read.

    h t                     histories (learner/histories.py)
    r <slot>                training reservoir: examples of earlier rounds, for replay
    q <slot>                exam reservoir: held-out examples, never trained on
    x <user> <r|q> <slot>   where a user's examples are, for erasure
    c <user>, a             conversations with words (learner/conversations.py)
    o <topic/partition>     next input offset
    f <user>                arrival number of a user's first event, which outlives her examples
    e <user>                when a user was erased (broker's time), which outlives its topic
    m                       counters, random states, what is fresh

One WriteBatch holds the events, their offsets and all that follows from them, so a killed learner
resumes exactly: an offset or an event id that was seen is skipped.  Users are pseudonyms
(`key64`), never ids.  Half of the byte bound is for histories (least recently active users go
first), the rest for the reservoirs.

"Fresh" are events that arrived since the last round.  They become examples when a round ends, or
earlier if a history overflows.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from learner.conversations import Conversations, Turn, still_to_take
from learner.disk import Disk
from learner.graduation import Graduation
from learner.histories import Histories
from learner.records import (
    EVENT,
    Events,
    Row,
    example_from_bytes,
    example_to_bytes,
    largest_example,
    orders_of_example,
    period_of_example,
    to_segment,
)
from learner.replay_draw import POOL_TIMES, Policy, draw
from learner.reservoir import USER, Batch, Reservoir
from learner.sampling import Segment
from learner.sealed_disk import LearnerKeys, SealedDisk
from profiles.errors import LearnerError

HISTORY_SHARE = 0.5
EXAM_SHARE = 0.05
EVICT_USERS = 64
GRADUATE_USERS = 256
MAX_RELEASES = 1000
META = b"m"


class ReplayBuffer:
    """The buffer in one directory, held open by one process; not thread-safe.

    Args:
        actions: names in the order of the head's actions, to notice a change of numbering.
        conversations: of how many users words and verdicts are kept.
        keys: seal what is held of each user; the caller closes them.
    Raises: StoreError when it cannot be opened, LearnerError when its actions differ.
    """

    def __init__(
        self,
        directory: Path,
        *,
        buffer_bytes: int,
        sequence_length: int,
        seed: int,
        actions: Sequence[str],
        conversations: int = 0,
        keys: LearnerKeys | None = None,
    ) -> None:
        self._disk = Disk(directory) if keys is None else SealedDisk(directory, keys)
        self._keys = keys
        saved = self._disk.get(META)
        # Any: JSON of our own making.
        meta: dict[str, Any] = json.loads(saved) if saved else {}
        if meta and meta["actions"] != list(actions):
            self._disk.close()
            raise LearnerError(
                f"replay buffer {str(directory)!r} numbers the actions {meta['actions']}, the "
                f"settings {list(actions)}; restore the settings, or move the buffer away to "
                "learn anew"
            )
        self._actions = list(actions)
        self._half = max(sequence_length // 2, 1)
        self._history_bound = int(buffer_bytes * HISTORY_SHARE)
        exam_bytes = int(buffer_bytes * EXAM_SHARE)
        past_bytes = buffer_bytes - self._history_bound - exam_bytes
        self._example_bytes = largest_example(sequence_length)
        self.conversations = Conversations(
            self._disk, conversations, int(meta.get("conversations", 0))
        )
        self.histories = Histories(self._disk, int(meta.get("history_bytes", 0)))
        self.past = Reservoir(
            b"r", self._disk, past_bytes, self._example_bytes, seed, meta.get("r")
        )
        self.exams = Reservoir(
            b"q", self._disk, exam_bytes, self._example_bytes, seed + 1, meta.get("q")
        )
        self.next_order = int(meta.get("next_order", 1))
        self.learned = int(meta.get("learned", 1))
        self.fresh_events = int(meta.get("fresh", 0))
        self.rounds = int(meta.get("rounds", 0))
        left = meta.get("graduating")
        self._graduating = msgspec.convert(left, Graduation) if left else None
        self._releases: list[tuple[str, int]] = [(r, int(n)) for r, n in meta.get("releases", [])]
        trimmed = self._disk.new_batch()
        self.past.trim(trimmed)
        self.exams.trim(trimmed)
        self.conversations.trim(trimmed)
        self._write(trimmed)
        self._graduate()

    def close(self) -> None:
        """Flush and let go of the directory."""
        self._disk.close()

    @property
    def size_bytes(self) -> int:
        """Payload held, at most: histories exactly, examples at their largest."""
        return self.histories.held_bytes + (self.past.held + self.exams.held) * self._example_bytes

    def offsets(self, topic: str, partitions: Iterable[int]) -> dict[int, int]:
        """Next input offset of each partition; partitions never read are absent."""
        wanted = list(partitions)
        found = self._disk.get_many([_offset_key(topic, p) for p in wanted])
        return {p: int(v) for p, v in zip(wanted, found, strict=True) if v is not None}

    @property
    def held_events(self) -> int:
        """Events held, about: those of histories, and examples as if they were full."""
        examples = self.past.held + self.exams.held
        return self.histories.held_bytes // EVENT.itemsize + examples * self._half

    def forget_offset(self, topic: str, partition: int) -> None:
        """The partition's log was made anew: its offsets begin again."""
        batch = self._disk.new_batch()
        batch.delete(_offset_key(topic, partition))
        self._write(batch)

    def ingest(
        self,
        topic: str,
        rows: Sequence[Row],
        next_offsets: Mapping[int, int],
        turns: Sequence[Turn] = (),
    ) -> int:
        """Take events and, with them, the partitions' next offsets, in one write.

        Rows and turns before a stored offset, and event ids among the user's history, are
        skipped.
        Returns: how many events were new.
        """
        stored = self.offsets(topic, next_offsets)
        users: dict[int, list[tuple[int, Row]]] = {}
        for row in rows:
            if row.offset >= stored.get(row.partition, 0):
                users.setdefault(row.user, []).append((self.next_order, row))
                self.next_order += 1
        batch = self._disk.new_batch()
        added = 0
        histories = self.histories.read(list(users))
        firsts = self._firsts(list(users))
        for (user, arrived), history in zip(users.items(), histories, strict=True):
            if user not in firsts:
                batch.put(_first_key(user), str(arrived[0][0]).encode())
            appended = self.histories.append(batch, user, history, arrived)
            added += appended.added
            # What a full history lets go without having been fresh in a round becomes examples.
            waiting = int(np.searchsorted(appended.dropped["order"], self.learned))
            self._make_examples(
                batch, self.past, user, appended.skipped, appended.dropped, waiting, 0
            )
            self.fresh_events -= len(appended.dropped) - waiting
        self.fresh_events += added
        if talk := still_to_take(turns, stored):
            self.conversations.take(batch, talk, self.next_order)
            self.next_order += len(talk)
        for partition, offset in next_offsets.items():
            if offset > stored.get(partition, -1):
                batch.put(_offset_key(topic, partition), str(offset).encode())
        self._write(batch)
        if turns:
            batch = self._disk.new_batch()
            self.conversations.trim(batch)
            self._write(batch)
        while self.histories.held_bytes > self._history_bound:
            if not self._evict():
                break
        return added

    def _make_examples(
        self,
        batch: Batch,
        into: Reservoir,
        user: int,
        skipped: int,
        events: Events,
        first: int,
        period: int,
    ) -> None:
        """Cut events[first:] into examples of half a window of targets after half of context."""
        for start in range(first, len(events), self._half):
            begin = max(0, start - self._half)
            part = events[begin : start + self._half]
            into.offer(batch, example_to_bytes(user, skipped + begin, start - begin, period, part))

    def fresh(self) -> list[Segment]:
        """Every user's fresh events, with their context, in the order of last activity."""
        found: list[Segment] = []
        for user, history in self.histories.active_since(self.learned):
            first = int(np.searchsorted(history.events["order"], self.learned))
            if first < len(history.events):
                found.append(to_segment(user, history.skipped(), first, history.events))
        return found

    def replay(
        self, events: int, rng: np.random.Generator, policy: Policy = "reservoir"
    ) -> list[Segment]:
        """Past examples holding about `events` targets, drawn by the policy."""
        count = max(events // self._half, 1)
        pool = count if policy == "reservoir" else count * POOL_TIMES
        held = [example_from_bytes(example)[0] for example in self.past.sample(pool, rng)]
        return draw(policy, held, count, rng)

    def draw_exams(self, count: int, rng: np.random.Generator) -> dict[int, list[Segment]]:
        """Held-out examples of earlier rounds by period: `count` in all, as many of each period.

        Only the drawn ones are kept in memory; of the others, where each period's are.
        """
        slots: dict[int, array[int]] = {}
        for slot, example in self.exams.all():
            slots.setdefault(period_of_example(example), array("I")).append(slot)
        each = max(count // max(len(slots), 1), 1)
        chosen = {
            period: [held[at] for at in np.sort(rng.permutation(len(held))[:each]).tolist()]
            for period, held in sorted(slots.items())
        }
        return {
            period: [example_from_bytes(example)[0] for example in self.exams.read(held)]
            for period, held in chosen.items()
        }

    def context(self, users: Sequence[int]) -> list[Segment]:
        """Histories of some users as segments without targets; unknown users are left out."""
        read = zip(users, self.histories.read(users), strict=True)
        held = [(user, history) for user, history in read if history is not None]
        return [to_segment(u, h.skipped(), len(h.events), h.events) for u, h in held]

    def finish_round(self, upto: int, border: tuple[float, int], period: int) -> None:
        """The events before arrival number `upto` are no longer fresh: they become examples.

        `border` (ts, arrival number) is where the held-out part began: exam users' events from
        there on go to the exams of `period`, everything else to the training reservoir.
        Survives a kill: what is left is done at the next start.
        """
        start = self.learned
        self._graduating = Graduation(start, upto, start, border[0], border[1], period)
        self.learned, self.rounds = upto, self.rounds + 1
        later = self.histories.active_since(upto)
        self.fresh_events = sum(int((h.events["order"] >= upto).sum()) for _, h in later)
        self._write(self._disk.new_batch())
        self._graduate()

    def _graduate(self) -> None:
        work = self._graduating
        while work is not None:
            batch = self._disk.new_batch()
            some = list(self.histories.active_since(work.cursor, GRADUATE_USERS))
            for user, history in some:
                events, first, cut = work.parts(user, history)
                skipped = history.skipped()
                if first < cut:
                    self._make_examples(batch, self.past, user, skipped, events[:cut], first, 0)
                if cut < len(events):
                    self._make_examples(batch, self.exams, user, skipped, events, cut, work.period)
                work.cursor = history.last_order + 1
            if len(some) < GRADUATE_USERS:
                work = self._graduating = None
            self._write(batch)

    def _evict(self) -> bool:
        """Drop the histories of the least recently active users; their fresh events are kept as
        examples.  Returns: whether there was one to drop."""
        batch = self._disk.new_batch()
        dropped = False
        for user, history in list(self.histories.active_since(0, EVICT_USERS)):
            first = int(np.searchsorted(history.events["order"], self.learned))
            waiting = len(history.events) - first
            if waiting:
                self._make_examples(
                    batch, self.past, user, history.skipped(), history.events, first, 0
                )
                self.fresh_events -= waiting
            self.histories.delete(batch, user, history)
            dropped = True
            if self.histories.held_bytes <= self._history_bound:
                break
        self._write(batch)
        return dropped

    def note_release(self, release_id: str, upto: int) -> None:
        """Remember that a release stands on events before arrival number `upto`."""
        self._releases = [*self._releases, (release_id, upto)][-MAX_RELEASES:]
        self._write(self._disk.new_batch())

    def erased_at_ms(self) -> dict[int, int]:
        """Users who were erased, and when, Unix ms."""
        return {USER.unpack(key[1:])[0]: int(at) for key, at in self._disk.scan(b"e")}

    def erase(
        self, users: Sequence[int], erased_at_ms: Mapping[int, int] = MappingProxyType({})
    ) -> dict[int, tuple[dict[str, int], list[str]]]:
        """Remove everything of some users, from the disk too (flush and compaction).

        `erased_at_ms`: what to remember of it.
        Returns: per user what was removed, and the releases that stand on their events: those
        made after their first one, since each release is its parent's child.  That is an upper
        bound: an event may have been held out, or not drawn.
        """
        report: dict[int, tuple[dict[str, int], list[str]]] = {}
        batch = self._disk.new_batch()
        distinct = list(dict.fromkeys(users))
        firsts = self._firsts(distinct)
        for user, history in zip(distinct, self.histories.read(distinct), strict=True):
            orders: list[int] = []
            if user in erased_at_ms:
                batch.put(_erased_key(user), str(erased_at_ms[user]).encode())
            if user in firsts:
                orders.append(firsts[user])
                batch.delete(_first_key(user))
            if history is not None:
                orders.append(history.first_order)
                self.fresh_events -= int((history.events["order"] >= self.learned).sum())
                self.histories.delete(batch, user, history)
            removed = {"history_events": 0 if history is None else len(history.events)}
            for reservoir, name in ((self.past, "replay_examples"), (self.exams, "exam_examples")):
                slots = reservoir.slots_of(user)
                removed[name] = len(slots)
                for slot in slots:
                    orders += orders_of_example(reservoir.remove(batch, slot))
            if steps := self.conversations.erase(batch, user):
                removed["conversation_steps"] = steps
            oldest = min(orders, default=None)
            built_on = [r for r, upto in self._releases if oldest is not None and oldest < upto]
            report[user] = (removed, built_on)
        self._write(batch)
        self._disk.purge()
        if self._keys is not None:
            self._keys.forget(distinct)
        return report

    def _firsts(self, users: Sequence[int]) -> dict[int, int]:
        found = self._disk.get_many([_first_key(user) for user in users])
        return {user: int(v) for user, v in zip(users, found, strict=True) if v is not None}

    def rewind(self, upto: int) -> None:
        """Learn again what came from arrival number `upto` on, as far as histories hold it."""
        self.learned = min(upto, self.learned)
        later = self.histories.active_since(self.learned)
        self.fresh_events = sum(int((h.events["order"] >= self.learned).sum()) for _, h in later)
        self._releases = [(name, at) for name, at in self._releases if at <= upto]
        self._write(self._disk.new_batch())

    def learned_by(self, release_id: str) -> int | None:
        """Before which arrival number the events of a release lie; None for one without events."""
        return dict(self._releases).get(release_id)

    def _write(self, batch: Batch) -> None:
        meta = {
            "actions": self._actions,
            "next_order": self.next_order,
            "learned": self.learned,
            "fresh": self.fresh_events,
            "rounds": self.rounds,
            "history_bytes": self.histories.held_bytes,
            "conversations": self.conversations.held,
            "graduating": msgspec.to_builtins(self._graduating),
            "releases": self._releases,
            "r": self.past.state(),
            "q": self.exams.state(),
        }
        batch.put(META, json.dumps(meta).encode())
        self._disk.write(batch)
        self.past.written()
        self.exams.written()


def _first_key(user: int) -> bytes:
    return b"f" + USER.pack(user)


def _erased_key(user: int) -> bytes:
    return b"e" + USER.pack(user)


def _offset_key(topic: str, partition: int) -> bytes:
    return b"o" + f"{topic}/{partition}".encode()
