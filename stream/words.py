"""What a batch needs of the words that its users say, and what is kept of them afterwards.

A profile moves by words only when the language model has read them, which takes milliseconds that
the state thread does not have.  So whoever is about to use them asks first (`unread`); if anything
is missing nothing is done, the caller has it read off the loop (`stream.text_reader`), and tries
again.  The same holds for a profile that must be rebuilt after a swap from words it remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from profiles.said import Tail, TextMemory, forget, has_words, read_tail, text_key
from profiles.space import Space
from profiles.state import Records
from stream.arms import Arm

Said = Sequence[tuple[int, str]]
"""Words of a batch, each with the row of its user."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Nothing was done yet: these words must be read by these spaces' language models first."""

    texts: list[tuple[Space, list[str]]]


def unread(
    arms: Sequence[Arm], records: Records, tails: Sequence[bytes], said: Said = ()
) -> Unread | None:
    """Words that users say now, or from which they must be rebuilt, that their space lacks."""
    if not said and not any(tails):
        return None
    found = []
    for arm in arms:
        needed = [text for row, text in said if arm.members[row]]
        needed += [text for texts in _needed(arm, records, tails).values() for text in texts]
        if lacking := arm.space.texts.lacking(needed):
            found.append((arm.space, lacking))
    return Unread(found) if found else None


def late(arms: Sequence[Arm], records: Records, tails: Sequence[bytes]) -> list[int]:
    """Rows that cannot be rebuilt before their words are read."""
    if not any(tails):
        return []
    return [
        row
        for arm in arms
        for row, texts in _needed(arm, records, tails).items()
        if arm.space.texts.lacking(texts)
    ]


def remember(records: Records, tails: list[bytes], said: Said, memory: TextMemory) -> None:
    """Keep the last words that users said; older ones are forgotten, in history and tail."""
    new: dict[int, list[str]] = {}
    for row, text in said:
        new.setdefault(row, []).append(text)
    speakers = set(new)
    if any(tails):
        speakers |= {row for row, tail in enumerate(tails) if has_words(tail)}
    for row in speakers:
        kept = forget(records, row, memory.texts)
        tail = read_tail(tails[row])
        texts = dict.fromkeys((*tail.texts, *new.get(row, ())))
        words = tuple(text for text in texts if text_key(text) in kept)
        tails[row] = Tail(tail.interests, words).to_bytes()


def _needed(arm: Arm, records: Records, tails: Sequence[bytes]) -> dict[int, tuple[str, ...]]:
    """Words of the profiles that this arm must rebuild, by row."""
    wrong = arm.members & (records["release"] != arm.space.key)
    return {
        row: read_tail(tails[row]).texts
        for row in np.flatnonzero(wrong).tolist()
        if has_words(tails[row])
    }
