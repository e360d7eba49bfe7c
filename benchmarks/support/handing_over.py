"""Ranked answers with a confidence: how often right, and how well it knows when to hand over.

A method is a matrix of scores, a question a row.  `recall_at_5` counts questions that have an
answer; everything else counts all of them, since a question without an answer is one to hand over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.harness import Result
from benchmarks.support.questions import Asked
from learner.calibration import Judged, reliability
from learner.confidence import fit_confidence
from profiles.calibration import Calibration
from profiles.confidence import Confidence, evidence
from profiles.evaluation import Bools
from profiles.layers import Floats

AT = 5


@dataclass(frozen=True, slots=True)
class Told:
    """What a method said of some questions.  Shapes: sure, right (Q,); found (Q,) whether a right
    answer is among the first five, has_answer (Q,)."""

    sure: Floats
    right: Bools
    found: Bools
    has_answer: Bools


def fit_on(scores: Floats, asked: Sequence[Asked], places: Sequence[int]) -> Confidence | None:
    """The product's own fit, for any method's scores.  `places`: answer behind each column."""
    best, right, _ = _looked_at(scores, asked, places)
    return fit_confidence(np.stack(evidence(best), axis=1).astype(np.float64), right)


def tell(
    scores: Floats, asked: Sequence[Asked], places: Sequence[int], sure: Confidence | None
) -> Told:
    """Without a confidence nobody is ever sure."""
    best, right, found = _looked_at(scores, asked, places)
    here = set(places)
    return Told(
        np.zeros(len(asked), np.float32) if sure is None else sure.of(best),
        right,
        found,
        np.array([bool(each.accepted & here) for each in asked], np.bool_),
    )


def _looked_at(
    scores: Floats, asked: Sequence[Asked], places: Sequence[int]
) -> tuple[Floats, Bools, Bools]:
    """The two best scores, whether the first is right, whether one of the first five is."""
    order = np.argsort(-scores, axis=1, kind="stable")[:, :AT]
    best = np.take_along_axis(scores, order[:, :2], axis=1)
    hits = np.array(
        [
            [places[column] in each.accepted for column in row]
            for row, each in zip(order.tolist(), asked, strict=True)
        ],
        np.bool_,
    )
    found: Bools = np.asarray(hits.any(axis=1))
    return best, hits[:, 0], found


def figures(told: Told, threshold: float) -> Result:
    """`coverage`: share answered; `answered_right`: of those; `hand_over_precision`: handed over
    and the first answer was wrong indeed; `hand_over_recall`: of the wrong ones, handed over.
    None where there is nothing to divide by."""
    over = told.sure < threshold
    wrong = ~told.right
    quality: Result = {}
    if told.sure.any():
        clipped = np.clip(told.sure.astype(np.float64), 1e-6, 1 - 1e-6)
        logit = np.log(clipped / (1.0 - clipped))
        whole = reliability(Judged(logit, told.right), Calibration(1.0, 0.0))
        quality = {name: round(whole[f"click_{name}"], 4) for name in ("ece", "brier", "auc")}
    return {
        "questions": len(told.sure),
        "recall_at_5": _share(told.found, told.has_answer),
        "first_right": _share(told.right, np.ones_like(over)),
        "coverage": _share(~over, np.ones_like(over)),
        "answered_right": _share(told.right, ~over),
        "hand_over_precision": _share(wrong, over),
        "hand_over_recall": _share(over, wrong),
        **quality,
    }


def _share(which: Bools, of: Bools) -> float | None:
    """Part of `of` that is `which`, too.

    >>> _share(np.array([True, False]), np.array([True, True]))
    0.5
    """
    return round(float((which & of).sum() / of.sum()), 4) if of.any() else None
