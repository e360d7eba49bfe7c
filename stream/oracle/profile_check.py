"""Is every profile what the model makes of that user's events, under the releases that served?

Three questions.  Counts: were all valid events applied, and once?  History: does the ring in the
last record hold the user's last H events?  Vectors: a user's changelog is walked in order; where
its release changes the state must start anew from the last H events, elsewhere it must go on by
the new events; every recorded profile, and the state at each stretch's end, is compared.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from profiles.state import SAID
from stream.oracle.changelog import Changelog
from stream.oracle.ledger import Ints, Ledger
from stream.oracle.models import Model
from stream.oracle.walking import Stretch, walk

TOLERANCE = 1e-4
TOLERANCE_FLOAT16 = 2e-2
"""State is rounded wherever a batch ended, which is not known here: errors add up along a user."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Events applied against events expected, over users who were not erased."""

    applied: int
    lost: int
    doubled: int
    histories_wrong: int


@dataclass(slots=True)
class ProfileVerdict:
    """Users whose profiles were recomputed.  `points`: recorded profiles compared; `stale`:
    records that stand behind a newer one of their user; `worst`: largest difference seen."""

    checked: set[int] = field(default_factory=set)
    wrong: set[int] = field(default_factory=set)
    skipped: set[int] = field(default_factory=set)
    points: int = 0
    stale: int = 0
    worst: float = 0.0
    tolerance: float = TOLERANCE


@dataclass(slots=True)
class _Path:
    """One user's stretches, each with its release and its checkpoints (record, event count)."""

    stretches: list[tuple[int, Stretch, list[tuple[int, int]]]] = field(default_factory=list)
    stale: int = 0
    is_beyond: bool = False


def count_events(ledger: Ledger, log: Changelog, before: Mapping[int, int] | None = None) -> Counts:
    """Compare numbers, then what the rings remember.

    `before`: by partition, the offset from which on events may still be under way.
    """
    settled = ledger.settled(before)
    applied = lost = doubled = histories_wrong = 0
    for user, key in enumerate(ledger.users):
        if key in log.erased:
            continue
        at = log.index.get(key)
        found = 0 if at is None else int(log.last["events"][at])
        expected = int(ledger.count[user])
        applied += found
        lost += max(0, int(settled[user]) - found)
        doubled += max(0, found - expected)
        count = min(max(found, int(settled[user])), expected)
        if at is not None and not _ring_is_right(ledger, user, count, log, at):
            histories_wrong += 1
    strangers = [key for key in log.index if key not in ledger.index and key not in log.erased]
    extra = sum(int(log.last["events"][log.index[key]]) for key in strangers)
    return Counts(applied + extra, lost, doubled + extra, histories_wrong)


def _ring_is_right(ledger: Ledger, user: int, count: int, log: Changelog, at: int) -> bool:
    """Whether a profile remembers the last of its user's first `count` events."""
    record = log.last[at]
    ring = record["history"]
    size = len(ring)
    if int(record["events"]) != count:
        return False
    numbers = np.arange(max(0, count - size), count)
    rows, slots = ledger.first[user] + numbers, numbers % size
    forgotten = np.isin(numbers, ledger.forgotten(user, count, size))
    return bool(
        (ring["ts"][slots] == ledger.ts[rows]).all()
        and (ring["action"][slots] == ledger.actions[rows] + SAID * ledger.said[rows]).all()
        and (ring["value"][slots] == ledger.values[rows]).all()
        and (ring["item"][slots] == np.where(forgotten, 0, ledger.item_keys[rows])).all()
    )


def check_profiles(
    ledger: Ledger,
    log: Changelog,
    models: dict[int, Model],
    history: int,
    chosen: npt.NDArray[np.bool_],
) -> ProfileVerdict:
    """Recompute.  `chosen` (U,): which of the ledger's users; `history`: H.

    Skipped is who was erased, whose release is not in the store any more, or who has events of
    items without a certain vector.
    """
    is_halved = log.last.dtype["profile"].base == np.float16
    verdict = ProfileVerdict(tolerance=TOLERANCE_FLOAT16 if is_halved else TOLERANCE)
    of_user: dict[int, list[int]] = defaultdict(list)
    for record, user in enumerate(log.user.tolist()):
        of_user[user].append(record)
    by_release: dict[int, list[tuple[Stretch, list[tuple[int, int]]]]] = defaultdict(list)
    for user in np.flatnonzero(chosen).tolist():
        at = log.index.get(ledger.users[user])
        if at is None or ledger.users[user] in log.erased:
            verdict.skipped.add(user)
            continue
        path = _trace(ledger, log, user, of_user[at], history)
        verdict.stale += path.stale
        if not all(_is_certain(models.get(key), ledger, user) for key, _, _ in path.stretches):
            verdict.skipped.add(user)
            continue
        verdict.checked.add(user)
        if path.is_beyond:
            verdict.wrong.add(user)
        for key, stretch, points in path.stretches:
            by_release[key].append((stretch, points))
    for key, work in by_release.items():
        _compare(models[key], ledger, log, work, verdict)
    return verdict


