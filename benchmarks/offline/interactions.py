"""A data set as the benchmarks see it: events in numpy columns, time-ordered, and item texts.

Reads through `stream.datasets`, so whatever `driftline replay` takes can be compared on: MovieLens
in every layout, Amazon JSONL, MIND, CSV and Parquet by a mapping.  A row's number is its place in
time; equal timestamps keep the order of the file, without which published results have moved by a
quarter of the test set.  Item codes are places in `item_ids`, the whole catalogue, also of items
that nobody touched.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.offline.exchange import Task
from benchmarks.offline.histories import Bools, Doubles, Floats, Ints
from benchmarks.offline.protocols import Split
from profiles.errors import DatasetError
from profiles.items import Item
from stream.datasets import Codes, Dataset, EventTable, load_dataset


@dataclass(frozen=True, slots=True)
class Interactions:
    """N events in time order, and the catalogue.

    Shapes: users, items, actions (N,) codes into `user_ids`, `catalogue`, `action_names`; values
    (N,) NaN for none; ts (N,) Unix seconds.
    """

    name: str
    source: str
    synthetic: bool
    users: Ints
    items: Ints
    actions: Ints
    values: Floats
    ts: Doubles
    user_ids: tuple[str, ...]
    action_names: tuple[str, ...]
    catalogue: tuple[Item, ...]

    def __len__(self) -> int:
        return len(self.ts)

    def texts(self) -> tuple[str, ...]:
        """What the encoder reads of each item."""
        return tuple(item.full_text() for item in self.catalogue)

    def task(self, split: Split, text: Floats) -> Task:
        """What a method is given.  Shapes: text (items, T), the frozen encoder's vectors."""
        return Task(
            split,
            self.users,
            self.items,
            self.actions,
            self.values,
            self.ts,
            text,
            self.texts(),
            self.action_names,
        )

    def take(self, rows: Ints | Bools) -> Interactions:
        """Only these events, renumbered; users and items without any are gone."""
        kept_users, users = np.unique(self.users[rows], return_inverse=True)
        kept_items, items = np.unique(self.items[rows], return_inverse=True)
        return Interactions(
            self.name,
            self.source,
            self.synthetic,
            users.astype(np.int64),
            items.astype(np.int64),
            self.actions[rows],
            self.values[rows],
            self.ts[rows],
            tuple(self.user_ids[user] for user in kept_users),
            self.action_names,
            tuple(self.catalogue[item] for item in kept_items),
        )

    def some_users(self, count: int, seed: int) -> Interactions:
        """The events of `count` users drawn at random: a small set of the same shape."""
        users = len(self.user_ids)
        if count >= users:
            return self
        chosen = np.zeros(users, np.bool_)
        chosen[np.random.default_rng(seed).permutation(users)[:count]] = True
        return self.take(chosen[self.users])

    def core(self, least: int) -> Interactions:
        """Drop users and items with fewer than `least` events until none is left.

        Raises: DatasetError when nothing remains.
        """
        kept = np.ones(len(self), np.bool_)
        while True:
            few = np.zeros(len(self), np.bool_)
            for codes, size in (
                (self.users, len(self.user_ids)),
                (self.items, len(self.catalogue)),
            ):
                few |= (np.bincount(codes[kept], minlength=size) < least)[codes]
            if not (kept & few).any():
                break
            kept &= ~few
        if not kept.any():
            raise DatasetError(f"no user and item of {self.name} has {least} events; lower --core")
        return self if kept.all() else self.take(kept)


def load_interactions(
    spec: str, path: Path | None = None, mapping: Mapping[str, str] | None = None
) -> Interactions:
    """Read a data set (see `stream.datasets.load_dataset`).  Raises: DatasetError."""
    return from_dataset(load_dataset(spec, path, mapping))


def from_dataset(dataset: Dataset) -> Interactions:
    """Bring a loaded data set into columns.

    Raises: DatasetError when there is no event, or none names an item of the catalogue.
    """
    events = dataset.events
    table = events if isinstance(events, EventTable) else _table(dataset)
    row = {item.item_id: place for place, item in enumerate(dataset.items)}
    place = np.array([row.get(text, -1) for text in table.items.texts], np.int64)
    items = place[table.items.code] if len(place) else np.zeros(0, np.int64)
    kept = items >= 0
    if not kept.any():
        raise DatasetError(f"no event of {dataset.name} names an item of its catalogue")
    return Interactions(
        name=dataset.name,
        source=Path(dataset.source).name,
        synthetic=dataset.synthetic,
        users=table.users.code[kept].astype(np.int64),
        items=items[kept],
        actions=table.actions.code[kept].astype(np.int64),
        values=table.values[kept].astype(np.float32),
        ts=table.ts[kept],
        user_ids=table.users.texts,
        action_names=table.actions.texts,
        catalogue=tuple(dataset.items),
    )


def _table(dataset: Dataset) -> EventTable:
    """Events that came one by one (synthetic ones) as columns."""
    events: Sequence = list(dataset.events)  # type: ignore[type-arg]
    return EventTable(
        prefix=dataset.name,
        lines=np.arange(len(events), dtype=np.int64),
        users=Codes.of(np.array([event.user_id for event in events], dtype=object)),
        items=Codes.of(np.array([event.item_id for event in events], dtype=object)),
        actions=Codes.of(np.array([event.action for event in events], dtype=object)),
        ts=np.array([event.ts for event in events], np.float64),
        values=np.array(
            [np.nan if event.value is None else event.value for event in events], np.float64
        ),
    ).in_time_order()
