"""From users' runs of events to padded training windows, and from windows to batches.

A `Segment` is what the replay buffer hands out: a run of one user's events, some of them only
context.  `make_windows` cuts segments into windows of fixed width; `batches` shuffles, buckets by
length, and mixes past windows in.  Everything random comes from a generator passed in.

An event of negative weight (dislike, hide, a rating of 1 or 2 stars) moves the profile as every
event does, but is never something to predict; its `Verdict` tells the objective what it was.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
import torch

from learner.catalogue import Catalogue
from learner.model import Batch
from profiles.evaluation import Ints, UserSequence
from profiles.layers import Floats
from profiles.positive import Bools, is_low_rating, rate_action, target_weights
from profiles.release import Keys

BUCKET_BATCHES = 16
"""Batches whose windows are sorted by length together: less padding, still well shuffled."""


class Verdict(IntEnum):
    """What an event says about its item, where it is a target.

    PASSED: the user met the item and did none of the positive actions.
    """

    UNASKED = 0
    POSITIVE = 1
    PASSED = 2
    DISLIKED = 3


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of one user's events, time-ordered; equal times keep their order of arrival.

    `user` is a pseudonym (`key64`); events before `first_target` are context; `skipped` counts
    the user's events before the segment, so 0 means that it begins with the very first one.
    Shapes: all (n,).  items: item keys; orders: arrival numbers, unique over all users.
    """

    user: int
    skipped: int
    first_target: int
    items: Keys
    ts: npt.NDArray[np.float64]
    actions: npt.NDArray[np.int64]
    values: Floats
    orders: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Windows:
    """W windows of at most S inputs, padded on the right.  Shapes as in `learner.model.Batch`;
    users (W,) pseudonyms."""

    items: npt.NDArray[np.int32]
    actions: npt.NDArray[np.int16]
    values: Floats
    gaps_s: Floats
    lengths: npt.NDArray[np.int32]
    targets: npt.NDArray[np.int32]
    weights: Floats
    verdicts: npt.NDArray[np.uint8]
    users: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.lengths)


@dataclass(frozen=True, slots=True)
class ActionWeights:
    """The settings' action weights in the order of the head's actions."""

    names: tuple[str, ...]
    weights: Floats

    @classmethod
    def from_settings(cls, actions: Mapping[str, float]) -> ActionWeights:
        """Sorted by name, so that every process numbers actions alike."""
        names = tuple(sorted(actions))
        return cls(names, np.array([actions[name] for name in names], dtype=np.float32))

    def of(self, segment: Segment) -> Floats:
        """Target weight of each event of a segment, context included."""
        return target_weights(self.weights, self._rate, segment.actions, segment.values)

    def verdicts_of(
        self, segment: Segment, positive_actions: Collection[str] = ()
    ) -> npt.NDArray[np.uint8]:
        """Verdict of each event, context included.

        Args:
            positive_actions: those that count as positive; none: every one of positive weight.
        """
        chosen = [not positive_actions or name in positive_actions for name in self.names]
        positive = (self.of(segment) > 0) & np.array(chosen)[segment.actions]
        disliked = self.weights[segment.actions] < 0
        disliked |= is_low_rating(self._rate, segment.actions, segment.values)
        verdicts = np.where(positive, Verdict.POSITIVE, Verdict.PASSED)
        return np.where(disliked, Verdict.DISLIKED, verdicts).astype(np.uint8)

    @property
    def _rate(self) -> int:
        return rate_action(self.names)


def known_part(segment: Segment, catalogue: Catalogue) -> tuple[Segment, Ints]:
    """The segment without events of items that are not in the catalogue, and its rows."""
    rows = catalogue.rows(segment.items)
    kept = rows >= 0
    if kept.all():
        return segment, rows
    return (
        Segment(
            segment.user,
            segment.skipped,
            int(kept[: segment.first_target].sum()),
            segment.items[kept],
            segment.ts[kept],
            segment.actions[kept],
            segment.values[kept],
            segment.orders[kept],
        ),
        rows[kept],
    )


