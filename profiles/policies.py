"""What people ordered: items and tags that nobody is shown, and a stop to promotions.

Orders stand on the `policies` topic, compacted by name, so they outlive every process; whoever
must obey reads it whole.  An order is lifted by another one of the same name, never by silence.
The topic has one partition: the last order of a name is the one that holds.
"""

from __future__ import annotations

from collections.abc import Collection

from profiles.errors import BadMessage
from profiles.logs import get_logger
from profiles.notices import PolicyOrder
from profiles.wire import decode_json

log = get_logger("profiles.policies")


class PolicyBoard:
    """The orders that hold.

    >>> board = PolicyBoard()
    >>> board.put(PolicyOrder("tag", "weapons", True))
    >>> board.put(PolicyOrder("item", "i1", True)); board.put(PolicyOrder("item", "i1", False))
    >>> board.items, board.tags, board.bars("i7", ["knives", "weapons"]), board.freeze
    (frozenset(), frozenset({'weapons'}), True, None)
    """

    def __init__(self) -> None:
        self._orders: dict[str, PolicyOrder] = {}

    def put(self, order: PolicyOrder) -> None:
        """Take an order in, in the order of the topic."""
        self._orders[order.name] = order

    def put_payload(self, key: bytes | None, payload: bytes | None) -> None:
        """Take a record in.  A tombstone lifts nothing; what cannot be read is told in the log."""
        if not payload:
            return
        try:
            self.put(decode_json(payload, PolicyOrder))
        except BadMessage as error:
            log.error("order unreadable", name=repr(key), error=str(error))

    def all(self) -> list[PolicyOrder]:
        """Orders that hold, the newest last."""
        held = [order for order in self._orders.values() if order.active]
        return sorted(held, key=lambda order: (order.decided_at, order.name))

    @property
    def items(self) -> frozenset[str]:
        """Ids of blocked items."""
        return self._targets("item")

    @property
    def tags(self) -> frozenset[str]:
        """Blocked tags."""
        return self._targets("tag")

    @property
    def freeze(self) -> PolicyOrder | None:
        """The order that stops promotions, if it holds."""
        return next((order for order in self.all() if order.kind == "freeze"), None)

    def bars(self, item_id: str, tags: Collection[str]) -> bool:
        """Whether an item may not be shown."""
        return item_id in self.items or not self.tags.isdisjoint(tags)

    def _targets(self, kind: str) -> frozenset[str]:
        return frozenset(order.target for order in self.all() if order.kind == kind)
