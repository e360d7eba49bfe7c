"""From profiles to ranked items: one matrix product and an exact top-k.

score(user, item) = scale · profile · item + bias(item); a declared interest is added to the
profile and fades as events arrive.  What is ranked is that score and the lift of the present trend
(`profiles.trend`); `plain` takes the lift off again.  The top-k is exact (`profiles.choosing`).

A space with cells (`profiles.cells`, catalogues beyond `serving.exact_items`) ranks the rows that
they propose instead of all: `candidates` is the one place that knows the difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.catalog import Rows
from profiles.cells import Cells
from profiles.choosing import choose_best, count_better
from profiles.layers import Floats
from profiles.space import Space
from profiles.state import Records, was_seen

SCORES_AT_ONCE = 1_300_000
"""Scores made together where they are not kept: more leave the processor's cache.  But a matrix
product wants many rows: `LEAST_AT_ONCE` users in any case.
"""
LEAST_AT_ONCE = 32
SEARCHED_AT_ONCE = 64
FEW_ROWS = 20_000
"""So few rows are multiplied directly sooner than cells are searched for them."""
INTEREST_FADE_EVENTS = 1.0
"""After so many events a declared interest weighs half as much as at first: acts say more than
words do, and at 5 it did harm from the first event on (decision 0018)."""


@dataclass(frozen=True, slots=True)
class Ranked:
    """Best items per user.  Shapes: rows (B, K) catalogue rows, -1 for none; scores (B, K)."""

    rows: Rows
    scores: Floats


def queries(records: Records, space: Space) -> Floats:
    """What is multiplied with the items: profile plus fading interest.

    Every record must already be in the space's release; an interest that is not is left out.
    Shapes: -> (B, D), float32.
    """
    fade = INTEREST_FADE_EVENTS / (INTEREST_FADE_EVENTS + records["events"].astype(np.float32))
    fresh = (records["interest_release"] == space.key).astype(np.float32) * fade
    out: Floats = records["profile"] + fresh[:, None] * records["interest"].astype(np.float32)
    return out


def score_all(query: Floats, space: Space) -> Floats:
    """Lifted scores of every catalogue row; rows without a vector get -inf.

    Shapes: (B, D) -> (B, N).
    """
    scaled = np.ones((len(query), query.shape[1] + 1), np.float32)  # the last is for the bias
    np.multiply(query, space.head.score_scale[0], out=scaled[:, :-1])
    scores: Floats = scaled @ space.columns
    return scores


def flat_places(columns: Rows, width: int) -> Rows:
    """Where the columns named row by row lie in a flat array with rows of `width`.

    `array.take(flat_places(columns, width))` is what `np.take_along_axis` does: for a small round
    1.5 us instead of 13.5, and 9 for the places, which serve every array in the same order.
    Shapes: (..., M) -> (..., M).
    """
    rows = columns.shape[:-1]
    starts = np.arange(math.prod(rows)).reshape(*rows, 1) * width
    places: Rows = columns + starts
    return places


_NO_FILTERS = np.zeros((0, 0), np.uint8)
_NO_SLOTS = np.zeros((0, 0), np.intp)


def top_k(
    scores: Floats,
    allowed: npt.NDArray[np.bool_],
    k: int,
    seen: npt.NDArray[np.uint8] = _NO_FILTERS,
    slots: Rows = _NO_SLOTS,
) -> Ranked:
    """The k best allowed rows, best first, exact; of those that the users' filters do not name,
    where these are given.  Equal scores stand in row order: the same state gives the same list.

    Shapes: scores (B, N), allowed (N,), seen (B, bytes), slots (N, hashes) -> (B, k), padded.
    """
    rows = np.full((len(scores), k), -1, np.intp)
    best = np.full((len(scores), k), -np.inf, np.float32)
    if k:
        choose_best(scores, allowed, seen, slots, len(seen) > 0, rows, best)
    return Ranked(rows, best)


def exact(query: Floats, space: Space, allowed: npt.NDArray[np.bool_], k: int) -> Ranked:
    """The k best allowed rows of all.  Shapes: query (B, D), allowed (N,) -> (B, min(k, N))."""
    return top_k(score_all(query, space), allowed, min(k, len(allowed)))


def candidates(query: Floats, space: Space, allowed: npt.NDArray[np.bool_], k: int) -> Ranked:
    """The k best allowed rows: of all, or of those that the space's cells propose.

    Exact all the same: rows newer than the cells, users whose search would be wide, and filters
    that leave few rows.
    Shapes: query (B, D), allowed (N,) -> (B, k), padded with row -1 and score -inf.
    """
    if space.cells is None:
        return exact(query, space, allowed, k)
    if np.count_nonzero(allowed) <= FEW_ROWS:
        return best_of(query, space, np.flatnonzero(allowed), k)
    parts = [
        _proposed(query[start : start + SEARCHED_AT_ONCE], space, space.cells, allowed, k)
        for start in range(0, max(len(query), 1), SEARCHED_AT_ONCE)
    ]
    return Ranked(
        np.concatenate([part.rows for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


def _proposed(
    query: Floats, space: Space, cells: Cells, allowed: npt.NDArray[np.bool_], k: int
) -> Ranked:
    found = cells.search(query, allowed, k)
    near = (query * space.head.score_scale[0])[:, None, :] @ space.vectors[found.rows].mT
    near = np.where(found.rows >= 0, near[:, 0] + space.lifted_bias[found.rows], -np.inf)
    tail = cells.tail(space.known)
    later = best_of(query, space, tail[allowed[tail]], k)
    rows = np.concatenate([found.rows, later.rows], axis=1)
    scores = np.concatenate([near, later.scores], axis=1)
    places = flat_places(np.lexsort((rows, -scores), axis=1)[:, :k], rows.shape[1])
    ranked = Ranked(rows.take(places), scores.take(places))
    wide = np.flatnonzero(found.wide)
    for within in _parts(len(wide), space):
        part = wide[within]
        whole = exact(query[part], space, allowed, k)
        ranked.rows[part], ranked.scores[part] = whole.rows, whole.scores
    return ranked


def recalled(
    query: Floats, space: Space, allowed: npt.NDArray[np.bool_], k: int
) -> tuple[int, int]:
    """Of the k truly best rows of each query, how many `candidates` finds: (found, of)."""
    best = exact(query, space, allowed, k)
    proposed = candidates(query, space, allowed, k).rows
    real = np.isfinite(best.scores)
    hit = (best.rows[:, :, None] == proposed[:, None, :]).any(axis=2)
    return int((hit & real).sum()), int(real.sum())


def best_of(query: Floats, space: Space, rows: Rows, k: int) -> Ranked:
    """The k best of some rows.  Shapes: rows (M,) -> (B, k), padded."""
    scores = (query * space.head.score_scale[0]) @ space.vectors[rows].T
    scores += space.lifted_bias[rows]
    best = top_k(scores, np.ones(len(rows), np.bool_), k)
    named = np.where(best.rows >= 0, rows.take(best.rows.clip(0)), -1) if len(rows) else best.rows
    return Ranked(named, best.scores)


def plain(ranked: Ranked, space: Space) -> Ranked:
    """The same items in the same order, each with the score that the release alone gives it."""
    if not len(space.lifts):
        return ranked
    lifts = np.where(ranked.rows >= 0, space.lifts[ranked.rows], np.float32(0.0))
    return Ranked(ranked.rows, ranked.scores - lifts)


def by_score(ranked: Ranked) -> Ranked:
    """The same items in the order of their scores; equal ones stay in theirs.  Shapes: (B, K)."""
    places = flat_places(np.argsort(-ranked.scores, axis=1, kind="stable"), ranked.rows.shape[1])
    return Ranked(ranked.rows.take(places), ranked.scores.take(places))


def recommend(
    records: Records,
    space: Space,
    allowed: npt.NDArray[np.bool_],
    k: int,
    exclude_seen: bool,
) -> Ranked:
    """The k best allowed, unseen items for each user.

    What cells propose is ranked generously and the seen ones are dropped; only users for whom too
    few are left are ranked again over everything.
    Shapes: records (B,), allowed (N,) -> (B, k), padded with row -1 and score -inf.
    """
    query = queries(records, space)

    def from_all(of: Rows | slice) -> Ranked:
        seen = records["seen"][of] if exclude_seen else _NO_FILTERS
        return top_k(score_all(query[of], space), allowed, k, seen, space.slots)

    if space.cells is None:
        return from_all(slice(None))
    generous = candidates(query, space, allowed, min(2 * k + 4, len(allowed)))
    ranked = _drop(generous, records, space, k, exclude_seen)
    short = np.flatnonzero((ranked.rows < 0).any(axis=1))
    if len(short) and generous.rows.shape[1] < int((allowed & space.known).sum()):
        again = from_all(short)
        ranked.rows[short], ranked.scores[short] = again.rows, again.scores
    return ranked


def _drop(ranked: Ranked, records: Records, space: Space, k: int, exclude_seen: bool) -> Ranked:
    keep = np.isfinite(ranked.scores)
    if exclude_seen:
        keep &= ~was_seen(records["seen"], space.slots[ranked.rows])
    # A stable sort on "dropped" moves the kept ones to the front without changing their order.
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    places = flat_places(order, keep.shape[1])
    kept = keep.take(places)
    rows = np.where(kept, ranked.rows.take(places), -1)
    scores = np.where(kept, ranked.scores.take(places), -np.inf)
    if rows.shape[1] < k:
        gap = k - rows.shape[1]
        rows = np.pad(rows, ((0, 0), (0, gap)), constant_values=-1)
        scores = np.pad(scores, ((0, 0), (0, gap)), constant_values=-np.inf)
    return Ranked(rows, scores.astype(np.float32))


def unseen_ranks(
    profiles: Floats,
    seen: npt.NDArray[np.uint8],
    targets: Rows,
    allowed: npt.NDArray[np.bool_],
    space: Space,
) -> npt.NDArray[np.int64]:
    """Rank of each user's target among unseen allowed items, 0 is best; ties count against us.

    The target itself takes part even if it was seen.
    Shapes: profiles (B, D), seen (B, bytes), targets (B,) rows -> (B,).
    """
    ranks = np.empty(len(targets), dtype=np.int64)
    by_slot, starts = space.rows_by_first_slot()
    for part in _parts(len(targets), space):
        scores = score_all(profiles[part], space)
        count_better(
            scores, allowed, seen[part], space.slots, by_slot, starts, targets[part], ranks[part]
        )
    return ranks


def _parts(users: int, space: Space) -> Iterator[slice]:
    """Users to be ranked together."""
    count = max(LEAST_AT_ONCE, SCORES_AT_ONCE // max(len(space.known), 1))
    return (slice(start, start + count) for start in range(0, users, count))
