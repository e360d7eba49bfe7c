"""How a message becomes bytes and bytes become a message: limits, ids, and when one is bad.

The payload is JSON; fields are only ever added, with a default, never renamed.  Every `decode_*` of
`events`, `items`, `answers`, `erasures`, `notices` and `opinions` goes through `decode_with`: what
passes is well-formed, and what does not raises `BadMessage` with a reason slug that becomes a
metric label and a dead-letter header.

What surprised us: JSON allows lone surrogates (``"\\ud800"``) that no UTF-8 consumer can read,
and a NUL inside a key breaks tools that print keys.  Both are refused here, once.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, TypeVar

import msgspec

from profiles.errors import BadMessage

MAX_ID_LENGTH = 256
MAX_TEXT_LENGTH = 20_000
MAX_TAGS = 64
MAX_CONTEXT_FIELDS = 32
MAX_VALUE = 1e30
"""Profiles keep values as float32: beyond 3.4e38 they would become infinite."""


Id = Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_ID_LENGTH)]
Text = Annotated[str, msgspec.Meta(max_length=MAX_TEXT_LENGTH)]
Tags = Annotated[list[Id], msgspec.Meta(max_length=MAX_TAGS)]
Scalar = str | int | float | bool | None
Context = Annotated[dict[str, Scalar], msgspec.Meta(max_length=MAX_CONTEXT_FIELDS)]
Message = TypeVar("Message", bound=msgspec.Struct)
_ENCODER = msgspec.json.Encoder()


def encode(message: msgspec.Struct) -> bytes:
    """JSON bytes of a message, UTF-8.

    >>> class Note(msgspec.Struct):
    ...     text: str
    >>> encode(Note("hello"))
    b'{"text":"hello"}'
    """
    return _ENCODER.encode(message)


def decode_json(payload: bytes, kind: type[Message]) -> Message:
    """Read a message of ours that needs no checks beyond its schema.  Raises: BadMessage."""
    message: Message = decode_with(msgspec.json.Decoder(kind), payload)
    return message


# Any: msgspec's Decoder is generic only in its stub; callers restore the type.
def decode_with(decoder: msgspec.json.Decoder[Any], payload: bytes | None) -> Any:
    """What the decoder makes of the bytes.  Raises: BadMessage (empty, invalid, malformed)."""
    if not payload:
        raise BadMessage("empty", "the message has no payload; a JSON object was expected")
    try:
        return decoder.decode(payload)
    except msgspec.ValidationError as error:
        raise BadMessage("invalid", f"the message does not fit its schema: {error}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BadMessage("malformed", f"the message is not JSON: {error}") from error


def check_size(payload: bytes | None, max_bytes: int) -> None:
    """Raises: BadMessage (oversized)."""
    if payload is not None and len(payload) > max_bytes:
        raise BadMessage(
            "oversized",
            f"the message has {len(payload)} bytes, more than the {max_bytes} allowed by "
            "serving.max_message_bytes",
        )


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