def _trace(ledger: Ledger, log: Changelog, user: int, records: list[int], history: int) -> _Path:
    """Cut one user's changelog into stretches."""
    path = _Path()
    count, before, newest, release = int(ledger.count[user]), 0, (-1, -1), 0
    for record in records:
        events, revision = int(log.events[record]), int(log.revision[record])
        if (events, revision) < newest:
            path.stale += 1
            continue
        newest = (events, revision)
        if events > count:
            path.is_beyond = True
            break
        key = int(log.release[record])
        if not path.stretches or key != release:
            # Where compaction took the record before, its event count is unknown: believe this one.
            kept_from = log.compacted_to.get(int(log.partition[record]), 0)
            if log.offset[record] < kept_from or (not path.stretches and kept_from):
                start = Stretch(user, events, events, log.state[record])
                path.stretches.append((key, start, []))
            else:
                without = tuple(ledger.forgotten(user, before, history).tolist())
                start = Stretch(user, max(0, before - history), events, without=without)
                path.stretches.append((key, start, [(record, events)]))
        else:
            same, so_far, points = path.stretches[-1]
            longer = Stretch(user, so_far.begin, events, so_far.start, so_far.without)
            # Of a believed start only the state is known: said again, it is believed again.
            if so_far.start is None or events > so_far.begin:
                points = [*points, (record, events)]
            path.stretches[-1] = (same, longer, points)
        before, release = events, key
    return path


def _is_certain(model: Model | None, ledger: Ledger, user: int) -> bool:
    first = ledger.first[user]
    own = slice(first, first + ledger.count[user])
    items = ledger.items[own][~ledger.said[own]]
    return model is not None and bool(model.known[items].all())


def _compare(
    model: Model,
    ledger: Ledger,
    log: Changelog,
    work: list[tuple[Stretch, list[tuple[int, int]]]],
    verdict: ProfileVerdict,
) -> None:
    for walked in walk(model, ledger, [stretch for stretch, _ in work]):
        rows: list[int] = []
        places: list[int] = []
        records: list[int] = []
        ends: list[tuple[int, int]] = []
        for row, which in enumerate(walked.which.tolist()):
            stretch, points = work[which]
            for record, events in points:
                rows.append(row)
                places.append(events - stretch.begin)
                records.append(record)
            if points:
                ends.append((row, points[-1][0]))
        if not records:
            continue
        at, place = np.array(rows), np.array(places)
        profile = np.where(
            (place == 0)[:, None], walked.before[at], walked.trail[at, np.maximum(place - 1, 0)]
        )
        _judge(profile, log.profile[records], _users(work, walked.which[at]), verdict)
        row_of, last = np.array(ends).T
        _judge(walked.final[row_of], log.state[last], _users(work, walked.which[row_of]), verdict)
        verdict.points += len(records)


def _users(work: list[tuple[Stretch, list[tuple[int, int]]]], which: Ints) -> list[int]:
    return [work[at][0].user for at in which.tolist()]


def _judge(
    expected: npt.NDArray[np.float32],
    found: npt.NDArray[np.float32],
    users: list[int],
    verdict: ProfileVerdict,
) -> None:
    """Relative to the largest entry where entries are large.  Shapes: both (P, ...)."""
    flat, seen = expected.reshape(len(users), -1), found.reshape(len(users), -1)
    difference = np.abs(flat - seen).max(axis=1) / np.maximum(1.0, np.abs(flat).max(axis=1))
    # Written so that NaN is wrong.
    wrong = ~(difference <= verdict.tolerance)
    verdict.wrong.update(users[row] for row in np.flatnonzero(wrong).tolist())
    verdict.worst = max(verdict.worst, float(np.nan_to_num(difference, nan=np.inf).max()))
