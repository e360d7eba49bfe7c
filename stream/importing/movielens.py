"""MovieLens ratings, whatever their layout: u.data, ratings.dat, ratings.csv, *.inter.

One file of ratings, line by line, so that a damaged line costs only itself.  Of a whole folder
`driftline replay movielens` makes items and users as well.
"""

from __future__ import annotations

from profiles.errors import BadMessage
from profiles.events import Event
from stream.importing.rows import Actions, Found, Parse, cells, event_name, needed, number
from stream.importing.rows import unix_seconds as seconds

COLUMNS = 4


def open_movielens(head: str, actions: Actions) -> tuple[Parse, bool]:
    """An `Opening`: the separator is told by the first line, a header by its letters."""
    separator = "::" if "::" in head else max("\t,", key=head.count)

    def parse(line: str) -> Found:
        row = line.split("::") if separator == "::" else cells(line, separator)
        if len(row) != COLUMNS:
            raise BadMessage("invalid", f"{len(row)} columns; user, item, stars, time are needed")
        user, item = needed(row[0], "user"), needed(row[1], "item")
        stars = number(needed(row[2], "rating"), "rating")
        action = actions.get("rate", "rate")
        return Found([Event(event_name(*row), user, item, action, seconds(row[3]), stars)])

    return parse, any(letter.isalpha() for letter in head)
