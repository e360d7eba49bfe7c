"""How far predicted probabilities can be believed, and the two numbers that make them so.

What is predicted: that an act of a user on an item is a positive one (`learner.positive_actions`),
given that the act takes place.  So only real events count here, positive ones against those that
were disliked or passed over; the negatives that training draws say nothing about it.

    fit      Platt scaling on validation events, the same that decide early stopping
    report   ECE, Brier score, log loss, AUC and reliability bins on the exam users' held-out
             events, which had no say in training nor in the fit

Scores are the workers' own (`profiles.evaluation.scores_before`).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from learner.catalogue import Catalogue
from learner.evaluation import Model
from learner.sampling import ActionWeights, Segment, Verdict, known_part, to_sequence
from profiles.calibration import Calibration
from profiles.evaluation import Bools, scores_before

LEAST_OF_EACH = 20
"""Events of either verdict below which nothing is fitted: two numbers want some evidence."""
BINS = 10
FIT_STEPS = 50

Doubles = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Judged:
    """Events with a verdict.  Shapes: scores (n,), is_positive (n,)."""

    scores: Doubles
    is_positive: Bools


@dataclass(frozen=True, slots=True)
class Clicks:
    """What became of a candidate's probabilities; `calibration` is None without evidence."""

    calibration: Calibration | None
    figures: dict[str, float]


def calibrate(
    model: Model,
    validation: Sequence[Segment],
    exam: Sequence[Segment],
    catalogue: Catalogue,
    actions: ActionWeights,
    positive_actions: Collection[str],
) -> Clicks:
    """Fit on `validation`, report on `exam`."""
    seen = judge(model, validation, catalogue, actions, positive_actions)
    positives = int(seen.is_positive.sum())
    if min(positives, len(seen.is_positive) - positives) < LEAST_OF_EACH:
        return Clicks(None, {})
    fitted = fit_platt(seen)
    asked = judge(model, exam, catalogue, actions, positive_actions)
    return Clicks(fitted, reliability(asked, fitted) if len(asked.scores) else {})


def judge(
    model: Model,
    segments: Sequence[Segment],
    catalogue: Catalogue,
    actions: ActionWeights,
    positive_actions: Collection[str],
) -> Judged:
    """Score of every target event's item a moment before it, and its verdict."""
    known = [known_part(segment, catalogue) for segment in segments]
    asked = [np.arange(len(rows)) >= segment.first_target for segment, rows in known]
    sequences = [to_sequence(segment, rows) for segment, rows in known]
    scores = scores_before(model.head, model.vectors, model.bias, sequences)
    verdicts = [actions.verdicts_of(segment, positive_actions) for segment, _ in known]
    if not known:
        return Judged(np.zeros(0), np.zeros(0, np.bool_))
    wanted = np.concatenate(asked)
    positive = np.concatenate(verdicts)[wanted] == Verdict.POSITIVE
    return Judged(np.concatenate(scores)[wanted].astype(np.float64), positive)


def fit_platt(judged: Judged) -> Calibration:
    """Logistic regression of the verdict on the score, by Newton's method.

    Targets are pulled in from 0 and 1 by one imagined event each, as Platt (1999) does, so that
    separable events give a finite slope.  A score that points the wrong way is not used: the
    probability is then the base rate for every item.
    """
    positives = float(judged.is_positive.sum())
    negatives = len(judged.scores) - positives
    high, low = (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0)
    goal = np.where(judged.is_positive, high, low)
    centre, spread = judged.scores.mean(), max(float(judged.scores.std()), 1e-9)
    x = np.stack([(judged.scores - centre) / spread, np.ones(len(goal))], axis=1)
    base = np.array([0.0, np.log((positives + 1.0) / (negatives + 1.0))])
    weights = base.copy()
    for _ in range(FIT_STEPS):
        chance = 1.0 / (1.0 + np.exp(-x @ weights))
        slope = x.T @ (chance - goal)
        curvature = (x * (chance * (1.0 - chance))[:, None]).T @ x + 1e-9 * np.eye(2)
        move = np.linalg.solve(curvature, slope)
        weights = weights - move
        if float(np.abs(move).max()) < 1e-9:
            break
    if not (np.isfinite(weights).all() and weights[0] > 0.0):
        weights = base
    slope_of_score = float(weights[0] / spread)
    return Calibration(slope_of_score, float(weights[1] - slope_of_score * centre))


def reliability(judged: Judged, calibration: Calibration) -> dict[str, float]:
    """Figures of the calibrated probabilities, for the manifest.

    ECE: mean over events of |predicted - observed| of their bin, ten bins of equal width (Guo et
    al. 2017).  Brier: mean squared error; `click_brier_base` is what the exam's own base rate
    would get, `click_ece_raw` the ECE of sigmoid(score) without the fit.
    """
    scores, positive = judged.scores, judged.is_positive.astype(np.float64)
    chance = calibration.probabilities(scores.astype(np.float32)).astype(np.float64)
    raw = Calibration(1.0, 0.0).probabilities(scores.astype(np.float32)).astype(np.float64)
    bins = _bins(chance, positive)
    rate = float(positive.mean())
    clipped = np.clip(chance, 1e-7, 1.0 - 1e-7)
    log_loss = -(positive * np.log(clipped) + (1.0 - positive) * np.log(1.0 - clipped)).mean()
    figures = {
        "click_events": float(len(scores)),
        "click_base_rate": rate,
        "click_ece": _error(bins, len(scores)),
        "click_ece_raw": _error(_bins(raw, positive), len(scores)),
        "click_brier": float(np.square(chance - positive).mean()),
        "click_brier_base": rate * (1.0 - rate),
        "click_log_loss": float(log_loss),
        "click_auc": auc(scores, judged.is_positive),
    }
    for number, (count, predicted, observed) in enumerate(bins.tolist()):
        if count:
            figures[f"click_bin{number}_events"] = count
            figures[f"click_bin{number}_predicted"] = predicted
            figures[f"click_bin{number}_observed"] = observed
    return figures


def auc(scores: Doubles, is_positive: Bools) -> float:
    """Chance that a positive event has the higher score; ties count half; 0.5 without a pair.

    >>> auc(np.array([0.1, 0.2, 0.2]), np.array([False, True, False]))
    0.75
    """
    positives = int(is_positive.sum())
    negatives = len(scores) - positives
    if not positives or not negatives:
        return 0.5
    _, which, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_rank = np.cumsum(counts) - (counts - 1) / 2.0
    total = float(mean_rank[which][is_positive].sum())
    return (total - positives * (positives + 1) / 2.0) / (positives * negatives)


def _bins(chance: Doubles, positive: Doubles) -> Doubles:
    """Shapes: (n,), (n,) -> (BINS, 3): events, mean predicted, share observed."""
    place = np.minimum((chance * BINS).astype(np.int64), BINS - 1)
    count = np.bincount(place, minlength=BINS).astype(np.float64)
    some = np.maximum(count, 1.0)
    predicted = np.bincount(place, chance, BINS) / some
    observed = np.bincount(place, positive, BINS) / some
    return np.stack([count, predicted, observed], axis=1)


def _error(bins: Doubles, events: int) -> float:
    return float((bins[:, 0] * np.abs(bins[:, 1] - bins[:, 2])).sum() / max(events, 1))
