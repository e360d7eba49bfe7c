"""The profiles changelog as columns: how far each profile had come, record by record.

Only what is compared is kept of every record; the last one of each user is kept whole.  The topic
is compacted: where offsets are missing, older records are gone, and `compacted_to` says up to
where, so that nothing is concluded from their absence.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.fences import is_fence
from profiles.layers import Floats
from profiles.state import RecordLayout, Records, decode_records
from stream.oracle.ledger import Ints
from stream.oracle.records import Raw

BLOCK = 4096
KEPT = ("events", "revision", "release", "interest_release", "state", "profile", "interest")


@dataclass(frozen=True, slots=True)
class Changelog:
    """M records of U users; each user's are in order.

    Shapes: user (M,) index into `users`; events, revision, partition, offset (M,); release,
    interest_release (M,) hashed names; state (M, L, D); profile, interest (M, D); last (U,) whole
    records.  `erased`: users who had a tombstone.
    """

    users: tuple[bytes, ...]
    index: dict[bytes, int]
    user: Ints
    partition: Ints
    offset: Ints
    events: Ints
    revision: Ints
    release: npt.NDArray[np.uint64]
    interest_release: npt.NDArray[np.uint64]
    state: Floats
    profile: Floats
    interest: Floats
    last: Records
    erased: frozenset[bytes]
    compacted_to: dict[int, int]


def read_changelog(records: Iterable[Raw], layout: RecordLayout) -> Changelog:
    """Take in the profiles topic.  Raises: StoreCorruptError for a record of another layout."""
    index: dict[bytes, int] = {}
    last: dict[int, bytes] = {}
    erased: set[bytes] = set()
    expected_offset: dict[int, int] = {}
    compacted_to: dict[int, int] = {}
    places: list[tuple[int, int, int]] = []
    block: list[bytes] = []
    columns: dict[str, list[npt.NDArray[np.generic]]] = {name: [] for name in KEPT}

    def settle() -> None:
        found, _ = decode_records(layout, block)
        for name in KEPT:
            columns[name].append(found[name].copy())
        block.clear()

    for record in records:
        if record.offset != expected_offset.get(record.partition, 0):
            compacted_to[record.partition] = record.offset
        expected_offset[record.partition] = record.offset + 1
        key = record.key or b""
        if is_fence(key):
            continue  # of an erased user
        if not record.value:
            erased.add(key)
            continue
        user = index.setdefault(key, len(index))
        last[user] = record.value
        places.append((user, record.partition, record.offset))
        block.append(record.value)
        if len(block) == BLOCK:
            settle()
    settle()
    joined = {name: np.concatenate(parts) for name, parts in columns.items()}
    user_column, partition, offset = np.array(places, dtype=np.int64).reshape(-1, 3).T
    return Changelog(
        users=tuple(index),
        index=index,
        user=user_column,
        partition=partition,
        offset=offset,
        events=joined["events"].astype(np.int64),
        revision=joined["revision"].astype(np.int64),
        release=joined["release"].astype(np.uint64),
        interest_release=joined["interest_release"].astype(np.uint64),
        state=joined["state"].astype(np.float32),
        profile=joined["profile"].astype(np.float32),
        interest=joined["interest"].astype(np.float32),
        last=decode_records(layout, [last[user] for user in range(len(index))])[0],
        erased=frozenset(erased),
        compacted_to=compacted_to,
    )
