"""Does every recommendation come from one release, and when did it come?

A recommendation names the profile it was made from: user and version.  Its scores are recomputed
from that very changelog record and the named release; a vector of any other release would show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.scoring import INTEREST_FADE_EVENTS
from profiles.wire import key64
from stream.oracle.catalogue import Catalogue
from stream.oracle.changelog import Changelog
from stream.oracle.ledger import Ints, Ledger, Place
from stream.oracle.models import Model
from stream.oracle.records import Raw

TOLERANCE = 1e-3
PAIRS_AT_ONCE = 65_536


class _Scored(msgspec.Struct):
    item_id: str
    score: float


class _Payload(msgspec.Struct):
    output_id: str
    user_id: str
    items: list[_Scored]
    release_id: str
    profile_release_id: str
    profile_version: int
    cause: str
    cause_partition: int
    cause_offset: int
    produced_at: float


@dataclass(frozen=True, slots=True)
class Outputs:
    """R recommendations and, flat, their P items.

    Shapes: user (index into the changelog's users, -1 for none), version, release (R,); is_named
    (R,) whether message and profile name one release; latency_ms, written_ms (R,) since the event
    was appended, NaN where no event caused it; first (R + 1,) where each one's items begin;
    items (catalogue rows, -1 for none), scores (P,).  `releases`: names in order of appearance,
    by partition.
    """

    user: Ints
    version: Ints
    release: npt.NDArray[np.uint64]
    is_named: npt.NDArray[np.bool_]
    latency_ms: npt.NDArray[np.float64]
    written_ms: npt.NDArray[np.float64]
    first: Ints
    items: Ints
    scores: npt.NDArray[np.float64]
    repeated: int
    unreadable: int
    changes: dict[int, int]


@dataclass(frozen=True, slots=True)
class RecommendationVerdict:
    """`unmatched`: the profile version is in no changelog record (an answer to a request may use
    a rebuild that is never stored); `uncertain`: release or item without certain vectors."""

    checked: int
    mixed: int
    unmatched: int
    uncertain: int


def read_outputs(
    records: Iterable[Raw], ledger: Ledger, log: Changelog, catalogue: Catalogue
) -> Outputs:
    """Take in the recommendations topic."""
    decoder = msgspec.json.Decoder(_Payload)
    keys: dict[str, int] = {}
    serving: dict[int, str] = {}
    changes: dict[int, int] = {}
    outputs: set[str] = set()
    rows: list[tuple[int, int, int, bool, float, float]] = []
    lengths: list[int] = []
    items: list[int] = []
    scores: list[float] = []
    unreadable = 0
    for record in records:
        if not record.value:
            continue
        try:
            found = decoder.decode(record.value)
        except msgspec.DecodeError:
            unreadable += 1
            continue
        name = found.release_id
        if name not in keys:
            keys[name] = key64(name)
        if serving.setdefault(record.partition, name) != name:
            serving[record.partition] = name
            changes[record.partition] = changes.get(record.partition, 0) + 1
        outputs.add(found.output_id)
        latency_ms, written_ms = _latency(found, record, ledger.appended_ms)
        rows.append(
            (
                log.index.get(found.user_id.encode(), -1),
                found.profile_version,
                keys[name],
                found.profile_release_id == name,
                latency_ms,
                written_ms,
            )
        )
        lengths.append(len(found.items))
        items.extend(catalogue.rows.get(item.item_id, -1) for item in found.items)
        scores.extend(item.score for item in found.items)
    columns = list(zip(*rows, strict=True)) or [()] * 6
    return Outputs(
        user=np.array(columns[0], dtype=np.int64),
        version=np.array(columns[1], dtype=np.int64),
        release=np.array(columns[2], dtype=np.uint64),
        is_named=np.array(columns[3], dtype=np.bool_),
        latency_ms=np.array(columns[4], dtype=np.float64),
        written_ms=np.array(columns[5], dtype=np.float64),
        first=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        items=np.array(items, dtype=np.int64),
        scores=np.array(scores, dtype=np.float64),
        repeated=len(rows) - len(outputs),
        unreadable=unreadable,
        changes=changes,
    )


def _latency(found: _Payload, record: Raw, appended_ms: Mapping[Place, int]) -> tuple[float, float]:
    """Milliseconds from the event in the log to the ranking, and to the record's being written."""
    appended = appended_ms.get((found.cause_partition, found.cause_offset))
    if found.cause != "event" or appended is None:
        return float("nan"), float("nan")
    return found.produced_at * 1000.0 - appended, float(record.timestamp_ms - appended)


def check_recommendations(
    outputs: Outputs, log: Changelog, models: Mapping[int, Model]
) -> RecommendationVerdict:
    """Recompute every score that can be recomputed."""
    source = _source_records(outputs, log)
    mixed = ~outputs.is_named | (source == OTHER_RELEASE)
    uncertain = np.zeros(len(mixed), dtype=np.bool_)
    owner = np.repeat(np.arange(len(mixed)), np.diff(outputs.first))
    for key in np.unique(outputs.release).tolist():
        model = models.get(int(key))
        mine = (outputs.release == key) & (source >= 0)
        if model is None:
            uncertain |= mine
            continue
        pairs = np.flatnonzero(mine[owner])
        items = outputs.items[pairs]
        bad = (items < 0) | ~model.known[items]
        uncertain[owner[pairs[bad]]] = True
        pairs = pairs[~bad]
        for start in range(0, len(pairs), PAIRS_AT_ONCE):
            part = pairs[start : start + PAIRS_AT_ONCE]
            query = _queries(log, source[owner[part]])
            rows = outputs.items[part]
            score = np.einsum("pd,pd->p", query, model.vectors[rows]) * model.head.score_scale[0]
            score += model.bias[rows]
            allowed = TOLERANCE * np.maximum(1.0, np.abs(score))
            # Written so that NaN is wrong.
            mixed[owner[part[~(np.abs(score - outputs.scores[part]) <= allowed)]]] = True
    return RecommendationVerdict(
        checked=int(((source >= 0) & ~uncertain).sum()),
        mixed=int(mixed.sum()),
        unmatched=int((source == NO_RECORD).sum()),
        uncertain=int(uncertain.sum()),
    )


NO_RECORD = -1
OTHER_RELEASE = -2


def _source_records(outputs: Outputs, log: Changelog) -> Ints:
    """The changelog record behind each recommendation, or one of the two codes.  Shapes: (R,)."""
    name = (log.user << 32) | log.revision
    order = np.argsort(name, kind="stable")
    sorted_names = name[order]
    wanted = (outputs.user << 32) | outputs.version
    left = np.searchsorted(sorted_names, wanted, side="left")
    count = np.searchsorted(sorted_names, wanted, side="right") - left
    count[outputs.user < 0] = 0
    found = np.where(count > 0, OTHER_RELEASE, NO_RECORD)
    # One version is usually one record; a recommendation sent later adds equal ones.
    for step in range(int(count.max(initial=0))):
        open_rows = np.flatnonzero((found == OTHER_RELEASE) & (step < count))
        candidate = order[left[open_rows] + step]
        same = log.release[candidate] == outputs.release[open_rows]
        found[open_rows[same]] = candidate[same]
    return found.astype(np.int64)


def _queries(log: Changelog, records: Ints) -> npt.NDArray[np.float32]:
    """Profile plus declared interest, as far as it is of the same release."""
    fade = INTEREST_FADE_EVENTS / (INTEREST_FADE_EVENTS + log.events[records])
    fade *= log.interest_release[records] == log.release[records]
    return (log.profile[records] + fade[:, None] * log.interest[records]).astype(np.float32)
