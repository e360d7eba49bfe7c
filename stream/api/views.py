"""The bodies of the HTTP API, besides the messages of `profiles.events` that it passes on."""

from __future__ import annotations

from typing import Annotated

import msgspec

from profiles.events import Said
from profiles.notices import PolicyOrder, ReleaseNotice
from profiles.wire import Context, Id

MAX_EVENTS = 1_000

MaybeId = Annotated[str, msgspec.Meta(min_length=1, max_length=256)] | None


class EventIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An event as it is posted: `ts` is now and `event_id` a new one unless given; `item_id` may
    be left out where `text` (a search, a question) is all there is.

    A request that is tried again should carry its `event_id`: workers count it once.
    """

    user_id: Id
    item_id: MaybeId = None
    action: Id
    text: Said | None = None
    ts: float | None = None
    value: float | None = None
    event_id: MaybeId = None
    session_id: MaybeId = None
    context: Context | None = None


EventsIn = EventIn | Annotated[list[EventIn], msgspec.Meta(min_length=1, max_length=MAX_EVENTS)]


class Accepted(msgspec.Struct, frozen=True):
    """Kafka has acknowledged these; workers apply them next."""

    event_ids: list[str]


class Declared(msgspec.Struct, frozen=True):
    """Kafka has acknowledged it."""

    user_id: str


class ErasureIn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whom to forget."""

    user_id: Id
    reason: str = ""


class ErasureAccepted(msgspec.Struct, frozen=True):
    """Kafka has acknowledged it; receipts on the topic `receipts` carry this id."""

    erasure_id: str


class PastEvent(msgspec.Struct, frozen=True, omit_defaults=True):
    """An event that a profile remembers.  `item_id` is empty if the catalogue lost the item, and
    where the event was words: `text` has them while they are remembered."""

    item_id: str
    title: str
    action: str
    ts: float
    value: float
    tags: list[str] = []
    text: str = ""


class Profile(msgspec.Struct, frozen=True):
    """A profile, as the changelog has it: `history` newest first, `tags` how many remembered
    events had each, `interests` what the user declared, `release_id` whose space it lives in."""

    user_id: str
    events: int
    last_ts: float
    release_id: str
    interests: str
    history: list[PastEvent]
    tags: dict[str, int]


class Releases(msgspec.Struct, frozen=True, omit_defaults=True):
    """Every release's newest notice, newest first; `frozen`: the order that stops promotions."""

    serving: str | None
    releases: list[ReleaseNotice]
    frozen: PolicyOrder | None = None


class CatalogueItem(msgspec.Struct, frozen=True):
    """What a reader needs of an item."""

    item_id: str
    title: str
    tags: list[str]


class Items(msgspec.Struct, frozen=True):
    """A part of the catalogue of `total` items."""

    total: int
    items: list[CatalogueItem]


class Fault(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is wrong with one of several events, `index` counted from zero."""

    index: int
    reason: str
    message: str


class Problem(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a request was not served: a slug for programs and a sentence for people."""

    error: str
    message: str
    faults: list[Fault] = []


VIEWS = (
    EventIn, Accepted, Declared, ErasureIn, ErasureAccepted, PastEvent, Profile, Releases,
    CatalogueItem, Items, Fault, Problem,
)  # fmt: skip
