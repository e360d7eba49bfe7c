"""A user's profile as one fixed-size record, so that a batch of users is one numpy array.

A record holds the recurrent state, the profile embedding, the bounded history from which a swap
rebuilds them, what is needed to recognise duplicates, and the release whose space the vectors
live in.  Fixed size is what makes the hot path fast: a batch is decoded by `numpy.frombuffer` on
the joined bytes and encoded by one `tobytes`.  Unused history is zeros, which the store and the
changelog compress away.

The history is a ring: event n stands in slot n mod H.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from profiles.errors import StoreCorruptError

RECORD_VERSION = 2
"""2: event ids are named by `profiles.event_keys`."""

_REMEDY = (
    "profile and model sizes cannot change under a running deployment: use a new topic prefix, or "
    "restore the old settings"
)

Records = npt.NDArray[np.void]
Rows = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class RecordLayout:
    """The sizes that fix a record; `dtype` follows from them."""

    dim: int
    layers: int
    history: int
    recent_ids: int
    seen_bytes: int

    @property
    def dtype(self) -> np.dtype[np.void]:
        """One profile.

        `topic`, `offset`: identity of the input topic and offset of the last applied event;
        `emit_offset`, `emit_event`, `emit_ms`: cause and time (Unix ms) of the last
        recommendation; `recent`: ring of hashed event ids; `seen`: Bloom filter of items;
        `hist_*`: the ring of events (item key, Unix seconds, action index, value);
        `interest`: declared interests in the space of `interest_release`.
        """
        return np.dtype(
            [
                ("version", "u1"),
                ("layout", "u1"),
                ("events", "<u4"),
                ("revision", "<u4"),
                ("release", "<u8"),
                ("topic", "<u8"),
                ("offset", "<i8"),
                ("last_ts", "<f8"),
                ("emit_offset", "<i8"),
                ("emit_event", "<u8"),
                ("emit_ms", "<i8"),
                ("interest_release", "<u8"),
                ("state", "<f4", (self.layers, self.dim)),
                ("profile", "<f4", (self.dim,)),
                ("interest", "<f2", (self.dim,)),
                ("recent", "<u8", (self.recent_ids,)),
                ("seen", "u1", (self.seen_bytes,)),
                ("hist_item", "<u8", (self.history,)),
                ("hist_ts", "<f8", (self.history,)),
                ("hist_action", "u1", (self.history,)),
                ("hist_value", "<f2", (self.history,)),
            ]
        )

    @property
    def checksum(self) -> int:
        """A byte that differs when any size differs (with probability 255/256)."""
        sizes = (self.dim, self.layers, self.history, self.recent_ids, self.seen_bytes)
        # Not `hash`: this byte is stored, and Python may count otherwise one day.
        return hashlib.blake2b(repr(sizes).encode(), digest_size=1).digest()[0]


def empty_records(layout: RecordLayout, users: int) -> Records:
    """Profiles of users who were never seen."""
    records = np.zeros(users, dtype=layout.dtype)
    records["version"] = RECORD_VERSION
    records["layout"] = layout.checksum
    records["offset"] = -1
    records["emit_offset"] = -1
    return records


def decode_records(layout: RecordLayout, payloads: Sequence[bytes]) -> Records:
    """Read a batch of profiles; the result owns its memory and may be written.

    Raises: StoreCorruptError when a payload has another size, version or layout.
    """
    if not payloads:
        return empty_records(layout, 0)
    dtype = layout.dtype
    sizes = set(map(len, payloads))
    if sizes != {dtype.itemsize}:
        wrong = min(sizes - {dtype.itemsize})
        raise StoreCorruptError(
            f"a stored profile has {wrong} bytes, but these settings make it {dtype.itemsize}; "
            f"{_REMEDY}"
        )
    records = np.frombuffer(bytearray(b"".join(payloads)), dtype=dtype)
    good = (records["version"] == RECORD_VERSION) & (records["layout"] == layout.checksum)
    if not good.all():
        raise StoreCorruptError(
            f"{int((~good).sum())} of {len(payloads)} stored profiles carry another record "
            f"version or layout than {RECORD_VERSION}/{layout.checksum}; {_REMEDY}"
        )
    return records


def split_tails(layout: RecordLayout, payloads: Sequence[bytes]) -> tuple[Records, list[bytes]]:
    """Records and what follows each: the user's declared interests, UTF-8, mostly nothing."""
    size = layout.dtype.itemsize
    tails = [payload[size:] for payload in payloads]
    if any(tails):
        payloads = [payload[:size] for payload in payloads]
    return decode_records(layout, payloads), tails


