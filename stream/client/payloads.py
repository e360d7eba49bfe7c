"""What the client sends, checked before it leaves by the functions with which workers check it.

So a mistake is an exception with the reason that the dead letter would have had, at the line that
made it.  Only one thing cannot be known here: whether the catalogue has an event's item.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from profiles.answers import Request, decode_request
from profiles.config import Settings
from profiles.erasures import Erasure, decode_erasure
from profiles.errors import BadMessage
from profiles.events import Event, check_action, decode_event
from profiles.items import Item, User, decode_item, decode_user
from profiles.pseudonyms import Pseudonyms, names_of
from profiles.wire import check_key, check_size, encode

Message = TypeVar("Message", bound=msgspec.Struct)
Payload = tuple[str, bytes | None]
"""Key and value of a record; no value is a tombstone."""

DECODERS: dict[type[msgspec.Struct], Callable[[bytes], msgspec.Struct]] = {
    Item: decode_item,
    User: decode_user,
    Request: decode_request,
    Erasure: decode_erasure,
}


@dataclass(frozen=True, slots=True)
class Contract:
    """What the workers of a deployment accept.  Its settings must be theirs.

    `names`: what stands in the topics for user ids, which stay here.
    """

    actions: Collection[str]
    max_ahead_s: float
    max_bytes: int
    names: Pseudonyms | None = None

    @classmethod
    def of(cls, settings: Settings) -> Contract:
        """The contract that these settings make."""
        serving = settings.serving
        names = Pseudonyms.of(settings.privacy)
        return cls(tuple(settings.actions), serving.max_ahead_s, serving.max_message_bytes, names)

    def key(self, user_id: str) -> str:
        """What stands for a user in the topics: her id, or her pseudonym.  Raises: BadMessage."""
        return names_of(self.names, user_id)[0]

    def events(self, events: Iterable[Event], now_s: float) -> list[Payload]:
        """Payloads of events, all of them good.  Raises: BadMessage for the first bad one."""
        return [(self.key(event.user_id), self.event(event, now_s)) for event in events]

    def event(self, event: Event, now_s: float) -> bytes:
        """Bytes of one event, under the name of its user.  Raises: BadMessage."""
        payload = self.encoded(self._named(event))
        # Read again: a struct made in Python may hold anything.
        check_action(decode_event(payload, now_s=now_s, max_ahead_s=self.max_ahead_s), self.actions)
        return payload

    def message(self, key: str, message: msgspec.Struct) -> Payload:
        """Key and bytes of an item, a user, a request or an erasure.  Raises: BadMessage."""
        check_key(key)
        named = self._named(message)
        return getattr(named, "user_id", key), self.payload(named)

    def erasures(self, erasure: Erasure) -> list[Payload]:
        """An erasure under every name that the user may have.  Raises: BadMessage."""
        return [
            (name, self.payload(msgspec.structs.replace(erasure, user_id=name)))
            for name in names_of(self.names, erasure.user_id)
        ]

    def _named(self, message: Message) -> Message:
        if self.names is None or not hasattr(message, "user_id"):
            return message
        return msgspec.structs.replace(message, user_id=self.key(message.user_id))

    def payload(self, message: msgspec.Struct) -> bytes:
        """Bytes of an item, a user, a request or an erasure.  Raises: BadMessage."""
        payload = self.encoded(message)
        DECODERS[type(message)](payload)
        return payload

    def encoded(self, message: msgspec.Struct) -> bytes:
        """JSON bytes, not larger than a worker accepts.  Raises: BadMessage."""
        try:
            payload = encode(message)
        except UnicodeEncodeError as error:
            raise BadMessage("bad-text", f"a text holds a lone surrogate: {error}") from error
        check_size(payload, self.max_bytes)
        return payload
