"""What flows through driftline: the messages on the wire, and when one of them is bad.

Every struct here is one topic's payload (DESIGN section 3, docs/reference/topics.md).  The
payload is JSON; fields are only ever added, with a default, never renamed.  `decode_*` is the
single door from bytes to a value: whatever passes it is well-formed, and whatever does not
raises `BadMessage` with a reason slug that becomes a metric label and a dead-letter header.

What surprised us: JSON allows lone surrogates (``"\\ud800"``) that no UTF-8 consumer can read,
and a NUL inside a key breaks tools that print keys.  Both are refused here, once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Annotated, Any, Literal, TypeVar

import msgspec

from profiles.errors import BadMessage

MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 20_000
MAX_SAID_LENGTH = 2_000
MAX_TAGS = 64
MAX_CONTEXT_FIELDS = 32
MAX_K = 1_000
PREDICTION = "prediction"
"""Cause of an answer that says how likely something is, and recommends nothing."""
MAX_VALUE = 1e30
"""Profiles keep values as float32: beyond 3.4e38 they would become infinite."""

Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]
Said = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SAID_LENGTH)]
Tags = Annotated[list[Id], msgspec.Meta(max_length=MAX_TAGS)]
Scalar = str | int | float | bool | None
Context = Annotated[dict[str, Scalar], msgspec.Meta(max_length=MAX_CONTEXT_FIELDS)]


class Event(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One act of one user on one item.  Topic `events`, key `user_id`.

    `ts` is when it happened, in Unix seconds; `value` is what the action carries (stars of a
    rating, seconds watched); `event_id` makes a retried produce harmless.  `text` is what the
    user said about the item (a review); words without an item are a `Saying` on the wire, and
    here an event whose `item_id` is empty.
    """

    event_id: Id
    user_id: Id
    item_id: Id
    action: Id
    ts: float
    value: float | None = None
    session_id: Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)] | None = None
    context: Context | None = None
    text: Said | None = None


