"""What the routes stand on: settings, read model, a client, and whether all has been read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from profiles.answers import Filters, Recommendation
from profiles.config import Settings
from profiles.events import Event
from profiles.wire import Scalar
from stream.api.read_model import ReadModel

Why = Callable[[], str | None]
"""None when all is well, else the reason in one line."""


class Client(Protocol):
    """What the API needs of `stream.client.AsyncDriftline`."""

    async def send(self, events: Iterable[Event]) -> int: ...

    async def declare(
        self, user_id: str, interests: str, attributes: dict[str, Scalar] | None = None
    ) -> None: ...

    async def recommend(
        self,
        user_id: str,
        k: int = 10,
        *,
        filters: Filters | None = None,
        exclude: Sequence[str] = (),
        timeout_s: float = 10.0,
    ) -> Recommendation: ...

    async def predict(
        self, user_id: str, items: Sequence[str], *, timeout_s: float = 10.0
    ) -> Recommendation: ...

    async def erase(self, user_id: str, reason: str = "") -> str: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What the routes stand on.  `why_not_live`: what only a restart can mend."""

    settings: Settings
    model: ReadModel
    client: Client
    why_not_ready: Why
    why_not_live: Why = lambda: None
