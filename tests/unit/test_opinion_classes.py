"""Sentiment of a text: learned from labels, calibrated, and never in another release's space."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiles.errors import ModelError
from profiles.layers import Floats
from stream.monitor.classes import (
    SENTIMENTS,
    Examples,
    calibration_error,
    judge,
    macro_f1,
    softmax,
    train_head,
)

pytestmark = pytest.mark.unit

WIDTH = 8
NAMES = ("bad", "good")


def examples(count: int, noise: float, seed: int = 0, release: str = "r1") -> Examples:
    """Two clouds of unit vectors; the more noise, the more they overlap."""
    random = np.random.default_rng(seed)
    targets = random.integers(0, 2, count)
    centres = np.eye(2, WIDTH)
    vectors = centres[targets] + noise * random.normal(size=(count, WIDTH))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return Examples(
        release, NAMES, tuple(f"text {n}" for n in range(count)),
        vectors.astype(np.float32), targets,
    )  # fmt: skip


def none(release: str = "r1") -> Examples:
    empty: Floats = np.zeros((0, WIDTH), np.float32)
    return Examples.of(release, NAMES, [], empty)


def test_a_head_tells_classes_apart_that_it_was_not_trained_on() -> None:
    head = train_head(examples(400, 0.3), none())
    fresh = examples(400, 0.3, seed=1)
    found = judge(head.probabilities(fresh.vectors, "r1"), fresh.targets)
    assert found.is_useful
    assert found.macro_f1 > 0.85


def test_the_figures_out_of_fold_are_those_of_texts_never_seen() -> None:
    head = train_head(examples(1000, 1.0), none())
    fresh = examples(4000, 1.0, seed=1)
    assert head.quality is not None
    seen = judge(head.probabilities(fresh.vectors, "r1"), fresh.targets)
    assert head.quality.macro_f1 == pytest.approx(seen.macro_f1, abs=0.05)
    assert head.quality.loss == pytest.approx(seen.loss, abs=0.05)
    assert seen.calibration_error < 0.05


def test_labels_that_mean_nothing_make_a_head_that_says_so() -> None:
    good = examples(300, 0.3)
    shuffled = Examples(
        "r1", NAMES, good.texts, good.vectors, np.random.default_rng(0).permutation(good.targets)
    )
    quality = train_head(shuffled, none()).quality
    assert quality is not None
    assert not quality.is_useful


def test_equal_texts_do_not_vouch_for_each_other() -> None:
    random = np.random.default_rng(0)
    vectors = random.normal(size=(20, WIDTH)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    targets = random.integers(0, 2, 20)
    copies = Examples(
        "r1", NAMES, tuple(f"text {n}" for n in range(20)) * 10,
        np.tile(vectors, (10, 1)), np.tile(targets, 10),
    )  # fmt: skip
    quality = train_head(copies, none()).quality
    assert quality is not None
    assert quality.macro_f1 < 0.8, "a copy in another fold would make noise look learnable"


def test_seed_texts_alone_make_a_head_without_figures() -> None:
    seeds = examples(12, 0.1)
    head = train_head(none(), seeds)
    assert head.quality is None
    assert head.temperature == 1.0
    fresh = examples(200, 0.3, seed=1)
    assert judge(head.probabilities(fresh.vectors, "r1"), fresh.targets).macro_f1 > 0.85


def test_vectors_of_another_release_are_refused() -> None:
    head = train_head(examples(20, 0.3), none())
    with pytest.raises(ModelError, match="head of release r1 was given vectors of r2"):
        head.probabilities(examples(5, 0.3).vectors, "r2")
    with pytest.raises(ModelError, match="different spaces"):
        train_head(examples(20, 0.3), none("r2"))


def test_a_head_of_nothing_is_refused() -> None:
    with pytest.raises(ModelError, match="a labelled text or a seed text"):
        train_head(none(), none())


def test_training_twice_gives_the_same_head() -> None:
    one, two = (train_head(examples(100, 0.5), none()) for _ in range(2))
    assert np.array_equal(one.weight, two.weight)
    assert one.temperature == two.temperature


@given(st.lists(st.lists(st.floats(-1e4, 1e4), min_size=3, max_size=3), min_size=1, max_size=5))
def test_probabilities_are_some_whatever_the_logits(logits: list[list[float]]) -> None:
    found = softmax(np.array(logits))
    assert np.isfinite(found).all()
    assert found.sum(axis=1) == pytest.approx(1.0)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=50))
def test_f1_and_calibration_error_lie_between_nought_and_one(pairs: list[tuple[int, int]]) -> None:
    predicted, targets = (np.array(each) for each in zip(*pairs, strict=True))
    assert 0.0 <= macro_f1(predicted, targets) <= 1.0
    sure = np.eye(len(SENTIMENTS))[predicted]
    assert 0.0 <= calibration_error(sure, targets) <= 1.0
    assert calibration_error(sure, targets) == pytest.approx(float((predicted != targets).mean()))
