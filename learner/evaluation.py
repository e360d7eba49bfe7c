"""How a candidate compares with its parent: on what came next, and on what came long ago.

Everything is prequential (score, then update) and computed by `profiles.evaluation`, that is by
the workers' own arithmetic.  The slices:

    recent      held-out newest events of exam users, never trained on
    long_ago    exam events of earlier periods, never trained on either
    cold_items  the recent ones whose item had at most `COLD_COUNT` events before this round
    new_users   the recent ones among a user's first `NEW_USER_EVENTS` events

The forgetting matrix R has one row per promoted release and one column per period: R[i][j] is
NDCG@10 of release i on the exam of period j; `NO_EVENTS` marks an empty exam.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learner.catalogue import Catalogue
from learner.sampling import ActionWeights, Segment, known_part, to_sequence
from profiles.evaluation import Bools, Ints, Ranking, UserSequence, gains, prequential, summarise
from profiles.head import Head, embed_items
from profiles.layers import Floats
from profiles.release import ItemTable

COLD_COUNT = 2
NEW_USER_EVENTS = 5
NO_EVENTS = -1.0
KEPT_ROWS = 32
"""Rows of R with figures; older ones are empty.  All of them would outgrow the largest manifest
that is read (4 MiB) after some 600 promoted releases, and no worker would take the next."""


@dataclass(frozen=True, slots=True)
class Model:
    """A release's model over one catalogue.  Shapes: vectors (N, D), bias (N,)."""

    head: Head
    vectors: Floats
    bias: Floats


@dataclass(frozen=True, slots=True)
class Exam:
    """Segments whose targets are asked about, with rows of the catalogue resolved.

    `wanted`: per segment, which events are ranked (targets of positive weight).
    """

    segments: tuple[Segment, ...]
    rows: tuple[Ints, ...]
    wanted: tuple[Bools, ...]


@dataclass(frozen=True, slots=True)
class Paired:
    """Two models on the same events: mean NDCG@10 of each, and the standard error of the mean
    difference over events."""

    events: int
    parent: float
    candidate: float
    standard_error: float


def align(head: Head, table: ItemTable, catalogue: Catalogue, text: Floats) -> Model:
    """A release's model over a catalogue that may have moved on since: an item whose text is
    unchanged keeps its vector; a new or rewritten one gets what a worker would give it.

    Shapes: text (N, T), vectors of the release's own adapter.
    """
    n, d = len(catalogue), head.shape.dim
    ids, counts = np.zeros((n, d), np.float32), np.zeros(n, np.float32)
    bias = np.full(n, head.new_item_bias[0], np.float32)
    rows = catalogue.rows(table.keys)
    kept = rows >= 0
    ids[rows[kept]], counts[rows[kept]] = table.ids[kept], table.counts[kept]
    bias[rows[kept]] = table.bias[kept]
    return Model(head, embed_items(head, text, ids, counts, catalogue.shown), bias)


def make_exam(segments: Sequence[Segment], catalogue: Catalogue, actions: ActionWeights) -> Exam:
    """Resolve items; ask about the targets that are something to predict."""
    kept: list[Segment] = []
    rows: list[Ints] = []
    wanted: list[Bools] = []
    for whole in segments:
        segment, found = known_part(whole, catalogue)
        ask = actions.of(segment) > 0
        ask[: segment.first_target] = False
        if ask.any():
            kept.append(segment)
            rows.append(found)
            wanted.append(ask)
    return Exam(tuple(kept), tuple(rows), tuple(wanted))


def known_rows(segment: Segment, table: ItemTable, last: int) -> UserSequence:
    """The last events of a segment whose items a release knows, by row of its item table."""
    order = np.argsort(table.keys, kind="stable")
    place = np.searchsorted(table.keys, segment.items, sorter=order).clip(max=len(order) - 1)
    rows = order[place]
    kept = np.flatnonzero(table.keys[rows] == segment.items)[-last:]
    return UserSequence(rows[kept], segment.actions[kept], segment.values[kept], segment.ts[kept])


def sit(model: Model, exam: Exam, *, exclude_seen: bool = True) -> list[Ints]:
    """Rank of every asked event, in the exam's order; 0 where not asked."""
    sequences = [to_sequence(s, r) for s, r in zip(exam.segments, exam.rows, strict=True)]
    return prequential(
        model.head,
        model.vectors,
        model.bias,
        sequences,
        exam.wanted,
        exclude_seen=exclude_seen,
    )


def slices(exam: Exam, ranks: Sequence[Ints], counts_before: Floats) -> dict[str, Ranking]:
    """Figures of the recent exam and of its cold-item and new-user parts.

    Shapes: counts_before (N,): events behind each item before this round.
    """
    everything = _joined(ranks)
    cold = _joined([counts_before[rows] <= COLD_COUNT for rows in exam.rows])
    new = _joined(
        [
            segment.skipped + np.arange(len(rows)) < NEW_USER_EVENTS
            for segment, rows in zip(exam.segments, exam.rows, strict=True)
        ]
    )
    if not len(everything):
        return {name: summarise(everything) for name in ("recent", "cold_items", "new_users")}
    return {
        "recent": summarise(everything),
        "cold_items": summarise(everything[cold.astype(bool)]),
        "new_users": summarise(everything[new.astype(bool)]),
    }


