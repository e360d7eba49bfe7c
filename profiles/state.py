"""A user's profile as one fixed-size record, so that a batch of users is one numpy array.

A record holds the recurrent state, the profile embedding, the bounded history from which a swap
rebuilds them, what is needed to recognise duplicates, and the release whose space the vectors
live in.  Fixed size is what makes the hot path fast: a batch is decoded by `numpy.frombuffer` on
the joined bytes and encoded by one `tobytes`.

The history is a ring: event n stands in slot n mod H.  It comes last, event by event, so that the
slots a user has not filled yet are the end of the record: they are cut off wherever a record is
stored or sent.  A user of two events takes 0.9 KB instead of 2.2.

State and profile are stored in float16 by default and computed with in float32: rounding after
every event changes none of a thousand rankings noticeably (docs/decisions/0019).

What the rate cap knows of a user (`profiles.rate_cap`) is written behind the history, as version 3,
and only where there is something to know: without a cap records are byte for byte of version 2.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from profiles.compiled import compiled
from profiles.config import Settings
from profiles.errors import SealError, StoreCorruptError
from profiles.sealing import is_sealed

RECORD_VERSION = 2
"""2: event ids are named by `profiles.event_keys`; the history comes last, event by event."""
CAPPED_VERSION = 3
"""The same, with eight bytes of the rate cap behind the history; in memory it is version 2, too."""
CAP_BYTES = 8

_CAPPED = bytes([CAPPED_VERSION])
_REMEDY = (
    "profile and model sizes cannot change under a running deployment: use a new topic prefix, or "
    "restore the old settings"
)

EVENT_DTYPE = np.dtype([("item", "<u8"), ("ts", "<f8"), ("action", "u1"), ("value", "<f2")])
SAID = 0x80
"""Bit of a remembered action that no action needs (there are 64 at most): the event was words, and
`item` is `profiles.said.text_key` of them, 0 once they are forgotten."""

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
    precision: Literal["float32", "float16"] = "float32"

    @classmethod
    def of(cls, settings: Settings) -> RecordLayout:
        """The layout that a deployment's settings fix."""
        model, kept = settings.model, settings.profile
        return cls(
            model.dim,
            model.layers,
            kept.history,
            kept.recent_ids,
            kept.seen_bytes,
            kept.precision,
        )

    @property
    def dtype(self) -> np.dtype[np.void]:
        """One profile with its whole ring.

        `topic`, `offset`: identity of the input topic and offset of the last applied event;
        `emit_offset`, `emit_event`, `emit_ms`: cause and time (Unix ms) of the last
        recommendation; `recent`: ring of hashed event ids; `seen`: Bloom filter of items;
        `interest`: declared interests in the space of `interest_release`;
        `history`: the ring of events (item key, Unix seconds, action index, value);
        `used_until_us`: of the rate cap (`profiles.rate_cap`), 0 for nothing.
        """
        return _dtype(self)

    @property
    def whole_bytes(self) -> int:
        """Bytes of a stored profile whose ring is full, without what the rate cap adds."""
        return self.dtype.itemsize - CAP_BYTES

    @property
    def event_bytes(self) -> int:
        """Bytes of one remembered event."""
        return EVENT_DTYPE.itemsize

    @property
    def bytes_without_history(self) -> int:
        """Bytes of a profile that remembers nothing."""
        return self.whole_bytes - self.history * self.event_bytes

    def stored_bytes(self, records: Records) -> npt.NDArray[np.int64]:
        """Bytes up to the end of each stored history.  Shapes: (B,) -> (B,)."""
        kept = np.minimum(records["events"], self.history).astype(np.int64)
        stored: npt.NDArray[np.int64] = self.bytes_without_history + kept * self.event_bytes
        return stored

    @property
    def checksum(self) -> int:
        """A byte that differs when any size differs (with probability 255/256)."""
        sizes: tuple[int | str, ...] = (
            self.dim, self.layers, self.history, self.recent_ids, self.seen_bytes,
        )  # fmt: skip
        if self.precision != "float32":  # so that records from before there was a choice still fit
            sizes += (self.precision,)
        # Not `hash`: this byte is stored, and Python may count otherwise one day.
        return hashlib.blake2b(repr(sizes).encode(), digest_size=1).digest()[0]


@functools.lru_cache(maxsize=16)
def _dtype(layout: RecordLayout) -> np.dtype[np.void]:
    vector = "<f4" if layout.precision == "float32" else "<f2"
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
            ("state", vector, (layout.layers, layout.dim)),
            ("profile", vector, (layout.dim,)),
            ("interest", "<f2", (layout.dim,)),
            ("recent", "<u8", (layout.recent_ids,)),
            ("seen", "u1", (layout.seen_bytes,)),
            ("history", EVENT_DTYPE, (layout.history,)),
            ("used_until_us", "<i8"),
        ]
    )