def holdout_border(segments: Sequence[Segment], share: float) -> tuple[float, int]:
    """(ts, arrival number) from which on target events are held out: the most recent `share`."""
    ts = np.concatenate([s.ts[s.first_target :] for s in segments])
    orders = np.concatenate([s.orders[s.first_target :] for s in segments])
    by_time = np.lexsort((orders, ts))
    place = by_time[min(int(len(ts) * (1.0 - share)), len(ts) - 1)]
    return float(ts[place]), int(orders[place])


def is_held_out(segment: Segment, border: tuple[float, int]) -> Bools:
    """Which events lie at or after the border.  Shapes: -> (n,)."""
    ts, order = border
    held: Bools = (segment.ts > ts) | ((segment.ts == ts) & (segment.orders >= order))
    return held


def before_border(segment: Segment, border: tuple[float, int]) -> Segment | None:
    """The part that may be learned from; None when no target is left."""
    count = int((~is_held_out(segment, border)).sum())
    if count <= segment.first_target:
        return None
    return Segment(
        segment.user,
        segment.skipped,
        segment.first_target,
        segment.items[:count],
        segment.ts[:count],
        segment.actions[:count],
        segment.values[:count],
        segment.orders[:count],
    )


def to_sequence(segment: Segment, rows: Ints) -> UserSequence:
    """What `profiles.evaluation.prequential` walks."""
    return UserSequence(rows, segment.actions, segment.values, segment.ts)


@dataclass(frozen=True, slots=True)
class _Cut:
    """A window to be: events `begin` to `end` of a segment, targets from `first` on."""

    segment: Segment
    rows: Ints
    weights: Floats
    verdicts: npt.NDArray[np.uint8]
    begin: int
    first: int
    end: int


