"""Google Analytics 4: one event per line, as its BigQuery export gives them in JSON.

Each entry of `items` becomes an event.  The user is `user_id`, or else `user_pseudo_id`: a browser.
The export carries no id of an event; one is made of user, time, name and item.
Source: https://support.google.com/analytics/answer/7029846.
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
    event_name,
    needed,
    unix_seconds,
)

ACTIONS = {
    "view_item": "view",
    "select_item": "click",
    "add_to_cart": "cart",
    "add_to_wishlist": "like",
    "purchase": "purchase",
}


class Value(msgspec.Struct):
    """A parameter's value: BigQuery writes whole numbers as text."""

    int_value: Number | None = None
    string_value: str | None = None


class Parameter(msgspec.Struct):
    """One of an event's parameters."""

    key: str
    value: Value | None = None


class Product(msgspec.Struct):
    """An entry of `items`."""

    item_id: Number | None = None
    item_name: str | None = None
    item_category: str | None = None


class Line(msgspec.Struct):
    """One line of the file."""

    event_name: str
    event_timestamp: Number
    user_id: Number | None = None
    user_pseudo_id: Number | None = None
    items: list[Product] = []
    event_params: list[Parameter] = []


def open_ga4(head: str, actions: Actions) -> tuple[Parse, bool]:
    """An `Opening`; the file has no header."""
    known = {**ACTIONS, **actions}

    def parse(line: str) -> Found:
        row = decode_json(line.encode(), Line)
        action = known.get(row.event_name.lower())
        if action is None:
            return Found(passed_over=row.event_name)
        user = needed(row.user_id or row.user_pseudo_id, "user_id or user_pseudo_id")
        ts = unix_seconds(row.event_timestamp)
        found = Found()
        for product in row.items:
            item = needed(product.item_id, "item_id")
            name = event_name(user, row.event_timestamp, row.event_name, item)
            session = _session(row)
            found.events.append(Event(name, user, item, action, ts, session_id=session))
            found.items.extend(described(item, product.item_name, product.item_category))
        return found if found.events else Found(passed_over=f"{row.event_name} without items")

    return parse, False


def _session(row: Line) -> str | None:
    for parameter in row.event_params:
        if parameter.key == "ga_session_id" and parameter.value is not None:
            value = parameter.value.int_value or parameter.value.string_value
            return None if value is None else str(value)
    return None
