"""From a file to good events and named rejects, line by line, in bounded memory.

Every event passes the same checks as in a worker, so what is counted as good is not dead-lettered
later, unless the catalogue lacks its item.  Lines are cut at line ends: a CSV cell that holds one
is two bad lines.
"""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from profiles.errors import BadMessage, DatasetError, SettingsError
from profiles.events import Event
from profiles.items import Item
from stream.client.payloads import Contract
from stream.importing.ga4 import open_ga4
from stream.importing.gorse import open_gorse
from stream.importing.movielens import open_movielens
from stream.importing.personalize import open_personalize
from stream.importing.rows import Opening
from stream.importing.segment import open_segment

OPENINGS: Mapping[str, Opening] = {
    "segment": open_segment,
    "ga4": open_ga4,
    "gorse": open_gorse,
    "personalize": open_personalize,
    "movielens": open_movielens,
}
FORMATS = tuple(OPENINGS)


@dataclass(frozen=True, slots=True)
class Row:
    """A line that was read: its events with their bytes, what it tells of items, or its act."""

    events: list[tuple[Event, bytes]] = field(default_factory=list)
    items: list[Item] = field(default_factory=list)
    passed_over: str = ""


@dataclass(frozen=True, slots=True)
class Reject:
    """A line that was not: `line` counts from one; `text` is the line itself."""

    line: int
    reason: str
    detail: str
    text: str


def check_format(name: str) -> None:
    """Raises: SettingsError if no such format is known."""
    if name not in OPENINGS:
        raise SettingsError(
            f"unknown format {name!r}; known are {', '.join(FORMATS)}. A table of your own goes "
            "through `driftline replay tabular`"
        )


def read_rows(
    path: Path, format_name: str, actions: Mapping[str, str], contract: Contract
) -> Iterator[Row | Reject]:
    """Every line of a file, plain or .gz, as what it became; empty ones are left out.

    Raises: SettingsError for an unknown format; DatasetError when the file cannot be read, is
    empty, or cannot be of this format at all.
    """
    check_format(format_name)
    opening = OPENINGS[format_name]
    now_s = time.time()
    parse = None
    for number, line in _lines(path):
        if parse is None:
            parse, is_header = opening(line, actions)
            if is_header:
                continue
        try:
            line.encode()
            found = parse(line)
            events = [(event, contract.event(event, now_s)) for event in found.events]
        except UnicodeEncodeError:
            yield Reject(number, "malformed", "the line is not UTF-8", ascii(line)[1:-1])
        except BadMessage as error:
            yield Reject(number, error.reason, str(error), line)
        else:
            yield Row(events, found.items, found.passed_over)
    if parse is None:
        raise DatasetError(f"{str(path)!r} is empty")


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        # Bytes that are no UTF-8 become surrogates, which the caller rejects line by line.
        open_file = gzip.open if path.suffix == ".gz" else open
        with open_file(path, "rt", encoding="utf-8-sig", errors="surrogateescape") as file:
            for number, line in enumerate(file, start=1):
                text = line.rstrip("\r\n")
                if text.strip():
                    yield number, text
    except (OSError, EOFError) as error:
        raise DatasetError(f"{str(path)!r} cannot be read: {error}") from error
