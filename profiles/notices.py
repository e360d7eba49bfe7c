"""What is said of releases: their status, people's orders, and how they do live."""

from __future__ import annotations

from typing import Literal

import msgspec

from profiles.wire import Id, decode_with


class ReleaseNotice(msgspec.Struct, frozen=True, omit_defaults=True):
    """A release changed its status.  Topic `releases`, key `release_id`, compacted.

    `status` is candidate, shadow, canary, serving, refused, retired, rolled-back or erased.  The
    serving release is the one whose `serving` notice has the highest `sequence`: notices are
    ordered by it, not by arrival, so that a compacted topic read in any order gives one answer.
    `share` is the part of the users that a canary serves, beside its parent `parent_id`.
    """

    release_id: Id
    status: str
    sequence: int
    store_url: str
    parent_id: str | None = None
    decided_at: float = 0.0
    reason: str = ""
    metrics: dict[str, float] = {}
    share: float = 0.0


PolicyKind = Literal["item", "tag", "freeze"]


class PolicyOrder(msgspec.Struct, frozen=True, omit_defaults=True):
    """A person's order.  Topic `policies`, compacted, key `name`: `kind:target`.

    `item`, `tag`: show the item `target`, or all items with that tag, to nobody; `freeze`: no
    release is promoted.  `active` false lifts the order.
    """

    kind: PolicyKind
    target: str
    active: bool
    reason: str = ""
    decided_at: float = 0.0

    @property
    def name(self) -> str:
        """Orders of one name follow each other.

        >>> PolicyOrder("tag", "weapons", True).name
        'tag:weapons'
        """
        return f"{self.kind}:{self.target}"


class OutcomeCell(msgspec.Struct, frozen=True, gc=False):
    """Ranked events of the users in one hash bucket: how many, how often the item was among the
    first ten, the sum of their NDCG@10 and of its square."""

    bucket: int
    events: int
    hits: int
    gain: float
    squared: float


class OutcomeWindow(msgspec.Struct, frozen=True, omit_defaults=True):
    """How a release did live, at one worker, for a moment.  Topic `outcomes`, key `release_id`.

    Sums only, never a user.  `refusal`: why this worker does not serve the release at all.
    """

    release_id: Id
    worker: str
    began_at: float
    ended_at: float
    cells: list[OutcomeCell] = []
    refusal: str = ""


_NOTICE = msgspec.json.Decoder(ReleaseNotice)


def decode_notice(payload: bytes | None) -> ReleaseNotice:
    """Read one release notice.  Raises: BadMessage."""
    notice: ReleaseNotice = decode_with(_NOTICE, payload)
    return notice
