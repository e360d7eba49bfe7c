"""Recommenders that compare items: item-kNN (implicit), EASE (rectools), and texts alone.

How many of the newest events speak for a user is a setting that the search may choose; the
libraries take all.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from benchmarks.offline.exchange import Settings, Task
from benchmarks.offline.histories import Floats, Histories, Ints
from benchmarks.offline.peers.fitting import EVERYTHING, Peer, histories_of, interactions_of
from benchmarks.offline.ranking import Scorer
from benchmarks.offline.search import Between

LAST = (EVERYTHING, 100, 50, 20, 10, 5)


def fit_item_knn(
    task: Task, histories: Histories, fit: Ints, settings: Settings, seed: int, cpu_s: float
) -> Scorer:
    """Nearest items by cosine, TF-IDF or BM25 weighting (implicit 0.7)."""
    from implicit import nearest_neighbours

    kinds = {
        "cosine": nearest_neighbours.CosineRecommender,
        "tfidf": nearest_neighbours.TFIDFRecommender,
        "bm25": nearest_neighbours.BM25Recommender,
    }
    model = kinds[str(settings["weighting"])](K=int(settings["neighbours"]), num_threads=1)
    model.fit(interactions_of(task, fit), show_progress=False)
    last = int(settings["last"])

    def score(rows: Ints) -> Floats:
        found: Floats = (
            (histories_of(task, histories, rows, last) @ model.similarity)
            .toarray()
            .astype(np.float32)
        )
        return found

    return score


def fit_ease(
    task: Task, histories: Histories, fit: Ints, settings: Settings, seed: int, cpu_s: float
) -> Scorer:
    """Closed-form linear autoencoder (Steck 2019), rectools' `EASEModel`."""
    from rectools import Columns
    from rectools.dataset import Dataset
    from rectools.models import EASEModel

    table = pd.DataFrame(
        {
            Columns.User: task.users[fit],
            Columns.Item: task.items[fit],
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(task.ts[fit], unit="s"),
        }
    ).drop_duplicates([Columns.User, Columns.Item])
    dataset = Dataset.construct(table)
    model = EASEModel(regularization=float(settings["regularization"]))
    model.fit(dataset)
    codes = dataset.item_id_map.external_ids.astype(np.int64)
    weight = np.zeros((task.n_items, task.n_items), np.float32)
    weight[np.ix_(codes, codes)] = model.weight
    last = int(settings["last"])

    def score(rows: Ints) -> Floats:
        found: Floats = histories_of(task, histories, rows, last) @ weight
        return found

    return score


def fit_text(
    task: Task, histories: Histories, fit: Ints, settings: Settings, seed: int, cpu_s: float
) -> Scorer:
    """Cosine between an item's text and the mean of the texts a user had, newest count most."""
    text = task.text - (task.text.mean(axis=0) if settings["centred"] else 0.0)
    text = text / np.maximum(np.linalg.norm(text, axis=1, keepdims=True), 1e-9)
    last = int(settings["last"])

    def score(rows: Ints) -> Floats:
        profiles = np.zeros((len(rows), text.shape[1]), np.float32)
        for place, row in enumerate(rows):
            items = task.items[histories.before(int(row), last)]
            ages = np.arange(len(items))[::-1]
            profiles[place] = 0.5 ** (ages / float(settings["half_life"])) @ text[items]
        found: Floats = profiles @ text.T
        return found

    return score


METHODS = {
    "item_knn": Peer(
        fit_item_knn,
        {"weighting": "cosine", "neighbours": 100, "last": EVERYTHING},
        {
            "weighting": ("cosine", "tfidf", "bm25"),
            "neighbours": (10, 20, 50, 100, 200, 500),
            "last": LAST,
        },
    ),
    "ease": Peer(
        fit_ease,
        {"regularization": 300.0, "last": EVERYTHING},
        {"regularization": Between(20.0, 5000.0), "last": LAST},
    ),
    "text_neighbours": Peer(
        fit_text,
        {"centred": 1, "last": 50, "half_life": 10.0},
        {"centred": (0, 1), "last": (5, 10, 20, 50, 200), "half_life": Between(1.0, 100.0)},
    ),
}
