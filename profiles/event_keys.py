"""64-bit names of event ids, a whole chunk at a time.

A profile keeps the ids of a user's last few events only to recognise a repetition, so their names
need to be stable and spread, not cryptographic: `key64` (BLAKE2) takes 1.2 us per id,
this 0.1.  Items, users and releases keep `key64`: they are named once, not per event.

The ids become one matrix of characters (numpy pads with NUL, which no id holds, so different ids
are different rows), each row is summed against fixed odd multipliers (multilinear hashing), and
the sum is mixed (the finaliser of MurmurHash3) so that any part of it is as good as any other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from profiles.wire import MAX_ID_LENGTH

Words = npt.NDArray[np.uint64]

_CHARACTERS_PER_WORD = 2  # numpy's are four bytes wide
_MULTIPLIERS: Words = np.frombuffer(
    hashlib.shake_128(b"driftline event ids").digest(8 * MAX_ID_LENGTH // _CHARACTERS_PER_WORD),
    dtype="<u8",
) | np.uint64(1)
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xFF51AFD7ED558CCD)
_MIX_2 = np.uint64(0xC4CEB9FE1A85EC53)


def event_keys(event_ids: Sequence[str]) -> Words:
    """Names of event ids (1 to `MAX_ID_LENGTH` characters each); 0 is reserved for "none".

    Shapes: -> (len(event_ids),).

    >>> [hex(key) for key in event_keys(["a", "b"]).tolist()]
    ['0x35c30f47239d7124', '0x9b6cfffb7b55b35e']
    """
    if not event_ids:
        return np.zeros(0, dtype=np.uint64)
    longest = max(map(len, event_ids))
    words_each = -(-longest // _CHARACTERS_PER_WORD)
    text = np.array(event_ids, dtype=f"<U{words_each * _CHARACTERS_PER_WORD}")
    words = text.view("<u8").reshape(len(event_ids), words_each) * _SPREAD
    # The low half must depend on both characters: a difference that is a multiple of 2^32 would
    # only reach half of the sum.
    words ^= words >> np.uint64(32)
    key: Words = (words * _MULTIPLIERS[:words_each]).sum(axis=1, dtype=np.uint64)
    for mix in (_MIX_1, _MIX_2):
        key ^= key >> np.uint64(33)
        key *= mix
    key ^= key >> np.uint64(33)
    return np.maximum(key, np.uint64(1))
