"""Gorse feedback: its CSV export, or JSON objects one per line as its API takes them.

A feedback type is an action of ours if it has the same name; `read` and `star` have theirs here,
others are given by `--action`.
Source: https://gorse.io/docs (feedback: FeedbackType, UserId, ItemId, Timestamp).
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
    column_reader,
    event_name,
    needed,
    number,
    unix_seconds,
)

ACTIONS = {"read": "view", "star": "like"}
COLUMNS = {
    "kind": ("feedback_type", "feedbacktype"),
    "user": ("user_id", "userid"),
    "item": ("item_id", "itemid"),
    "time": ("time_stamp", "timestamp"),
    "value": ("value",),
}


class Feedback(msgspec.Struct):
    """One JSON line."""

    FeedbackType: str
    UserId: str
    ItemId: str
    Timestamp: Number
    Value: Number | None = None


def open_gorse(head: str, actions: Actions) -> tuple[Parse, bool]:
    """An `Opening`: JSON if the first line is an object, else CSV with a header."""
    known = {**ACTIONS, **actions}

    def event(kind: str, user: str, item: str, time: Number, value: Number | None) -> Found:
        action = known.get(kind.lower(), kind.lower())
        name = event_name(kind, user, item, time)
        stars = number(value, "value")
        return Found([Event(name, user, item, action, unix_seconds(time), stars)])

    if head.lstrip().startswith("{"):

        def parse_json(line: str) -> Found:
            row = decode_json(line.encode(), Feedback)
            return event(row.FeedbackType, row.UserId, row.ItemId, row.Timestamp, row.Value)

        return parse_json, False
    read = column_reader(head, COLUMNS, ("kind", "user", "item", "time"))

    def parse_csv(line: str) -> Found:
        row = read(line)
        kind, user = needed(row["kind"], "feedback_type"), needed(row["user"], "user_id")
        return event(kind, user, needed(row["item"], "item_id"), row["time"], row.get("value"))

    return parse_csv, True
