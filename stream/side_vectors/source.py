"""Where one item's vector comes from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


class BadSource(ValueError):
    """A file that gives no vector."""


@dataclass(frozen=True, slots=True)
class Source:
    """`name`: what to call it when it cannot be read.  `read` raises BadSource."""

    item_id: str
    name: str
    read: Callable[[], list[float]]
