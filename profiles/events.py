"""What users do: the events that applications send, and when one of them is bad.

Every struct of this module and of `items`, `answers`, `erasures`, `notices` and `opinions` is one
topic's payload (DESIGN section 3, docs/reference/topics.md); `wire` says what is true of all.
`decode_event` is the single door from bytes to an event.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import msgspec

from profiles.errors import BadMessage
from profiles.wire import MAX_ID_LENGTH, MAX_VALUE, Context, Id, check_key, decode_with

MAX_SAID_LENGTH = 2_000
Said = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_SAID_LENGTH)]


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


_EVENT = msgspec.json.Decoder(Event)
_SAYING = msgspec.json.Decoder(Saying)


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
        event: Event = decode_with(_EVENT, payload)
    except BadMessage as error:
        # Only what is no event of an item is looked at twice.
        if error.reason != "invalid":
            raise
        try:
            saying: Saying = decode_with(_SAYING, payload)
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
