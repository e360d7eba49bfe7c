"""Factorisations of implicit 0.7: alternating least squares and Bayesian personalised ranking.

ALS folds the freshest history in by solving for the user anew.  BPR has no such step: the search
chooses between the user's factors as fitted and the mean of the item factors of the newest
events; a user that the fit did not know always gets the latter.
"""

from __future__ import annotations

import numpy as np

from benchmarks.offline.exchange import Settings, Task
from benchmarks.offline.histories import Floats, Histories, Ints
from benchmarks.offline.peers.fitting import EVERYTHING, Peer, histories_of, interactions_of
from benchmarks.offline.ranking import Scorer
from benchmarks.offline.search import Between


def fit_als(
    task: Task, histories: Histories, fit: Ints, settings: Settings, seed: int, cpu_s: float
) -> Scorer:
    """Weighted matrix factorisation (Hu, Koren & Volinsky 2008)."""
    from implicit.als import AlternatingLeastSquares

    model = AlternatingLeastSquares(
        factors=int(settings["factors"]),
        regularization=float(settings["regularization"]),
        alpha=float(settings["alpha"]),
        iterations=int(settings["iterations"]),
        use_gpu=False,
        num_threads=1,
        random_state=seed,
    )
    model.fit(interactions_of(task, fit), show_progress=False)
    last = int(settings["last"])

    def score(rows: Ints) -> Floats:
        had = histories_of(task, histories, rows, last)
        users = model.recalculate_user(np.arange(len(rows)), had)
        found: Floats = users @ model.item_factors.T
        return found

    return score


def fit_bpr(
    task: Task, histories: Histories, fit: Ints, settings: Settings, seed: int, cpu_s: float
) -> Scorer:
    """Pairwise ranking (Rendle et al. 2009)."""
    from implicit.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(
        factors=int(settings["factors"]),
        learning_rate=float(settings["learning_rate"]),
        regularization=float(settings["regularization"]),
        iterations=int(settings["iterations"]),
        use_gpu=False,
        num_threads=1,
        random_state=seed,
    )
    model.fit(interactions_of(task, fit), show_progress=False)
    known = np.bincount(task.users[fit], minlength=task.n_users) > 0
    by_user, last = settings["profile"] == "user", int(settings["last"])

    def score(rows: Ints) -> Floats:
        had = histories_of(task, histories, rows, last)
        users = had @ model.item_factors / np.maximum(had.sum(axis=1).A, 1.0)
        users[:, -1] = 1.0  # the last column meets the items' biases
        if by_user:
            fitted = known[task.users[rows]]
            users[fitted] = model.user_factors[task.users[rows][fitted]]
        found: Floats = users @ model.item_factors.T
        return found

    return score


METHODS = {
    "als": Peer(
        fit_als,
        {"factors": 64, "regularization": 0.1, "alpha": 10.0, "iterations": 15, "last": EVERYTHING},
        {
            "factors": (16, 32, 64, 128),
            "regularization": Between(0.003, 100.0),
            "alpha": Between(0.5, 100.0),
            "iterations": (5, 15, 30),
            "last": (EVERYTHING, 50, 20, 10),
        },
    ),
    "bpr": Peer(
        fit_bpr,
        {
            "factors": 64,
            "learning_rate": 0.05,
            "regularization": 0.01,
            "iterations": 100,
            "profile": "user",
            "last": 20,
        },
        {
            "factors": (16, 32, 64, 128),
            "learning_rate": Between(0.003, 0.2),
            "regularization": Between(0.0003, 0.1),
            "iterations": (50, 100, 200, 400),
            "profile": ("user", "items"),
            "last": (EVERYTHING, 50, 20, 10, 5),
        },
    ),
}