def encode_records(records: Records, tails: Sequence[bytes] | None = None) -> list[bytes]:
    """Bytes of each profile, in order, each with its tail."""
    size = records.dtype.itemsize
    joined = records.tobytes()
    fixed = [joined[start : start + size] for start in range(0, len(joined), size)]
    if tails is None or not any(tails):
        return fixed
    return [record + tail for record, tail in zip(fixed, tails, strict=True)]


@dataclass(frozen=True, slots=True)
class History:
    """The remembered events of B users, oldest first, padded on the left.

    Shapes: all (B, S) with S the longest history among them; `mask` marks real events.
    `gaps_s` is NaN for a user's very first event, and for the oldest one remembered, whose
    predecessor is gone.
    """

    items: npt.NDArray[np.uint64]
    ts: npt.NDArray[np.float64]
    gaps_s: npt.NDArray[np.float64]
    actions: npt.NDArray[np.int64]
    values: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]


def read_history(records: Records) -> History:
    """Unroll the rings of a batch of profiles."""
    size = records["hist_item"].shape[1]
    kept = np.minimum(records["events"].astype(np.int64), size)
    longest = int(kept.max(initial=0))
    # Column c of the result is event number (events - longest + c) of that user.
    number = records["events"].astype(np.int64)[:, None] - longest + np.arange(longest)[None]
    mask = np.arange(longest)[None] >= (longest - kept)[:, None]
    slot = number % size
    rows = np.arange(len(records))[:, None]
    ts = records["hist_ts"][rows, slot]
    gaps = np.full(ts.shape, np.nan)
    if longest > 1:
        both = mask[:, 1:] & mask[:, :-1]
        gaps[:, 1:] = np.where(both, np.maximum(ts[:, 1:] - ts[:, :-1], 0.0), np.nan)
    return History(
        items=np.where(mask, records["hist_item"][rows, slot], 0).astype(np.uint64),
        ts=ts,
        gaps_s=gaps,
        actions=records["hist_action"][rows, slot].astype(np.int64),
        values=records["hist_value"][rows, slot].astype(np.float32),
        mask=mask,
    )


def bloom_slots(item_keys: npt.NDArray[np.uint64], seen_bytes: int, hashes: int = 4) -> Rows:
    """Bit numbers of items in the Bloom filter of seen items.

    Two halves of the 64-bit key give all hashes (Kirsch & Mitzenmacher 2006).
    Shapes: item_keys (N,) -> (N, hashes).
    """
    low = item_keys & np.uint64(0xFFFFFFFF)
    high = (item_keys >> np.uint64(32)) | np.uint64(1)
    steps = np.arange(hashes, dtype=np.uint64)
    return ((low[:, None] + steps * high[:, None]) % np.uint64(seen_bytes * 8)).astype(np.intp)


def mark_seen(seen: npt.NDArray[np.uint8], slots: Rows) -> None:
    """Add one item to each user's filter, in place.  Shapes: seen (B, bytes), slots (B, hashes)."""
    rows = np.arange(len(seen))
    for column in slots.T:
        seen[rows, column >> 3] |= (1 << (column & 7)).astype(np.uint8)


def was_seen(seen: npt.NDArray[np.uint8], slots: Rows) -> npt.NDArray[np.bool_]:
    """Which items a user has (probably) seen; never forgets one, may name a few too many.

    Shapes: seen (B, bytes), slots (N, hashes) shared or (B, N, hashes) per user -> (B, N).
    """
    if slots.ndim == 2:
        bits = seen[:, slots >> 3] >> (slots & 7).astype(np.uint8)
    else:
        rows = np.arange(len(seen))[:, None, None]
        bits = seen[rows, slots >> 3] >> (slots & 7).astype(np.uint8)
    found: npt.NDArray[np.bool_] = np.asarray((bits & 1).all(axis=-1))
    return found
