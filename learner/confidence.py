"""How sure a candidate may be of the first item it recommends: fitted on people's verdicts.

A case is what somebody said and did up to her last words, and what she then accepted or rejected
(learner/conversations.py).  The candidate ranks the catalogue for it by the workers' own
arithmetic, words included, and its first item was

    right    if it is among the accepted
    wrong    if something else was accepted, or it was rejected
    unknown  otherwise: such a case says nothing about this candidate

Two of three users' cases fit three numbers (`profiles.confidence`), the third's measure them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from learner.calibration import LEAST_OF_EACH, Doubles, Judged, reliability
from learner.catalogue import Catalogue
from learner.conversations import Case
from learner.evaluation import Model
from profiles.calibration import Calibration
from profiles.confidence import Confidence, evidence
from profiles.evaluation import Bools, Ints, UserSequence, profiles_before
from profiles.head import embed_items
from profiles.layers import Floats
from profiles.updater import KNOWN_ITEM_EVENTS

FIT_STEPS = 50
RIDGE = 1.0
"""Penalty on the two standardised weights: with few cases they stay small."""
MEASURED = 3
"""Every third user's cases measure the fit."""
USERS_AT_ONCE = 256


class Reader(Protocol):
    """What reads texts under an adapter, as `profiles.encoder.TextEncoder` does."""

    def encode(self, texts: Sequence[str], /) -> Floats: ...


def learn_confidence(
    model: Model,
    language: Reader,
    cases: Sequence[Case],
    catalogue: Catalogue,
    *,
    exclude_seen: bool,
    listed: int,
) -> tuple[Confidence | None, dict[str, float]]:
    """Fit, and measure for the manifest; None where the evidence does not suffice.

    `listed`: how many items a recommendation holds.
    """
    if not cases:
        return None, {}
    scores, firsts = first_items(
        model, language, cases, catalogue, exclude_seen=exclude_seen, listed=listed
    )
    told, right = verdicts(cases, catalogue, firsts)
    x = np.stack(evidence(scores), axis=1).astype(np.float64)
    measured = np.array([case.user % MEASURED == 0 for case in cases], np.bool_)
    fit = told & ~measured
    figures = {"confidence_cases": float(told.sum())}
    found = fit_confidence(x[fit], right[fit])
    asked = told & measured
    if found is None or not asked.any():
        return found, figures
    logit = found.score * x[asked, 0] + found.margin * x[asked, 1] + found.intercept
    quality = reliability(Judged(logit, right[asked]), Calibration(1.0, 0.0))
    kept = ("events", "base_rate", "ece", "brier", "brier_base", "auc")
    return found, figures | {f"confidence_{name}": quality[f"click_{name}"] for name in kept}


def first_items(
    model: Model,
    language: Reader,
    cases: Sequence[Case],
    catalogue: Catalogue,
    *,
    exclude_seen: bool,
    listed: int,
) -> tuple[Floats, Ints]:
    """The two best scores of each case, -inf where there is none, and the first item's row.

    Shapes: -> (C, 2), (C,).
    """
    best = np.full((len(cases), 2), -np.inf, np.float32)
    firsts = np.zeros(len(cases), np.int64)
    blocks = score_blocks(model, language, cases, catalogue, exclude_seen=exclude_seen)
    for start, scores in blocks:
        order = np.argsort(-scores, axis=1, kind="stable")[:, : min(2, listed)]
        here = slice(start, start + len(scores))
        best[here, : order.shape[1]] = np.take_along_axis(scores, order, axis=1)
        firsts[here] = order[:, 0]
    return best, firsts