def paired(parent: Sequence[Ints], candidate: Sequence[Ints]) -> Paired:
    """Compare two models' ranks of one exam."""
    a, b = _joined(parent), _joined(candidate)
    asked = a > 0
    old, new = gains(a[asked]), gains(b[asked])
    n = len(old)
    if n == 0:
        return Paired(0, 0.0, 0.0, 0.0)
    spread = float((new - old).std(ddof=1)) if n > 1 else 0.0
    return Paired(n, float(old.mean()), float(new.mean()), spread / float(np.sqrt(n)))


@dataclass(frozen=True, slots=True)
class Results:
    """What both models did on every exam.  `row`: the candidate's row of R before this period's
    figure is appended; `figures`: named for the manifest."""

    recent: Paired
    long_ago: Paired
    row: dict[int, float]
    figures: dict[str, float]


def examine(
    parent: Model,
    candidate: Model,
    recent: Sequence[Segment],
    periods: Mapping[int, Sequence[Segment]],
    catalogue: Catalogue,
    actions: ActionWeights,
    counts_before: Floats,
    *,
    exclude_seen: bool = True,
) -> Results:
    """Both models sit the recent exam and those of all earlier periods.

    `exclude_seen` as in serving: where users come back to items, repeats are ranked too.

    Shapes: counts_before (N,): events behind each item before this round.
    """
    now = make_exam(recent, catalogue, actions)
    old_ranks = sit(parent, now, exclude_seen=exclude_seen)
    new_ranks = sit(candidate, now, exclude_seen=exclude_seen)
    figures: dict[str, float] = {}
    for who, ranks in (("parent", old_ranks), ("candidate", new_ranks)):
        for name, ranking in slices(now, ranks, counts_before).items():
            figures[f"{name}_ndcg10_{who}"] = ranking.ndcg10
            figures[f"{name}_hr10_{who}"] = ranking.hr10
            figures[f"{name}_events"] = float(ranking.events)
    compared = paired(old_ranks, new_ranks)
    row: dict[int, float] = {}
    old_past: list[Ints] = []
    new_past: list[Ints] = []
    for period, segments in sorted(periods.items()):
        exam = make_exam(segments, catalogue, actions)
        mine = sit(candidate, exam, exclude_seen=exclude_seen)
        row[period] = _figure(mine)
        old_past += sit(parent, exam, exclude_seen=exclude_seen)
        new_past += mine
    return Results(compared, paired(old_past, new_past), row, figures)


def next_matrix(
    matrix: Sequence[Sequence[float]], row: Mapping[int, float], period: int, recent: Paired
) -> list[list[float]]:
    """R with one more row: the candidate on periods 1 to `period`, the last being this round's.

    >>> now = Paired(events=10, parent=0.1, candidate=0.3, standard_error=0.0)
    >>> next_matrix([[0.2]], {1: 0.25}, 2, now)
    [[0.2], [0.25, 0.3]]
    """
    last = recent.candidate if recent.events else NO_EVENTS
    earlier = [row.get(number, NO_EVENTS) for number in range(1, period)]
    gone = max(0, len(matrix) + 1 - KEPT_ROWS)
    kept = [list(old) for old in matrix[gone:]]
    return [*([] for _ in range(gone)), *kept, [*earlier, last]]


def backward_transfer(matrix: Sequence[Sequence[float]]) -> float:
    """Mean of R[last][j] - R[j][j] over earlier periods j: below zero means forgetting.

    Source: Lopez-Paz & Ranzato 2017 (GEM).

    >>> round(backward_transfer([[0.2], [0.1, 0.3]]), 6)
    -0.1
    """
    if len(matrix) < 2:
        return 0.0
    last = matrix[-1]
    pairs = [(last[j], row[j]) for j, row in enumerate(matrix[:-1]) if row]
    return _mean([now - then for now, then in pairs if now >= 0 and then >= 0])


def forgetting(matrix: Sequence[Sequence[float]]) -> float:
    """Mean over earlier periods of the best figure ever held, less the last; 0 at best is usual.

    Source: Chaudhry et al. 2018.

    >>> round(forgetting([[0.2], [0.25, 0.3], [0.15, 0.3, 0.4]]), 6)
    0.05
    """
    if len(matrix) < 2:
        return 0.0
    last = matrix[-1]
    lost: list[float] = []
    for j in range(len(matrix) - 1):
        before = [row[j] for row in matrix[j:-1] if row and row[j] >= 0]
        if before and last[j] >= 0:
            lost.append(max(before) - last[j])
    return _mean(lost)


def plasticity(matrix: Sequence[Sequence[float]]) -> float:
    """Mean of R[j][j]: how well each release did on its own period.

    >>> plasticity([[0.25], [0.1, 0.75]])
    0.5
    """
    return _mean([row[j] for j, row in enumerate(matrix) if j < len(row) and row[j] >= 0])


def _figure(ranks: Sequence[Ints]) -> float:
    ranking = summarise(_joined(ranks))
    return ranking.ndcg10 if ranking.events else NO_EVENTS


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else 0.0


def _joined(parts: Sequence[npt.NDArray[np.generic]]) -> Ints:
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)
