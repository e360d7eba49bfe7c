"""What items say of entities: people's labels, and alerts when opinion turns bad."""

from __future__ import annotations

from typing import Literal

import msgspec

from profiles.errors import BadMessage
from profiles.wire import Id, decode_with

Sentiment = Literal["negative", "neutral", "positive"]


class Label(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a person says that an item says.  Topic `labels`, key `item_id`, compacted.

    One of the two at least.  A new message for the same item replaces the old one; an empty payload
    (tombstone) takes the label back.  It may come before its item, or long after.
    """

    item_id: Id
    sentiment: Sentiment | None = None
    topic: Id | None = None


class Evidence(msgspec.Struct, frozen=True, omit_defaults=True):
    """One item of an alert, and the probability that it is negative."""

    item_id: str
    negative: float
    title: str = ""


class Alert(msgspec.Struct, frozen=True, omit_defaults=True):
    """Opinion of an entity turned bad, or that is over.  Topic `alerts`, key `entity`.

    `raised` and `recovered` carry one `alert_id`; `reason` is surge, or calm or settled (it lasted
    so long that it is usual now).  `since` and `at`: Unix seconds, in the items' own time, of the
    beginning of the window in which it was found, and of the decision.  `negative` of `items` in
    the window, a sum of probabilities, where `expected` would be usual at that hour; `share` and
    `usual_share` are parts of all items.  `evidence` has the worst items of the window, `topics`
    how many were of which.
    """

    alert_id: Id
    entity: str
    state: Literal["raised", "recovered"]
    reason: str
    since: float
    at: float
    items: int
    negative: float
    expected: float
    share: float = 0.0
    usual_share: float = 0.0
    evidence: list[Evidence] = []
    topics: dict[str, int] = {}
    release_id: str = ""


_LABEL = msgspec.json.Decoder(Label)


def decode_label(payload: bytes | None) -> Label:
    """Read one label.  Raises: BadMessage (also no-label, for one that says nothing)."""
    label: Label = decode_with(_LABEL, payload)
    if label.sentiment is None and label.topic is None:
        raise BadMessage(
            "no-label",
            f"the label of item {label.item_id!r} has neither sentiment nor topic; send an empty "
            "payload to take a label back",
        )
    return label
