"""MIND, the Microsoft News data set: clicks on news with titles and abstracts.

A folder with `behaviors.tsv` (impression id, user, time, history, impressions ``N1-1 N2-0``) and
`news.tsv` (id, category, subcategory, title, abstract, ...).  Each clicked impression becomes an
event `click`.  The history column carries no times and is left out.
Source: https://msnews.github.io.
"""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from profiles.errors import DatasetError
from profiles.items import Item
from stream.datasets.dataset import Codes, Dataset, EventTable

TIME_FORMAT = "%m/%d/%Y %I:%M:%S %p"


def load_mind(folder: Path) -> Dataset:
    """Read clicks and news.  Raises: DatasetError naming the file and line that does not fit."""
    behaviors, news = folder / "behaviors.tsv", folder / "news.tsv"
    if not behaviors.is_file() or not news.is_file():
        raise DatasetError(f"{str(folder)!r} lacks behaviors.tsv or news.tsv")
    items = [
        Item(cells[0], title=cells[3], text=cells[4], tags=[tag for tag in cells[1:3] if tag])
        for cells in _rows(news, least=5)
    ]
    users: list[str] = []
    clicked: list[str] = []
    times: list[float] = []
    lines: list[int] = []
    for line, (_, user, moment, _, shown, *_) in enumerate(_rows(behaviors, least=5), start=1):
        try:
            ts = datetime.strptime(moment, TIME_FORMAT).replace(tzinfo=UTC).timestamp()
        except ValueError as error:
            raise DatasetError(f"{behaviors}, line {line}: {error}") from error
        for place, impression in enumerate(shown.split()):
            if impression.endswith("-1"):
                users.append(user)
                clicked.append(impression[:-2])
                times.append(ts)
                # One line holds many impressions: its number alone would name several events.
                lines.append(line * 1000 + place)
    rows = len(times)
    events = EventTable(
        prefix="mind",
        lines=np.array(lines, np.int64),
        users=Codes.of(np.array(users, dtype=object)),
        items=Codes.of(np.array(clicked, dtype=object)),
        actions=Codes.constant("click", rows),
        ts=np.array(times, np.float64),
        values=np.full(rows, np.nan),
    ).checked(str(behaviors))
    return Dataset("mind", items, events.in_time_order(), source=str(folder))


def _rows(path: Path, least: int) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    for line, cells in enumerate(rows, start=1):
        if len(cells) < least:
            raise DatasetError(f"{path}, line {line}: {len(cells)} columns, expected {least}")
    return rows
