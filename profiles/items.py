"""What is recommended, and what users say of themselves: the catalogue's messages."""

from __future__ import annotations

import msgspec

from profiles.errors import BadMessage
from profiles.wire import MAX_VALUE, Id, Scalar, Tags, Text, decode_with


class Item(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that can be recommended.  Topic `items`, key `item_id`, compacted.

    A new message for the same id replaces the old one; an empty payload (tombstone) removes it.
    `text` and `title` are what the language model reads; `vectors` what the item shows beside them,
    by the names and lengths of `model.vectors` (profiles/modalities.py).
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


_ITEM = msgspec.json.Decoder(Item)
_USER = msgspec.json.Decoder(User)


def decode_item(payload: bytes) -> Item:
    """Read one catalogue entry.  Raises: BadMessage."""
    item: Item = decode_with(_ITEM, payload)
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
    user: User = decode_with(_USER, payload)
    return user