def score_blocks(
    model: Model,
    language: Reader,
    cases: Sequence[Case],
    catalogue: Catalogue,
    *,
    exclude_seen: bool,
) -> Iterator[tuple[int, Floats]]:
    """Scores of the catalogue after the last words of each case, some cases at a time.

    Yields: the first case's number, and scores (cases of the block, N), -inf for what is left out.
    """
    vectors, sequences = said_and_done(model, language, cases, catalogue)
    for start in range(0, len(cases), USERS_AT_ONCE):
        part = sequences[start : start + USERS_AT_ONCE]
        kept = [np.arange(len(each.items)) for each in part]
        before = profiles_before(model.head, vectors, part, kept)
        profiles = before[np.arange(len(part)), [len(rows) - 1 for rows in kept]]
        scores = profiles @ model.vectors.T * model.head.score_scale[0] + model.bias
        if exclude_seen:
            for row, each in enumerate(part):
                done = each.items[:-1]
                scores[row, done[done < len(model.vectors)]] = -np.inf
        yield start, scores


def said_and_done(
    model: Model, language: Reader, cases: Sequence[Case], catalogue: Catalogue
) -> tuple[Floats, list[UserSequence]]:
    """Vectors of catalogue and words, and each case's steps with one more that never counts.

    Items that the catalogue lost are passed over.  Shapes: -> (N + words, D), C sequences.
    """
    texts = list(dict.fromkeys(step.text for case in cases for step in case.steps if step.text))
    place = {text: len(catalogue) + at for at, text in enumerate(texts)}
    vectors = model.vectors
    if texts:
        known = np.full(len(texts), KNOWN_ITEM_EVENTS, np.float32)
        nothing = np.zeros((len(texts), vectors.shape[1]), np.float32)
        said = embed_items(model.head, language.encode(texts), nothing, known)
        vectors = np.concatenate([vectors, said])
    found = []
    for case in cases:
        done = catalogue.rows(np.array([step.item for step in case.steps], np.uint64))
        rows = [
            place[step.text] if step.text else int(row)
            for step, row in zip(case.steps, done, strict=True)
        ]
        kept = [(row, step) for row, step in zip(rows, case.steps, strict=True) if row >= 0]
        kept.append((0, case.steps[-1]))  # `profiles_before` tells the profile before this one
        found.append(
            UserSequence(
                np.array([row for row, _ in kept], np.int64),
                np.array([step.action for _, step in kept], np.int64),
                np.array([step.value for _, step in kept], np.float32),
                np.array([step.ts for _, step in kept], np.float64),
            )
        )
    return vectors, found


def verdicts(cases: Sequence[Case], catalogue: Catalogue, firsts: Ints) -> tuple[Bools, Bools]:
    """Whether a case says anything of its first item, and whether that was right.  Shapes: (C,)."""
    keys = catalogue.keys[firsts].tolist()
    right = np.array([key in case.accepted for key, case in zip(keys, cases, strict=True)])
    told = [
        bool(case.accepted) or key in case.rejected for key, case in zip(keys, cases, strict=True)
    ]
    return np.array(told, np.bool_), right.astype(np.bool_)


def fit_confidence(x: Doubles, right: Bools) -> Confidence | None:
    """Logistic regression with a ridge, by Newton's method; None without enough of both kinds.

    Shapes: x (n, 2) as `profiles.confidence.evidence` gives, right (n,).
    """
    good = int(right.sum())
    if min(good, len(right) - good) < LEAST_OF_EACH:
        return None
    centre, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
    inputs = np.concatenate([(x - centre) / spread, np.ones((len(x), 1))], axis=1)
    ridge = np.diag([RIDGE, RIDGE, 1e-9])
    weights = np.array([0.0, 0.0, np.log(good / (len(right) - good))])
    for _ in range(FIT_STEPS):
        chance = 1.0 / (1.0 + np.exp(-inputs @ weights))
        slope = inputs.T @ (chance - right) + ridge @ weights
        curvature = (inputs * (chance * (1.0 - chance))[:, None]).T @ inputs + ridge
        move = np.linalg.solve(curvature, slope)
        weights = weights - move
        if float(np.abs(move).max()) < 1e-9:
            break
    if not np.isfinite(weights).all():
        return None
    scaled = weights[:2] / spread
    return Confidence(float(scaled[0]), float(scaled[1]), float(weights[2] - scaled @ centre))
