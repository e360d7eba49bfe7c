"""How well a release would have recommended: score first, then update, exactly as serving does.

`prequential` walks users' event sequences through the same arithmetic as the workers
(`profiles.updater`) and gives, for every event asked about, the rank that its item held a moment
before.  `summarise` turns ranks into HR@10 and NDCG@10.  The learner's gate, the drift sensor,
the demo's comparison and the test oracle all stand on this one file.

Two choices make these figures lower than many published ones: items are ranked against the whole
catalogue, never a sample, and a tie counts against the target, so that a model which gives every
item one score ranks last and not first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.head import Head
from profiles.layers import Floats
from profiles.trend import TrendLog
from profiles.updater import Steps, advance_all, profile_at_start, start_state

Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

UNRANKED = 0
"""Rank of an event that was not asked about, or whose target cannot be ranked."""

PAIRS_AT_ONCE = 512
"""Events scored in one matrix product: 512 x 100k items x 4 bytes are 200 MB."""


@dataclass(frozen=True, slots=True)
class UserSequence:
    """One user's events in the order in which they are applied.

    Shapes: all (n,).  items: row in the item arrays, -1 for an item that is not among them (its
    event is neither applied nor ranked); actions: index into the head's actions; values: 0 for
    none; ts: Unix seconds.
    """

    items: Ints
    actions: Ints
    values: Floats
    ts: npt.NDArray[np.float64]

    def known(self) -> Bools:
        """Which events name an item that is in the catalogue."""
        return self.items >= 0


@dataclass(frozen=True, slots=True)
class Ranking:
    """Mean figures over `events` ranked events; all 0.0 when there is none.

    `hr10`: share with rank <= 10; `ndcg10`: mean of 1/log2(1 + rank) where rank <= 10;
    `mrr`: mean of 1/rank.
    """

    events: int
    hr10: float
    ndcg10: float
    mrr: float


def gains(ranks: Ints, k: int = 10) -> npt.NDArray[np.float64]:
    """NDCG@k of each event, with one relevant item each: 1/log2(1 + rank), 0 beyond k.

    >>> gains(np.array([1, 3, 11, 0])).tolist()
    [1.0, 0.5, 0.0, 0.0]
    """
    inside = (ranks > 0) & (ranks <= k)
    return np.where(inside, 1.0 / np.log2(1.0 + np.maximum(ranks, 1)), 0.0)


def summarise(ranks: Ints, k: int = 10) -> Ranking:
    """Mean figures over the ranked events; unranked ones (0) are left out.

    >>> summarise(np.array([1, 20, 0])).hr10
    0.5
    """
    ranked = ranks[ranks > 0]
    if not len(ranked):
        return Ranking(0, 0.0, 0.0, 0.0)
    return Ranking(
        events=len(ranked),
        hr10=float((ranked <= k).mean()),
        ndcg10=float(gains(ranked, k).mean()),
        mrr=float((1.0 / ranked).mean()),
    )


def rank_loss(ranks: Ints, items: int) -> npt.NDArray[np.float64]:
    """A bounded loss per ranked event, for drift sensors: log(rank) / log(items), in [0, 1].

    >>> rank_loss(np.array([1, 100]), items=100).tolist()
    [0.0, 1.0]
    """
    losses: npt.NDArray[np.float64] = np.log(np.maximum(ranks, 1)) / np.log(max(items, 2))
    return np.minimum(losses, 1.0)


@dataclass(frozen=True, slots=True)
class Lifts:
    """A trend's log, and where in it the events of each sequence stand: one array (n,) each."""

    log: TrendLog
    places: Sequence[Ints]


def prequential(
    head: Head,
    vectors: Floats,
    bias: Floats,
    sequences: Sequence[UserSequence],
    evaluate: Sequence[Bools],
    *,
    exclude_seen: bool = True,
    block_users: int = 64,
    lifts: Lifts | None = None,
) -> list[Ints]:
    """Rank of every evaluated event's item just before the event was applied.

    Args:
        vectors, bias: the catalogue as the release sees it, (N, D) and (N,): `ItemTable.vectors`
            and `ItemTable.bias`, rows as numbered in the sequences.
        sequences: one per user, oldest event first, starting from an empty profile.
        evaluate: which events to rank, one mask (n,) per sequence; the others only move profiles.
        exclude_seen: leave items out that the user had before, as serving does.  An event that
            repeats such an item cannot be recommended, so it stays unranked.
        lifts: lift scores by what the stream had turned to before, as serving does.
    Returns: one array (n,) per sequence: 1 is best, `UNRANKED` where not evaluated.  Ties, and
        scores that are not numbers, count against the target.
    Cost: O(events · D²) to update, O(evaluated · N · D) to rank; memory bounded by `block_users`
        sequences and `PAIRS_AT_ONCE` score rows.
    """
    ranks = [np.full(len(sequence.items), UNRANKED, dtype=np.int64) for sequence in sequences]
    order = sorted(range(len(sequences)), key=lambda user: len(sequences[user].items))
    for start in range(0, len(order), block_users):
        block = [user for user in order[start : start + block_users] if evaluate[user].any()]
        if block:
            _rank_block(head, vectors, bias, sequences, evaluate, exclude_seen, block, ranks, lifts)
    return ranks


