"""What applications ask, and the recommendations that answer."""

from __future__ import annotations

import hashlib
from typing import Annotated

import msgspec

from profiles.wire import Context, Id, Tags, decode_with

MAX_K = 1_000
PREDICTION = "prediction"
"""Cause of an answer that says how likely something is, and recommends nothing."""


class Filters(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which items a request allows.  `any_tags`: at least one; `no_tags`: none of them;
    `unavailable`: also items that are sold out, for a waiting list.

    In place of what the worker's rules say (docs/how-to/rules.md): `diversity`, how unlike each
    other the items should be, 0 to 1; `freshness`, what an item of age 0 gains on its score.
    """

    any_tags: Tags = []
    no_tags: Tags = []
    exclude_seen: bool = True
    diversity: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    freshness: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None
    unavailable: bool = False


class Request(msgspec.Struct, frozen=True, omit_defaults=True):
    """An application asks for recommendations.  Topic `requests`, key `user_id`.

    `items`, if any, asks for a prediction in their place: how likely an act of the user on each of
    these would be a positive one.  Then `k`, `filters` and `exclude` say nothing.
    """

    request_id: Id
    user_id: Id
    k: Annotated[int, msgspec.Meta(ge=1, le=MAX_K)] = 10
    filters: Filters = Filters()
    exclude: Annotated[list[Id], msgspec.Meta(max_length=10_000)] = []
    context: Context | None = None
    items: Annotated[list[Id], msgspec.Meta(max_length=MAX_K)] = []


class Reason(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Why an item is recommended.

    `kind` is ``history`` (a past event, by the item it was on: `item_id`, `title`, and a `tag` that
    both have), ``interests`` (the declared text of a user who has done nothing yet), ``trending``
    (none of these, and many users turned to it lately) or ``popular`` (none of these); `weight` is
    the event's share of what the newest events add to the score (`profiles.reasons`).
    """

    kind: str
    weight: float
    item_id: str | None = None
    title: str | None = None
    tag: str | None = None


class ScoredItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One recommended item.

    `score` is what the release alone gives it; a list is in the order of that and of what the
    present trend adds (`serving.trend_weight`), so that it need not fall from item to item.
    Where serving explores, `propensity` is the probability with which the policy put the item in
    its slot, given the slots above.  Where it explores or rules order the list, `rank` is the place
    that score and trend alone would give the item, 0 for the best.  `probability`, where the
    release is calibrated: that an act on the item would be a positive one.
    """

    item_id: str
    score: float
    title: str = ""
    reasons: list[Reason] = []
    propensity: float = 1.0
    probability: float | None = None
    rank: int = 0


class Recommendation(msgspec.Struct, frozen=True):
    """The answer.  Topic `recommendations`, key `user_id`.

    `output_id` is a hash of (topic id, partition, offset, release id) of the cause: two messages
    with one `output_id` are one recommendation, sent again after a restart.  `release_id` names
    the release of every vector that took part; `profile_release_id` is read off the stored
    profile itself, so that a reader can check that the two agree.
    `cause` is event, request, replay, or prediction; then `items` are those that a request named,
    in the order of their scores, and nothing is recommended.
    `produced_at` and `event_ts` are Unix seconds.  With `serving.hand_over_below` set, `hand_over`
    tells that a human should answer: `confidence`, how sure the first item is right, is below it,
    or absent because the release cannot tell.
    """

    output_id: str
    user_id: str
    items: list[ScoredItem]
    release_id: str
    profile_release_id: str
    profile_version: int
    cause: str
    cause_id: str
    cause_partition: int
    cause_offset: int
    produced_at: float
    event_ts: float | None = None
    confidence: float | msgspec.UnsetType = msgspec.UNSET
    hand_over: bool | msgspec.UnsetType = msgspec.UNSET


_REQUEST = msgspec.json.Decoder(Request)


def decode_request(payload: bytes | None) -> Request:
    """Read one request for recommendations.  Raises: BadMessage."""
    request: Request = decode_with(_REQUEST, payload)
    return request


def output_id(topic_id: str, partition: int, offset: int, release_id: str) -> str:
    """The name of one output, the same whenever it is produced again.

    >>> output_id("t", 0, 7, "r") == output_id("t", 0, 7, "r")
    True
    """
    source = f"{topic_id}\x1f{partition}\x1f{offset}\x1f{release_id}"
    return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
