"""Where one item's vector comes from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


class BadSource(ValueError):
    """A file that gives no vector."""


@dataclass(frozen=True, slots=True)
class Source:
    """`name`: what to call it when it cannot be read.  `read` raises BadSource.  `attributes`: what
    else is learned of the item, in words."""

    item_id: str
    name: str
    read: Callable[[], list[float]]
    attributes: Mapping[str, str] = field(default_factory=dict)