def scores_before(
    head: Head,
    vectors: Floats,
    bias: Floats,
    sequences: Sequence[UserSequence],
    *,
    block_users: int = 64,
) -> list[Floats]:
    """Score of every event's own item just before the event was applied; all items known.

    Shapes: as in `prequential`; -> one array (n,) per sequence.
    """
    found: list[Floats] = [np.zeros(len(s.items), dtype=np.float32) for s in sequences]
    order = sorted(range(len(sequences)), key=lambda user: len(sequences[user].items))
    for start in range(0, len(order), block_users):
        block = [user for user in order[start : start + block_users] if len(found[user])]
        if not block:
            continue
        kept = [np.arange(len(found[user])) for user in block]
        profiles = profiles_before(head, vectors, [sequences[user] for user in block], kept)
        for row, user in enumerate(block):
            items = sequences[user].items
            own = (profiles[row, : len(items)] * vectors[items]).sum(axis=1)
            found[user] = (own * head.score_scale[0] + bias[items]).astype(np.float32)
    return found


def _rank_block(
    head: Head,
    vectors: Floats,
    bias: Floats,
    sequences: Sequence[UserSequence],
    evaluate: Sequence[Bools],
    exclude_seen: bool,
    block: Sequence[int],
    ranks: list[Ints],
    lifts: Lifts | None = None,
) -> None:
    kept = [np.flatnonzero(sequences[user].known()) for user in block]
    profiles = profiles_before(head, vectors, [sequences[u] for u in block], kept)
    pairs: list[tuple[int, int, int]] = []  # (row in block, position among kept, position)
    for row, user in enumerate(block):
        items = sequences[user].items[kept[row]]
        first_time = np.zeros(len(items), dtype=np.bool_)
        first_time[np.unique(items, return_index=True)[1]] = True
        wanted = evaluate[user][kept[row]] & (first_time | (not exclude_seen))
        pairs += [(row, int(p), int(kept[row][p])) for p in np.flatnonzero(wanted)]
    if lifts is not None:
        pairs.sort(key=lambda pair: lifts.places[block[pair[0]]][pair[2]])
    for start in range(0, len(pairs), PAIRS_AT_ONCE):
        chunk = pairs[start : start + PAIRS_AT_ONCE]
        rows = np.array([pair[0] for pair in chunk])
        places = np.array([pair[1] for pair in chunk])
        scores = profiles[rows, places] @ vectors.T * head.score_scale[0] + bias
        if lifts is not None:
            stands = np.array([lifts.places[block[r]][position] for r, _, position in chunk])
            scores += lifts.log.before(stands)
        target_items = np.array([sequences[block[r]].items[p] for r, _, p in chunk])
        targets = scores[np.arange(len(chunk)), target_items].copy()
        if exclude_seen:
            seen = [sequences[block[r]].items[kept[r][:p]] for r, p, _ in chunk]
            seen_rows = np.repeat(np.arange(len(chunk)), [len(items) for items in seen])
            scores[seen_rows, np.concatenate(seen)] = -np.inf
        # "not below" rather than "above": a tie or a NaN then counts against the target.
        not_below = ~(scores < targets[:, None])
        found = np.maximum(not_below.sum(axis=1), 1)
        for (row, _, position), rank in zip(chunk, found, strict=True):
            ranks[block[row]][position] = rank


def profiles_before(
    head: Head, vectors: Floats, sequences: Sequence[UserSequence], kept: Sequence[Ints]
) -> Floats:
    """Profile before each known event.  Shapes: -> (B, S, D), S the longest of the block."""
    length = max(len(rows) for rows in kept)
    users = len(sequences)
    items = np.zeros((users, length), dtype=np.int64)
    actions = np.zeros((users, length), dtype=np.int64)
    values = np.zeros((users, length), dtype=np.float32)
    gaps = np.full((users, length), np.nan)
    mask = np.zeros((users, length), dtype=np.bool_)
    for row, (sequence, rows) in enumerate(zip(sequences, kept, strict=True)):
        n = len(rows)
        items[row, :n] = sequence.items[rows]
        actions[row, :n] = sequence.actions[rows]
        values[row, :n] = sequence.values[rows]
        if n > 1:
            gaps[row, 1:n] = np.maximum(np.diff(sequence.ts[rows]), 0.0)
        mask[row, :n] = True
    steps = Steps(vectors[items], actions, values, gaps)
    _, after = advance_all(head, start_state(head, users), steps, mask)
    before = np.empty_like(after)
    before[:, :1] = profile_at_start(head, users)[:, None]
    before[:, 1:] = after[:, :-1]
    return before
