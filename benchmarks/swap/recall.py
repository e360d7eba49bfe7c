"""How good recommendations are right after a swap, against a full re-embedding.

A swap rebuilds a profile from its bounded history.  The full re-embedding starts from nothing and
reads every event that the user ever had, up to the one that caused the recommendation, in the new
release; seen items are left out exactly, not by a Bloom filter.  recall@10 is the share of the ten
best items of the full re-embedding that the worker's first recommendation after the flip has.

Beside it stands what each bound costs alone, computed here: `history_alone` forgets the older
events and leaves seen items out exactly, `filter_alone` reads everything and asks the filter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.deployment import Deployment
from benchmarks.harness import Result
from benchmarks.load import Events
from benchmarks.reading import read_topic
from benchmarks.swap.aftermath import open_space
from profiles.catalog import Rows
from profiles.layers import Floats
from profiles.scoring import score_all
from profiles.space import Space
from profiles.state import mark_seen, was_seen
from profiles.updater import Steps, advance_all, start_state

TOP = 10
SAMPLE = 500
"""Users compared after each swap: the first ones that got an answer from the new release."""


class Listed(msgspec.Struct, frozen=True, gc=False):
    """The one field read of a recommended item."""

    item_id: str


class Output(msgspec.Struct, frozen=True, gc=False):
    """The fields of a recommendation that are compared."""

    user_id: str
    release_id: str
    cause_id: str
    items: list[Listed]
    produced_at: float


@dataclass(frozen=True, slots=True)
class Past:
    """Everything that was ever produced, in the order of the log within each user.

    Shapes: users, items, ts (M,); `at` maps an event id to its place.
    """

    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    ts: npt.NDArray[np.float64]
    at: Mapping[str, int]

    @classmethod
    def of(cls, *parts: Events) -> Past:
        """One past from the events poured in first, second and so on."""
        ids = [event_id for part in parts for event_id in part.ids]
        return cls(
            np.concatenate([part.users for part in parts]),
            np.concatenate([part.items for part in parts]),
            np.concatenate([part.ts for part in parts]),
            {event_id: at for at, event_id in enumerate(ids)},
        )


async def first_outputs(made: Deployment, releases: Sequence[str]) -> dict[str, list[Output]]:
    """Of each release, the first output of each of the first `SAMPLE` users it answered."""
    decoder = msgspec.json.Decoder(Output)
    found: dict[str, dict[str, Output]] = {release: {} for release in releases}
    async for record in read_topic(made, made.topics.recommendations):
        output = decoder.decode(record.value or b"")
        if output.release_id in found:
            found[output.release_id].setdefault(output.user_id, output)
    return {
        release: sorted(outputs.values(), key=lambda output: output.produced_at)[:SAMPLE]
        for release, outputs in found.items()
    }


def recall_after(
    made: Deployment, release_id: str, outputs: Sequence[Output], past: Past
) -> Result:
    """recall@10 of outputs against the full re-embedding, mean and worst."""
    space, _ = open_space(made, release_id)
    action = list(space.head.actions).index("click")
    by_user = np.argsort(past.users, kind="stable")
    starts = np.searchsorted(past.users[by_user], np.arange(past.users.max() + 2))
    recalls, histories, filters, long_pasts = [], [], [], 0
    kept, seen_bytes = made.settings.profile.history, made.settings.profile.seen_bytes
    for output in outputs:
        user = int(output.user_id.removeprefix("user-"))
        mine = by_user[starts[user] : starts[user + 1]]
        mine = mine[mine <= past.at[output.cause_id]]
        long_pasts += len(mine) > kept
        items, ts = past.items[mine], past.ts[mine]
        full = _scores(space, items, ts, action)
        best = _top(full, items)
        recalls.append(len(best & {item.item_id for item in output.items}) / TOP)
        bounded = _scores(space, items[-kept:], ts[-kept:], action)
        histories.append(len(best & _top(bounded, items)) / TOP)
        filters.append(len(best & _top(full, _called_seen(space, items, seen_bytes))) / TOP)
    return {
        "release": release_id,
        "users": len(recalls),
        "with_more_events_than_remembered": int(long_pasts),
        "mean": _mean(recalls),
        "worst": min(recalls, default=None),
        "history_alone": _mean(histories),
        "filter_alone": _mean(filters),
    }


def _mean(recalls: Sequence[float]) -> float | None:
    return round(float(np.mean(recalls)), 4) if recalls else None


def _scores(space: Space, items: Rows, ts: npt.NDArray[np.float64], action: int) -> Floats:
    """Of every item, for one user read from the first of these events on.  Shapes: -> (N,)."""
    steps = Steps(
        items=space.vectors[items][None],
        actions=np.full((1, len(items)), action),
        values=np.zeros((1, len(items)), np.float32),
        gaps_s=np.concatenate([[np.nan], np.maximum(np.diff(ts), 0.0)])[None],
    )
    mask = np.ones((1, len(items)), np.bool_)
    _, trail = advance_all(space.head, start_state(space.head, 1), steps, mask)
    scores: Floats = score_all(trail[:, -1], space)[0]
    return scores


def _called_seen(space: Space, items: Rows, seen_bytes: int) -> Rows:
    """Items that the filter of a user who saw these takes for seen."""
    each = np.zeros((len(items), seen_bytes), np.uint8)
    mark_seen(each, np.arange(len(items)), space.slots[items])
    return np.flatnonzero(was_seen(np.bitwise_or.reduce(each)[None], space.slots)[0])


def _top(scores: Floats, seen: Rows) -> set[str]:
    """The ten best items but for those seen."""
    left = scores.copy()
    left[seen] = -np.inf
    return {f"item-{row}" for row in np.argsort(-left, kind="stable")[:TOP].tolist()}
