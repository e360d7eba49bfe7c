"""What the last session adds to a user's scores, and what came before it adds.

Profiles are rebuilt from parts of the remembered events, as at a swap: from none, from the session
alone, from all that came before it, from all.  What each part adds to a score is its Shapley value
of these four:

    session = ((all - earlier) + (session - none)) / 2,   earlier likewise

so the two and the base (none) sum to the score, whichever way the model mixes them.

Source: Shapley 1953, "A value for n-person games"; here with two players.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from profiles.catalog import Catalog, Rows
from profiles.history import read_history
from profiles.layers import Floats
from profiles.rebuild import rebuild
from profiles.scoring import queries
from profiles.space import Space
from profiles.state import SAID, Records

SESSION_GAP_S = 30 * 60.0


def session_length(ts: Sequence[float]) -> int:
    """How many of the newest events, none of them later than the next by more than the gap.

    `ts`: Unix seconds, oldest first.

    >>> session_length([0.0, 7200.0, 7260.0]), session_length([]), session_length([5.0])
    (2, 0, 1)
    """
    for back in range(1, len(ts)):
        if ts[-back] - ts[-back - 1] > SESSION_GAP_S:
            return back
    return len(ts)


def without_words(records: Records) -> Records:
    """The same, with no memory of words: they need a language model, which is the workers'."""
    plain = records.copy()
    ring = plain["history"]
    ring["item"][ring["action"] >= SAID] = 0
    return plain


def split(records: Records, session: int) -> Records:
    """One user's record four times: with no events, the session's, the earlier ones, all.

    Shapes: (1,) -> (4,).
    """
    size = records["history"].shape[1]
    events = int(records["events"][0])
    kept = min(events, size)
    ring = records["history"][0][np.arange(events - kept, events) % size]
    found = np.repeat(records, 4)
    for at, part in enumerate((ring[:0], ring[kept - session :], ring[: kept - session], ring)):
        found["events"][at] = len(part)
        found["history"][at, : len(part)] = part
        found["history"][at, len(part) :] = 0
    return found


def contributions(
    parts: Records, rows: Rows, space: Space, catalog: Catalog
) -> tuple[Floats, Floats, Floats, Floats]:
    """Score, base, session's and earlier events' part of some items.

    Shapes: parts (4,) of `split`, rows (K,) -> four of (K,).
    """
    rebuild(parts, np.arange(4), space, catalog)
    # Declared interests fade with events and would blur what these add: they are left out.
    parts["interest_release"] = 0
    query = queries(parts, space) * space.head.score_scale[0]
    none, session, earlier, whole = query @ space.vectors[rows].T + space.bias[rows]
    of_session = ((whole - earlier) + (session - none)) / 2
    of_earlier = ((whole - session) + (earlier - none)) / 2
    return whole, none, of_session, of_earlier


def newest_first(records: Records) -> tuple[npt.NDArray[np.uint64], list[float]]:
    """Keys and times of the remembered events of one user."""
    history = read_history(records)
    return history.items[0][::-1], history.ts[0][::-1].tolist()