class Saying(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Words of one user about no item: a search, a question, a comment.  Topic `events`.

    Everything else is as in an event; `item_id`, where it is there at all, is empty.
    """

    event_id: Id
    user_id: Id
    action: Id
    ts: float
    text: Said
    item_id: Annotated[str, msgspec.Meta(max_length=0)] | None = None
    value: float | None = None
    session_id: Annotated[str, msgspec.Meta(max_length=MAX_ID_LENGTH)] | None = None
    context: Context | None = None

    def to_event(self) -> Event:
        """The same as an event without an item."""
        return Event(
            self.event_id,
            self.user_id,
            "",
            self.action,
            self.ts,
            self.value,
            self.session_id,
            self.context,
            self.text,
        )


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that can be recommended.  Topic `items`, key `item_id`, compacted.

    A new message for the same id replaces the old one; an empty payload (tombstone) removes it.
    `text` and `title` are what the language model reads.
    """

    item_id: Id
    title: Text = ""
    text: Text = ""
    tags: Tags = []
    attributes: dict[str, Scalar] = {}
    available: bool = True
    vectors: dict[str, list[float]] = {}
    text_version: int = 0

    def full_text(self) -> str:
        """The text that the encoder reads: title, tags, then body.

        >>> Item(item_id="1", title="Heat", tags=["Crime"]).full_text()
        'Heat. Crime'
        """
        parts = [self.title, ", ".join(self.tags), self.text]
        return ". ".join(part for part in parts if part)


class User(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a user says about herself.  Topic `users`, key `user_id`, compacted."""

    user_id: Id
    interests: Text = ""
    attributes: dict[str, Scalar] = {}


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
    both have), ``interests`` (the declared text of a user who has done nothing yet) or ``popular``
    (no past event raises the score); `weight` is the event's share of what the newest events add
    to the score (`profiles.reasons`).
    """

    kind: str
    weight: float
    item_id: str | None = None
    title: str | None = None
    tag: str | None = None


class ScoredItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One recommended item.

    Where serving explores, `propensity` is the probability with which the policy put the item in
    its slot, given the slots above.  Where it explores or rules order the list, `rank` is the place
    that the score alone would give the item, 0 for the best.  `probability`, where the release is
    calibrated: that an act on the item would be a positive one.
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


class Erasure(msgspec.Struct, frozen=True, omit_defaults=True):
    """Forget this user.  Topic `erasures`, key `user_id`.

    `retrain`: the learner goes back to the last release made without her events and learns anew.
    """

    erasure_id: Id
    user_id: Id
    requested_at: float = 0.0
    reason: str = ""
    retrain: bool = False


class Receipt(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was erased, by whom and when.  Topic `receipts`, key `user_id`.

    `releases`: those made after the user's first event, whose training may have included her;
    `rebuilt_from`: the release without her that serves in their place until a round is done.
    """

    erasure_id: str
    user_id: str
    component: str
    erased: dict[str, int]
    releases: list[str] = []
    erased_at: float = 0.0
    rebuilt_from: str | None = None


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


_EVENT = msgspec.json.Decoder(Event)
_SAYING = msgspec.json.Decoder(Saying)
_ITEM = msgspec.json.Decoder(Item)
_USER = msgspec.json.Decoder(User)
_REQUEST = msgspec.json.Decoder(Request)
_ERASURE = msgspec.json.Decoder(Erasure)
_NOTICE = msgspec.json.Decoder(ReleaseNotice)
_LABEL = msgspec.json.Decoder(Label)
_ENCODER = msgspec.json.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """JSON bytes of a message, UTF-8.

    >>> encode(Erasure(erasure_id="e1", user_id="u1"))
    b'{"erasure_id":"e1","user_id":"u1"}'
    """
    return _ENCODER.encode(message)


def decode_event(payload: bytes | None, *, now_s: float, max_ahead_s: float) -> Event:
    """Read one behaviour event.

    Args:
        now_s: the reader's clock, Unix seconds.
        max_ahead_s: how far `ts` may lie in the future before the producer's clock is held wrong.
    Raises: BadMessage with reason empty, malformed, invalid, bad-text, bad-value, bad-time or
        future-dated.
    """
    event = parse_event(payload)
    check_event(event, now_s=now_s, max_ahead_s=max_ahead_s)
    return event


def parse_event(payload: bytes | None) -> Event:
    """First half of `decode_event`: the schema.  Raises: BadMessage (empty, malformed, invalid)."""
    try:
        event: Event = _decode(_EVENT, payload)
    except BadMessage as error:
        # Only what is no event of an item is looked at twice.
        if error.reason != "invalid":
            raise
        try:
            saying: Saying = _decode(_SAYING, payload)
        except BadMessage as other:
            raise (other if b'"text"' in (payload or b"") else error) from None
        return saying.to_event()
    return event


def check_event(event: Event, *, now_s: float, max_ahead_s: float) -> None:
    """Second half: what a schema cannot say.  Raises: BadMessage, as `decode_event`."""
    for name in (event.event_id, event.user_id, event.item_id, event.action):
        check_key(name)
    if event.text is not None:
        check_said(event.text)
    if event.value is not None and not abs(event.value) <= MAX_VALUE:
        raise BadMessage(
            "bad-value",
            f"event {event.event_id!r} has value {event.value}; at most ±{MAX_VALUE:g} is kept",
        )
    if event.ts > now_s + max_ahead_s:
        raise BadMessage(
            "future-dated",
            f"event {event.event_id!r} is dated {event.ts - now_s:.0f} s ahead of this worker's "
            f"clock, more than the {max_ahead_s:.0f} s allowed; set the producer's clock right",
        )
    if event.ts < 0:
        raise BadMessage("bad-time", f"event {event.event_id!r} has ts {event.ts}; Unix seconds")


def check_said(text: str) -> None:
    """Raises: BadMessage (bad-text) for words of nothing but space, or no UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadMessage("bad-text", f"text {text!r} holds a lone surrogate") from error
    if not text.strip():
        raise BadMessage("bad-text", "the event's text is nothing but space; leave it out")


def check_action(event: Event, actions: Collection[str]) -> None:
    """What only the settings can say.  Raises: BadMessage (unknown-action)."""
    if event.action not in actions:
        raise BadMessage(
            "unknown-action",
            f"action {event.action!r} has no weight; add it to the setting `actions` "
            f"(known: {', '.join(actions)})",
        )


def check_size(payload: bytes | None, max_bytes: int) -> None:
    """Raises: BadMessage (oversized)."""
    if payload is not None and len(payload) > max_bytes:
        raise BadMessage(
            "oversized",
            f"the message has {len(payload)} bytes, more than the {max_bytes} allowed by "
            "serving.max_message_bytes",
        )


def decode_item(payload: bytes) -> Item:
    """Read one catalogue entry.  Raises: BadMessage."""
    item: Item = _decode(_ITEM, payload)
    for name, vector in item.vectors.items():
        for number in vector:
            if not abs(number) <= MAX_VALUE:
                raise BadMessage(
                    "bad-value",
                    f"vectors.{name} of item {item.item_id!r} holds {number}; "
                    f"at most ±{MAX_VALUE:g} can be used",
                )
    return item


def decode_user(payload: bytes) -> User:
    """Read one user declaration.  Raises: BadMessage."""
    user: User = _decode(_USER, payload)
    return user


def decode_request(payload: bytes | None) -> Request:
    """Read one request for recommendations.  Raises: BadMessage."""
    request: Request = _decode(_REQUEST, payload)
    return request


def decode_erasure(payload: bytes | None) -> Erasure:
    """Read one erasure request.  Raises: BadMessage."""
    erasure: Erasure = _decode(_ERASURE, payload)
    return erasure


def decode_notice(payload: bytes | None) -> ReleaseNotice:
    """Read one release notice.  Raises: BadMessage."""
    notice: ReleaseNotice = _decode(_NOTICE, payload)
    return notice


def decode_label(payload: bytes | None) -> Label:
    """Read one label.  Raises: BadMessage (also no-label, for one that says nothing)."""
    label: Label = _decode(_LABEL, payload)
    if label.sentiment is None and label.topic is None:
        raise BadMessage(
            "no-label",
            f"the label of item {label.item_id!r} has neither sentiment nor topic; send an empty "
            "payload to take a label back",
        )
    return label


Message = TypeVar("Message", bound=msgspec.Struct)


def decode_json(payload: bytes, kind: type[Message]) -> Message:
    """Read a message of ours that needs no checks beyond its schema.  Raises: BadMessage."""
    message: Message = _decode(msgspec.json.Decoder(kind), payload)
    return message


# Any: msgspec's Decoder is generic only in its stub; callers above restore the type.
def _decode(decoder: msgspec.json.Decoder[Any], payload: bytes | None) -> Any:
    if not payload:
        raise BadMessage("empty", "the message has no payload; a JSON object was expected")
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise BadMessage("invalid", f"the message does not fit its schema: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage("malformed", f"the message is not JSON: {error}") from error


def check_key(user_id: str) -> bytes:
    """UTF-8 bytes of an id that may serve as a key.

    Raises: BadMessage (bad-text) for a NUL or a lone surrogate, which no key may hold.

    >>> check_key("u1")
    b'u1'
    """
    try:
        key = user_id.encode()
    except UnicodeEncodeError as error:
        raise BadMessage("bad-text", f"id {user_id!r} holds a lone surrogate") from error
    if b"\x00" in key:
        raise BadMessage("bad-text", f"id {user_id!r} holds a NUL byte")
    return key


def key64(text: str) -> int:
    """A 64-bit name for an id: what profiles store instead of the id itself.

    Two of a million ids collide with probability 3e-8 (birthday bound).  Zero is reserved for
    "none".

    >>> key64("i1") == key64("i1") != key64("i2")
    True
    """
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little") or 1


def output_id(topic_id: str, partition: int, offset: int, release_id: str) -> str:
    """The name of one output, the same whenever it is produced again.

    >>> output_id("t", 0, 7, "r") == output_id("t", 0, 7, "r")
    True
    """
    source = f"{topic_id}\x1f{partition}\x1f{offset}\x1f{release_id}"
    return hashlib.blake2b(source.encode(), digest_size=16).hexdigest()
