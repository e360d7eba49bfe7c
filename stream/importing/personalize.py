"""Amazon Personalize: the CSV of an interactions data set.

USER_ID, ITEM_ID and TIMESTAMP are required there; EVENT_TYPE and EVENT_VALUE are optional.  A line
without a type is a `rate` where it has a value and a `view` otherwise.
Source: https://docs.aws.amazon.com/personalize/latest/dg/interactions-datasets.html.
"""

from __future__ import annotations

from profiles.events import Event
from stream.importing.rows import (
    Actions,
    Found,
    Parse,
    column_reader,
    event_name,
    needed,
    number,
    unix_seconds,
)

COLUMNS = {
    "user": ("user_id",),
    "item": ("item_id",),
    "time": ("timestamp",),
    "kind": ("event_type",),
    "value": ("event_value",),
}


def open_personalize(head: str, actions: Actions) -> tuple[Parse, bool]:
    """An `Opening`; the file begins with a header."""
    read = column_reader(head, COLUMNS, ("user", "item", "time"))

    def parse(line: str) -> Found:
        row = read(line)
        user, item = needed(row["user"], "USER_ID"), needed(row["item"], "ITEM_ID")
        stars = number(row.get("value"), "EVENT_VALUE")
        kind = row.get("kind", "").lower()
        action = actions.get(kind, kind) or ("view" if stars is None else "rate")
        name = event_name(user, item, row["time"], kind)
        return Found([Event(name, user, item, action, unix_seconds(row["time"]), stars)])

    return parse, True
