"""What the console's own routes take and give, besides what its modules define."""

from __future__ import annotations

from typing import Annotated

import msgspec

from profiles.wire import Id
from stream.dead_letters import LetterAt

REPLAYED_AT_ONCE = 200
MAX_REASON = 500


class Promotion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which release is to serve; `force`: even if it was refused or rolled back."""

    release_id: Id
    force: bool = False


class Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A body that says only: I mean it."""


class Freeze(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Stop promotions, or let them go on; `reason` goes into the order and the audit log."""

    active: bool
    reason: Annotated[str, msgspec.Meta(max_length=MAX_REASON)] = ""


class Replay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which dead letters are to go back to where they came from."""

    letters: Annotated[list[LetterAt], msgspec.Meta(min_length=1, max_length=REPLAYED_AT_ONCE)]


class About(msgspec.Struct, frozen=True):
    """What the pages need to know of the deployment."""

    prefix: str
    group: str
    k: int
    actions: dict[str, float]


class Users(msgspec.Struct, frozen=True):
    """Whose profile changed last, newest first."""

    users: list[str]


class Forgetting(msgspec.Struct, frozen=True):
    """The last rows and columns of R[i][j]: NDCG@10 of release i on the exam of period j.

    `releases` names the rows, `first_period` numbers the first column; null where a release sat no
    exam.  Of a release that has learned nothing yet there is none: no rows.
    """

    release_id: str
    releases: list[str]
    first_period: int
    matrix: list[list[float | None]]


class Point(msgspec.Struct, frozen=True):
    """An item on the map, -1 to 1 either way.  `kind`: history, recommended or near."""

    item_id: str
    title: str
    kind: str
    x: float
    y: float
    in_session: bool = False


class ItemMap(msgspec.Struct, frozen=True):
    """A flat picture of item vectors.  `explained`: what of their differences it shows, 0 to 1;
    `left_out`: items that the release has no vector of."""

    points: list[Point]
    explained: float
    left_out: int


class ScoreParts(msgspec.Struct, frozen=True):
    """A score, taken apart: `base` is what everybody's is, the rest what this user's events add."""

    item_id: str
    title: str
    score: float
    base: float
    session: float
    earlier: float


class Sessions(msgspec.Struct, frozen=True):
    """The last session against what came before it.

    `session_events`, `earlier_events`: how many remembered ones; `session_weight`: share of what
    both add to the recommended items' scores that the session adds, None if neither adds anything.
    """

    session_events: int
    earlier_events: int
    session_weight: float | None
    items: list[ScoreParts]


class Listed(msgspec.Struct, frozen=True):
    """One place of a list."""

    item_id: str
    title: str
    score: float


class Side(msgspec.Struct, frozen=True):
    """What a release makes of the user's remembered events."""

    release_id: str
    items: list[Listed]


class Swap(msgspec.Struct, frozen=True):
    """The same remembered events, read by the release that served before and by the one that
    serves; `decided_at`: Unix seconds of the swap."""

    decided_at: float
    before: Side
    after: Side


class UserView(msgspec.Struct, frozen=True):
    """One user in the space of the serving release.  `swap` is None until a second one served, or
    while the one before cannot be opened: then `swap_missing` says why."""

    user_id: str
    release_id: str
    map: ItemMap
    sessions: Sessions
    swap: Swap | None
    swap_missing: str


VIEWS = (
    Promotion, Nothing, Freeze, Replay, LetterAt, About, Users, Forgetting, Point, ItemMap,
    ScoreParts, Sessions, Listed, Side, Swap, UserView,
)  # fmt: skip
