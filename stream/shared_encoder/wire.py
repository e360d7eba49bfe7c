"""What goes over an encoder's socket: frames of MessagePack, a length before each.

No pickle: what reads here serves several domains, and believes none of them.
"""

from __future__ import annotations

import asyncio
import struct

import msgspec
import numpy as np

from profiles.errors import ModelError
from profiles.layers import Floats

MAX_FRAME = 64 * 2**20
"""Bytes.  256 texts of the longest kind are 5 MB; their vectors less."""
MAX_SOCKET_PATH = 100
"""Linux takes 107 bytes."""
_LENGTH = struct.Struct(">I")


class Ask(msgspec.Struct, frozen=True, array_like=True):
    """Read these texts under the adapter in this directory; without texts: is the base there?"""

    number: int
    adapter: str
    texts: list[str]


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Vectors as float32 bytes, `rows` of them; or what went wrong."""

    number: int
    rows: int = 0
    vectors: bytes = b""
    error: str = ""

    def to_array(self) -> Floats:
        """Shapes: -> (rows, T).  Raises: ModelError with what the encoder said."""
        if self.error:
            raise ModelError(self.error)
        flat: Floats = np.frombuffer(self.vectors, np.float32)
        return flat.reshape(self.rows, -1) if self.rows else np.zeros((0, 0), np.float32)


ASKS = msgspec.msgpack.Decoder(Ask)
ANSWERS = msgspec.msgpack.Decoder(Answer)


def framed(message: msgspec.Struct) -> bytes:
    """A message as it is sent."""
    payload = msgspec.msgpack.encode(message)
    return _LENGTH.pack(len(payload)) + payload


async def read_frame(stream: asyncio.StreamReader) -> bytes | None:
    """The next payload; None where the other side has gone, or sends what is no frame."""
    try:
        (size,) = _LENGTH.unpack(await stream.readexactly(_LENGTH.size))
        return await stream.readexactly(size) if size <= MAX_FRAME else None
    except (asyncio.IncompleteReadError, OSError):
        return None
