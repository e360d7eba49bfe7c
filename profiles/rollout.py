"""Who is in a canary, and how live outcomes are summed: what workers and learner must agree on.

A user's arm is a hash of user and release, so that it is the same on every worker and after every
restart, and that other users are asked with the next release.  A user's bucket is a hash of the
user alone: the learner takes the spread between buckets for the chance in an arm's figures, as
the events of one user are no independent draws.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from profiles.notices import OutcomeCell

BUCKETS = 64
HIT_RANKS = 10
SUMS = ("events", "hits", "gain", "squared")


def bucket_of(user: bytes) -> int:
    """The hash bucket of a user, 0 to `BUCKETS` - 1.

    >>> bucket_of(b"alice") == bucket_of(b"alice") < BUCKETS
    True
    """
    return hashlib.blake2b(user, digest_size=1).digest()[0] % BUCKETS


def in_canary(users: Sequence[bytes], release_id: str, share: float) -> npt.NDArray[np.bool_]:
    """Which users a canary serves.  Shapes: -> (len(users),).

    >>> in_canary([b"a", b"b"], "r1", 0.0).any(), in_canary([b"a", b"b"], "r1", 1.0).all()
    (np.False_, np.True_)
    """
    # A keyed hash: one release's canary says nothing about the next one's.
    salt = hashlib.blake2b(release_id.encode(), digest_size=16).digest()
    drawn = b"".join(hashlib.blake2b(u, digest_size=8, key=salt).digest() for u in users)
    # 53 bits, as many as a float holds: of 64, a share of 1 would round to a number beyond them.
    places = np.frombuffer(drawn, dtype="<u8") >> np.uint64(11)
    return places < np.uint64(round(min(share, 1.0) * 2**53))


@dataclass(slots=True)
class OutcomeSums:
    """Sums over one window.  `cells` (BUCKETS, 4): events, hits, gain, squared gain."""

    cells: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros((BUCKETS, len(SUMS))))

    def add(
        self, users: Sequence[bytes], ranks: npt.NDArray[np.int64]
    ) -> tuple[float, float, float]:
        """Count ranked events, each with its user.  Shapes: ranks (len(users),), 0 is best.

        Returns: events, hits and gain that were added.
        """
        inside = ranks < HIT_RANKS
        gain = np.where(inside, 1.0 / np.log2(2.0 + ranks), 0.0)
        rows = np.stack([np.ones(len(ranks)), inside, gain, gain**2], axis=1)
        np.add.at(self.cells, [bucket_of(user) for user in users], rows)
        return float(len(ranks)), float(inside.sum()), float(gain.sum())

    def messages(self) -> list[OutcomeCell]:
        """The buckets that saw anything."""
        return [
            OutcomeCell(bucket, int(n), int(hits), gain, squared)
            for bucket, (n, hits, gain, squared) in enumerate(self.cells.tolist())
            if n
        ]