def empty_records(layout: RecordLayout, users: int) -> Records:
    """Profiles of users who were never seen."""
    records = np.zeros(users, dtype=layout.dtype)
    records["version"] = RECORD_VERSION
    records["layout"] = layout.checksum
    records["offset"] = -1
    records["emit_offset"] = -1
    return records


def decode_records(layout: RecordLayout, payloads: Sequence[bytes]) -> tuple[Records, list[bytes]]:
    """Read a batch of profiles, and what follows each: its tail (`profiles.said`), mostly nothing.

    The records own their memory and may be written.
    Raises: StoreCorruptError when a payload has another size, version or layout; SealError when
    it is encrypted.
    """
    size = layout.dtype.itemsize
    # Filled up with zeros to whole records, which is what was cut off.
    whole = bytearray().join([payload[:size].ljust(size, b"\x00") for payload in payloads])
    records = np.frombuffer(whole, dtype=layout.dtype)
    capped = records["version"] == CAPPED_VERSION
    records["used_until_us"] = 0  # a tail may have got there
    good = (records["version"] == RECORD_VERSION) | capped
    good &= records["layout"] == layout.checksum
    if not good.all():
        if any(map(is_sealed, payloads)):
            raise SealError(
                "stored profiles are encrypted: set privacy.encryption and the master key under "
                "which they were written"
            )
        raise StoreCorruptError(
            f"{int((~good).sum())} of {len(payloads)} stored profiles carry another record "
            f"version or layout than {RECORD_VERSION} or {CAPPED_VERSION}/{layout.checksum}; "
            f"{_REMEDY}"
        )
    lengths = np.fromiter(map(len, payloads), dtype=np.int64, count=len(payloads))
    history_ends = layout.stored_bytes(records)
    own = history_ends + CAP_BYTES * capped
    if (lengths < own).any():
        wrong = int(np.argmax(lengths < own))
        raise StoreCorruptError(
            f"a stored profile has {lengths[wrong]} bytes, but its {records['events'][wrong]} "
            f"events and these settings make it {own[wrong]}; {_REMEDY}"
        )
    tails = [b""] * len(payloads)
    for at in np.flatnonzero(lengths > own).tolist():
        tails[at] = payloads[at][own[at] :]
        records["history"][at, min(int(records["events"][at]), layout.history) :] = 0
    if capped.any():
        rows = np.flatnonzero(capped)
        cut = [slice(end, end + CAP_BYTES) for end in history_ends[rows].tolist()]
        known = b"".join([payloads[at][part] for at, part in zip(rows.tolist(), cut, strict=True)])
        records["used_until_us"][rows] = np.frombuffer(known, "<i8")
        records["version"][rows] = RECORD_VERSION
        for at in rows.tolist():
            records["history"][at, min(int(records["events"][at]), layout.history) :] = 0
    return records, tails


def encode_records(
    layout: RecordLayout, records: Records, tails: Sequence[bytes] | None = None
) -> list[bytes]:
    """Bytes of each profile, in order, without the unused end of its ring, each with its tail."""
    size = layout.dtype.itemsize
    joined = records.tobytes()
    starts = range(0, len(joined), size)
    own = layout.stored_bytes(records).tolist()
    fixed = [joined[start : start + length] for start, length in zip(starts, own, strict=True)]
    capped = np.flatnonzero(records["used_until_us"])
    for at, known in zip(capped.tolist(), records["used_until_us"][capped].tolist(), strict=True):
        fixed[at] = _CAPPED + fixed[at][1:] + known.to_bytes(CAP_BYTES, "little", signed=True)
    if tails is None or not any(tails):
        return fixed
    return [record + tail for record, tail in zip(fixed, tails, strict=True)]


def bloom_slots(item_keys: npt.NDArray[np.uint64], seen_bytes: int, hashes: int = 4) -> Rows:
    """Bit numbers of items in the Bloom filter of seen items.

    Two halves of the 64-bit key give all hashes (Kirsch & Mitzenmacher 2006).
    Shapes: item_keys (N,) -> (N, hashes).
    """
    low = item_keys & np.uint64(0xFFFFFFFF)
    high = (item_keys >> np.uint64(32)) | np.uint64(1)
    steps = np.arange(hashes, dtype=np.uint64)
    return ((low[:, None] + steps * high[:, None]) % np.uint64(seen_bytes * 8)).astype(np.intp)


@compiled("u1[:, :], i8[::1], i8[:, ::1]", writes="seen")
def mark_seen(seen: npt.NDArray[np.uint8], rows: Rows, slots: Rows) -> None:
    """Add items to filters, in place.

    Shapes: seen (B, bytes), rows (M,) of `seen`, slots (M, hashes) of `bloom_slots`.
    """
    for at in range(len(rows)):
        for h in range(slots.shape[1]):
            slot = slots[at, h]
            seen[rows[at], slot >> 3] |= np.uint8(1 << (slot & 7))


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
