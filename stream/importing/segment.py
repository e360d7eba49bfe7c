"""Segment: one `track` call per line, with the events of its e-commerce specification.

An order becomes one `purchase` per product.  Calls other than `track`, and events that no action
is given for, are passed over.
Source: https://segment.com/docs/connections/spec/ecommerce/v2/.
"""

from __future__ import annotations

import msgspec

from profiles.events import Event
from profiles.wire import decode_json
from stream.importing.rows import (
    Actions,
    Found,
    Number,
    Parse,
    described,
    needed,
    number,
    unix_seconds,
)

ACTIONS = {
    "product clicked": "click",
    "product viewed": "view",
    "product added": "cart",
    "product added to wishlist": "like",
    "product shared": "share",
    "order completed": "purchase",
    "product reviewed": "rate",
}


class Product(msgspec.Struct):
    """A product as an event names it."""

    product_id: Number | None = None
    sku: Number | None = None
    name: str | None = None
    category: str | None = None


class Properties(Product):
    """An event's own product, or several."""

    products: list[Product] = []
    rating: Number | None = None


class Call(msgspec.Struct):
    """One line of the file."""

    type: str = "track"
    event: str = ""
    userId: Number | None = None
    anonymousId: Number | None = None
    messageId: str | None = None
    timestamp: Number | None = None
    properties: Properties | None = None


def open_segment(head: str, actions: Actions) -> tuple[Parse, bool]:
    """An `Opening`; the file has no header."""
    known = {**ACTIONS, **actions}

    def parse(line: str) -> Found:
        call = decode_json(line.encode(), Call)
        action = known.get(call.event.lower()) if call.type == "track" else None
        if action is None:
            return Found(passed_over=call.event if call.type == "track" else call.type)
        properties = call.properties or Properties()
        products: list[Product] = properties.products or [properties]
        user = needed(call.userId or call.anonymousId, "userId or anonymousId")
        message = needed(call.messageId, "messageId")
        ts = unix_seconds(call.timestamp)
        stars = number(properties.rating, "rating")
        found = Found()
        for place, product in enumerate(products):
            item = needed(product.product_id or product.sku, "product_id or sku")
            name = message if len(products) == 1 else f"{message}-{place}"
            found.events.append(Event(name, user, item, action, ts, stars))
            found.items.extend(described(item, product.name, product.category))
        return found

    return parse, False