def make_windows(
    segments: Sequence[Segment],
    catalogue: Catalogue,
    weights: ActionWeights,
    length: int,
    positive_actions: Collection[str] = (),
    *,
    with_dislikes: bool = False,
) -> Windows:
    """Cut segments into windows of at most `length` inputs.

    A first window begins up to length/2 context events before the first target; each next one
    begins length/5 events before its first target.  Windows without a positive target are left
    out, unless dislikes teach something, too (`with_dislikes`).
    """
    parts: list[_Cut] = []
    for whole in segments:
        segment, rows = known_part(whole, catalogue)
        if len(rows) <= segment.first_target:
            continue
        weight = weights.of(segment)
        verdicts = weights.verdicts_of(segment, positive_actions)
        first, begin = segment.first_target, max(0, segment.first_target - length // 2)
        while first < len(rows):
            end = min(begin + length + 1, len(rows))
            if weight[first:end].any() or with_dislikes:
                parts.append(_Cut(segment, rows, weight, verdicts, begin, first, end))
            first, begin = end, max(0, end - max(length // 5, 1))
    return _fill(parts, length)


def _fill(parts: Sequence[_Cut], length: int) -> Windows:
    count = len(parts)
    made = Windows(
        items=np.zeros((count, length), np.int32),
        actions=np.zeros((count, length), np.int16),
        values=np.zeros((count, length), np.float32),
        gaps_s=np.full((count, length), np.nan, np.float32),
        lengths=np.zeros(count, np.int32),
        targets=np.zeros((count, length + 1), np.int32),
        weights=np.zeros((count, length + 1), np.float32),
        verdicts=np.zeros((count, length + 1), np.uint8),
        users=np.array([cut.segment.user for cut in parts], np.uint64),
    )
    for row, cut in enumerate(parts):
        # Column t of the targets is what follows t inputs: event begin + t.
        segment, begin, first, end = cut.segment, cut.begin, cut.first, cut.end
        size = end - begin
        inputs = size - 1
        made.items[row, :inputs] = cut.rows[begin : end - 1]
        made.actions[row, :inputs] = segment.actions[begin : end - 1]
        made.values[row, :inputs] = segment.values[begin : end - 1]
        if inputs > 1:
            gaps = np.diff(segment.ts[begin : end - 1])
            made.gaps_s[row, 1:inputs] = np.maximum(gaps, 0.0)
        made.lengths[row] = inputs
        made.targets[row, :size] = cut.rows[begin:end]
        made.weights[row, first - begin : size] = cut.weights[first:end]
        made.verdicts[row, first - begin : size] = cut.verdicts[first:end]
        if segment.skipped + begin > 0:
            # The start profile predicts a user's very first event and no other.
            made.weights[row, 0], made.verdicts[row, 0] = 0.0, Verdict.UNASKED
    return made


def join(windows: Windows, rows: Ints, past: Windows, past_rows: Ints) -> Batch:
    """One batch of fresh and past windows, trimmed to the longest of them."""
    both = [(windows, rows), (past, past_rows)]
    lengths = np.concatenate([w.lengths[r] for w, r in both])
    width = max(int(lengths.max(initial=0)), 1)

    def column(name: str, wide: int) -> npt.NDArray[np.generic]:
        parts = [getattr(w, name)[r, :wide] for w, r in both if len(r)]
        stacked: npt.NDArray[np.generic] = np.concatenate(parts)
        return stacked

    return Batch(
        items=torch.from_numpy(column("items", width).astype(np.int64)),
        actions=torch.from_numpy(column("actions", width).astype(np.int64)),
        values=torch.from_numpy(column("values", width).astype(np.float32)),
        gaps_s=torch.from_numpy(column("gaps_s", width).astype(np.float32)),
        mask=torch.from_numpy(np.arange(width)[None] < lengths[:, None]),
        targets=torch.from_numpy(column("targets", width + 1).astype(np.int64)),
        weights=torch.from_numpy(column("weights", width + 1).astype(np.float32)),
        replayed=torch.from_numpy(np.arange(len(lengths)) >= len(rows)),
        verdicts=torch.from_numpy(column("verdicts", width + 1).astype(np.uint8)),
    )


def batches(
    fresh: Windows,
    past: Windows,
    batch_users: int,
    replay_share: float,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """One epoch: every fresh window once, in batches whose `replay_share` are past windows.

    No past window comes twice in an epoch: with little past its share is smaller.
    """
    take_fresh = batch_users - past_per_batch(len(fresh), len(past), batch_users, replay_share)
    order = _bucketed(fresh, take_fresh, rng)
    past_order = rng.permutation(len(past))
    used = 0
    for rows in order:
        # A short last batch gets a proportionally small past.
        wanted = round((batch_users - take_fresh) * len(rows) / take_fresh)
        yield join(fresh, rows, past, past_order[used : used + wanted])
        used += wanted


def past_per_batch(fresh: int, past: int, batch_users: int, replay_share: float) -> int:
    """Past windows in a batch: their share, or what spreads all of them over the epoch.

    >>> past_per_batch(1000, 5000, 64, 0.5), past_per_batch(1000, 100, 64, 0.5)
    (32, 6)
    """
    evenly = math.ceil(batch_users * past / max(fresh + past, 1))
    return min(round(batch_users * replay_share), evenly, batch_users - 1)


def _bucketed(windows: Windows, size: int, rng: np.random.Generator) -> list[Ints]:
    order = rng.permutation(len(windows))
    groups: list[Ints] = []
    for start in range(0, len(order), size * BUCKET_BATCHES):
        bucket = order[start : start + size * BUCKET_BATCHES]
        bucket = bucket[np.argsort(-windows.lengths[bucket], kind="stable")]
        groups += [bucket[at : at + size] for at in range(0, len(bucket), size)]
    return [groups[at] for at in rng.permutation(len(groups))]
