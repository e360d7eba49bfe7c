"""Data sets: real ones read from their files, and one made up, all in the same form.

`load_dataset` takes a short name and a path; each format is one file of this folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from profiles.errors import DatasetError
from stream.datasets.dataset import Codes, Dataset, EventTable

__all__ = ["FORMATS", "Codes", "Dataset", "EventTable", "load_dataset"]

FORMATS = ("movielens", "tabular", "amazon", "mind", "synthetic")


def load_dataset(
    spec: str, path: Path | None = None, mapping: Mapping[str, str] | None = None
) -> Dataset:
    """Read a data set.

    Args:
        spec: one of `FORMATS`; `synthetic` takes options: ``synthetic:users=500,drift_days=3``.
        path: its file or folder; `movielens` without one is the MovieLens-100K that comes with
            the package recbole, and `synthetic` needs none.
        mapping: for `tabular`, our field names to the file's columns (`stream.datasets.tabular`).
    Raises: DatasetError; SettingsError for a wrong option of `synthetic`.
    """
    name, _, options = spec.partition(":")
    if name == "synthetic":
        from stream.datasets.synthetic import Taste, generate

        return generate(Taste.parse(options))
    if options:
        raise DatasetError(f"data set {name!r} takes no options, but was given {options!r}")
    if name == "movielens":
        from stream.datasets.movielens import bundled_folder, load_movielens

        return load_movielens(path or bundled_folder())
    if name not in FORMATS:
        raise DatasetError(f"unknown data set {name!r}; known are {', '.join(FORMATS)}")
    if path is None:
        raise DatasetError(f"data set {name!r} needs a path to its files")
    if name == "amazon":
        from stream.datasets.amazon import load_amazon

        return load_amazon(path)
    if name == "mind":
        from stream.datasets.mind import load_mind

        return load_mind(path)
    from stream.datasets.tabular import load_tabular

    return load_tabular(path, mapping or {})
