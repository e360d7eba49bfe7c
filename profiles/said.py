"""What users say: the words of events, in a profile and in a space.

Words move a profile as an event on a well-known item of that text would (as a declared interest
does, docs/decisions/0018).  A vector is worth nothing in the next release, so a profile keeps the
words themselves: the last `profile.texts` of them, cut to `profile.text_chars`, behind the record
(its tail), where a user who says nothing pays nothing.  What is kept is what was encoded, so that
a rebuild reads what the first pass read; words forgotten since are passed over, like the events of
an item that the catalogue has lost.

A tail without words is the declared interests as plain UTF-8, as it was before there were words;
one with words begins with 0xFF, which no UTF-8 text does.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from profiles.catalog import Keys, Rows
from profiles.head import Head, embed_items
from profiles.layers import Floats
from profiles.state import SAID, Records
from profiles.updater import KNOWN_ITEM_EVENTS
from profiles.wire import key64

ROOM = 10_000
"""Texts whose vectors a space keeps: at 64 dimensions about 4 MB."""
_WORDS = b"\xff"


@dataclass(frozen=True, slots=True)
class TextMemory:
    """How much of what a user says is kept: the last `texts` of them, `chars` of each."""

    texts: int = 8
    chars: int = 200

    def kept(self, text: str) -> str:
        """The part that is encoded and kept.

        >>> TextMemory(chars=8).kept("  light tents ")
        'light te'
        """
        return text.strip()[: self.chars]


DEFAULT_MEMORY = TextMemory()


class Tail(msgspec.Struct, frozen=True):
    """What follows a record: declared interests, and the remembered words, oldest first."""

    interests: str = ""
    texts: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Nothing for nothing.

        >>> Tail("tents").to_bytes(), read_tail(Tail("tents", ("how long?",)).to_bytes()).texts
        (b'tents', ('how long?',))
        """
        if not self.texts:
            return self.interests.encode()
        return _WORDS + msgspec.msgpack.encode((self.interests, self.texts))


def has_words(tail: bytes) -> bool:
    """Whether a tail holds words of events."""
    return tail[:1] == _WORDS


def read_tail(tail: bytes) -> Tail:
    """The tail of a stored record."""
    if not has_words(tail):
        return Tail(tail.decode())
    return Tail(*msgspec.msgpack.decode(tail[1:], type=tuple[str, tuple[str, ...]]))


def text_key(text: str) -> int:
    """64-bit name of words; no item can have it, because no item's id holds a NUL.

    >>> text_key("tents") == text_key("tents") != key64("tents")
    True
    """
    return key64("\x00" + text)


def forget(records: Records, row: int, texts: int) -> set[int]:
    """Forget all but the last `texts` words of one user's history, in place.

    Returns: keys of the words that are still remembered.
    """
    ring = records["history"][row]
    events, size = int(records["events"][row]), len(ring)
    slots = np.arange(max(0, events - size), events) % size
    said = slots[(ring["action"][slots] >= SAID) & (ring["item"][slots] != 0)]
    ring["item"][said[: max(0, len(said) - texts)]] = 0
    return set(ring["item"][said[max(0, len(said) - texts) :]].tolist())


class TextVectors:
    """Vectors of words in one space, those used last.  Not thread-safe: the state thread owns it.

    It may grow past its room until `trim`: what one batch needs is all there at once.
    """

    def __init__(self, head: Head) -> None:
        self._head = head
        self._held: dict[int, Floats] = {}

    def lacking(self, texts: Iterable[str]) -> list[str]:
        """Those that have no vector here, each once."""
        return [text for text in dict.fromkeys(texts) if text_key(text) not in self._held]

    def put(self, texts: Sequence[str], vectors: Floats) -> None:
        """Take in what this space's language model made.  Shapes: vectors (len(texts), T)."""
        count, dim = len(texts), self._head.shape.dim
        known = np.full(count, KNOWN_ITEM_EVENTS, np.float32)
        made = embed_items(self._head, vectors, np.zeros((count, dim), np.float32), known)
        self._held.update(zip(map(text_key, texts), made, strict=True))

    def of(self, keys: Keys) -> Floats:
        """Vectors of words that are here.  Shapes: (K,) -> (K, D)."""
        found = np.empty((len(keys), self._head.shape.dim), np.float32)
        for at, key in enumerate(keys.tolist()):
            vector = self._held[key] = self._held.pop(key)  # used last
            found[at] = vector
        return found

    def holds(self, keys: Keys) -> npt.NDArray[np.bool_]:
        """Which words are here.  Shapes: any -> the same."""
        held = [key in self._held for key in keys.ravel().tolist()]
        return np.array(held, np.bool_).reshape(keys.shape)

    def clear(self) -> None:
        """Let go of everything: somebody who said some of it was erased."""
        self._held.clear()

    def trim(self) -> None:
        """Let go of those used longest ago."""
        for key in list(self._held)[: max(0, len(self._held) - ROOM)]:
            del self._held[key]


def step_vectors(vectors: Floats, texts: TextVectors, rows: Rows, keys: Keys) -> Floats:
    """What events bring: an item's vector, or where the row is -1 that of the words.

    Shapes: vectors (N, D), rows and keys (...) -> (..., D).
    """
    spoken: npt.NDArray[np.bool_] = rows < 0
    if not spoken.any():
        return vectors[rows]
    found = np.zeros((*rows.shape, vectors.shape[1]), np.float32)
    if len(vectors):  # else the words are all there is, and what else stands here is padding
        found[~spoken] = vectors[rows[~spoken]]
    found[spoken] = texts.of(keys[spoken])
    return found
