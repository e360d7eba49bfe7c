"""Our ranks and gains against ranx's, on score rows of a real model: they must be the same.

    python -m benchmarks.offline.peers.library_check TASK     (prints the largest difference)

ranx is given every unseen item's score of some hundred events; it has no rule for ties, so the
model is one whose scores do not tie.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ranx import Qrels, Run, evaluate

from benchmarks.offline.exchange import load_task
from benchmarks.offline.histories import Histories
from benchmarks.offline.peers.neighbours import METHODS, fit_text
from benchmarks.offline.ranking import rank_rows
from profiles.evaluation import gains

EVENTS = 200


def main() -> None:
    task = load_task(Path(sys.argv[1]))
    stage, histories = task.split.stages[0], Histories(task.users)
    rows = stage.asked[histories.place[stage.asked] > 0][-EVENTS:]
    settings = METHODS["text_neighbours"].first
    score = fit_text(task, histories, stage.fit, settings, 0, 0.0)
    wanted, found = {}, {}
    for row, scores in zip(rows.tolist(), score(rows), strict=True):
        unseen = np.setdiff1d(np.arange(task.n_items), task.items[histories.before(row)])
        wanted[str(row)] = {str(task.items[row]): 1}
        found[str(row)] = {str(item): float(scores[item]) for item in unseen}
    theirs = evaluate(Qrels(wanted), Run(found), ["ndcg@10", "hit_rate@10"], return_mean=False)
    # ranx answers in the order of the sorted query names.
    order = np.argsort([str(row) for row in rows.tolist()])
    ranks = rank_rows(score, rows, task.items, histories)[order]
    differences = (theirs["ndcg@10"] - gains(ranks), theirs["hit_rate@10"] - (ranks <= 10))
    print(max(float(np.abs(difference).max()) for difference in differences))


if __name__ == "__main__":
    main()
