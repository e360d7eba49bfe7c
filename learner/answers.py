"""Whether a candidate answers what people say as well as its parent does: the gate's third exam.

The exams of `learner.evaluation` know no words: there, an item is often right because it was opened
a moment before.  A release can do better on those and worse on what somebody asks out of the blue.
So judged conversations (`learner.conversations`) whose last words were said in the part of the
round that is held out are ranked by both, each reading the words with its own adapter.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from learner.catalogue import Catalogue
from learner.confidence import Reader, score_blocks
from learner.conversations import Case
from learner.evaluation import Model, Paired, paired
from profiles.evaluation import Ints


def held_cases(cases: Sequence[Case], border: tuple[float, int]) -> list[Case]:
    """Turns whose words a round did not learn from, and which were answered.

    `border`: (ts, arrival number) from which on the round holds events out.
    """
    return [case for case in cases if case.accepted and case.steps[-1].ts > border[0]]


def examine_answers(
    parent: tuple[Model, Reader],
    candidate: tuple[Model, Reader],
    cases: Sequence[Case],
    catalogue: Catalogue,
    *,
    exclude_seen: bool,
) -> Paired:
    """NDCG@10 of both, of the best accepted item of each turn; both over one catalogue."""
    old, new = (
        answer_ranks(*each, cases, catalogue, exclude_seen=exclude_seen)
        for each in (parent, candidate)
    )
    return paired([old], [new])


def answer_ranks(
    model: Model,
    reader: Reader,
    cases: Sequence[Case],
    catalogue: Catalogue,
    *,
    exclude_seen: bool,
) -> Ints:
    """Rank of the best accepted item after the last words; 0 where the catalogue lost them all.

    Ties count against the item.  Shapes: -> (C,).
    """
    found = np.zeros(len(cases), np.int64)
    blocks = score_blocks(model, reader, cases, catalogue, exclude_seen=exclude_seen)
    for start, scores in blocks:
        for row, mine in enumerate(scores):
            rows = catalogue.rows(np.array(cases[start + row].accepted, np.uint64))
            if (rows := rows[rows >= 0]).size:
                found[start + row] = int((mine >= mine[rows].max()).sum())
    return found
