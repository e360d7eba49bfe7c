"""From a text's vector to calibrated class probabilities: softmax regression with a temperature.

A head belongs to the release in whose space its labelled texts were read, and says so: vectors of
another release are refused, never guessed at.  It is trained in seconds from every label that is
kept, so a swap costs no labels.

The temperature is fitted on predictions out of fold (each text judged by a head that has not seen
it), and so are the figures in `Quality`; the one number that is fitted on them cannot flatter them
much.  Equal texts share a fold.  Source: Guo et al. 2017, On Calibration of Modern Neural Networks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from profiles.errors import ModelError
from profiles.layers import Floats
from profiles.wire import key64

Doubles = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

STEPS = 300
"""Of accelerated gradient descent; the loss is strongly convex and then moves in the 6th digit."""
STRENGTH = 10.0
"""Inverse regularisation, as scikit-learn's C: best with up to 200 labels on the tuning part of
`make bench-finance`; with 500 and more, 1 would be (macro-F1 .568 instead of .538 there)."""
FOLDS = 5
BINS = 10
TEMPERATURES = np.geomspace(0.2, 5.0, 65)
SENTIMENTS = ("negative", "neutral", "positive")
SEEDS: tuple[tuple[str, str], ...] = (
    ("negative", "This is terrible news: heavy losses, complaints and fear."),
    ("negative", "Customers are angry and disappointed; the company failed them."),
    ("negative", "Shares plunge after a scandal, fraud and a lawsuit."),
    ("negative", "I hate this, it is awful and broken."),
    ("neutral", "The company will hold its annual meeting on Tuesday."),
    ("neutral", "The report lists figures by region and by month."),
    ("neutral", "He said that the office is in the town."),
    ("neutral", "The product comes in three sizes."),
    ("positive", "This is wonderful news: record profits, praise and hope."),
    ("positive", "Customers are happy and delighted; the company did well."),
    ("positive", "Shares jump after strong growth and a big contract."),
    ("positive", "I love this, it is great and works perfectly."),
)
"""What sentiment is learned from before there are labels, and beside the first of them."""


@dataclass(frozen=True, slots=True)
class Quality:
    """How good a head is out of fold.  `prior_loss`: of one that knows only how common a class is.

    Losses in nats a text; `calibration_error` is the expected one over ten bins of confidence.
    """

    texts: int
    loss: float
    prior_loss: float
    macro_f1: float
    calibration_error: float

    @property
    def is_useful(self) -> bool:
        """Whether it says more than how common the classes are."""
        return self.loss < self.prior_loss


@dataclass(frozen=True, slots=True)
class ClassHead:
    """Shapes: weight (T, C), bias (C,).  `quality` is None for one of seed texts alone."""

    release_id: str
    names: tuple[str, ...]
    weight: Doubles
    bias: Doubles
    temperature: float = 1.0
    quality: Quality | None = None

    def probabilities(self, vectors: Floats, release_id: str) -> Doubles:
        """Shapes: vectors (N, T) of that release -> (N, C); every row sums to 1.

        Raises: ModelError for vectors of another release.
        """
        if release_id != self.release_id:
            raise ModelError(
                f"a head of release {self.release_id} was given vectors of {release_id}; "
                "it must be trained anew in that release's space"
            )
        return softmax((vectors @ self.weight + self.bias) / self.temperature)


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled texts in one space.  Shapes: vectors (N, T), targets (N,) places in `names`."""

    release_id: str
    names: tuple[str, ...]
    texts: tuple[str, ...]
    vectors: Floats
    targets: Rows

    @classmethod
    def of(
        cls,
        release_id: str,
        names: Sequence[str],
        labelled: Sequence[tuple[str, str]],
        read: Floats,
    ) -> Self:
        """`labelled`: class and text, row by row of `read`."""
        place = {name: at for at, name in enumerate(names)}
        targets = np.array([place[name] for name, _ in labelled], np.int64)
        return cls(release_id, tuple(names), tuple(text for _, text in labelled), read, targets)

    def __len__(self) -> int:
        return len(self.targets)


def train_head(labelled: Examples, seeds: Examples, strength: float = STRENGTH) -> ClassHead:
    """A head of labels and seeds; the seeds are in every fold and judged in none.

    Either may be empty, not both.  Raises: ModelError for that, or for spaces that differ.
    """
    if (labelled.release_id, labelled.names) != (seeds.release_id, seeds.names):
        raise ModelError("labels and seed texts are of different spaces or classes")
    if not len(labelled) + len(seeds):
        raise ModelError("a head needs a labelled text or a seed text")
    classes = len(labelled.names)

    def fitted(rows: Rows) -> tuple[Doubles, Doubles]:
        vectors = (
            np.concatenate([labelled.vectors[rows], seeds.vectors])
            if len(seeds)
            else (labelled.vectors[rows])
        )
        targets = np.concatenate([labelled.targets[rows], seeds.targets])
        return fit(vectors, targets, classes, strength)

    everything = np.arange(len(labelled))
    weight, bias = fitted(everything)
    head = ClassHead(labelled.release_id, labelled.names, weight, bias)
    if len(labelled) < FOLDS:
        return head
    logits = np.zeros((len(labelled), classes))
    folds = np.array([key64(text) % FOLDS for text in labelled.texts])
    for fold in range(FOLDS):
        out = folds == fold
        inside_weight, inside_bias = fitted(everything[~out])
        logits[out] = labelled.vectors[out] @ inside_weight + inside_bias
    losses = [log_loss(softmax(logits / t), labelled.targets) for t in TEMPERATURES]
    temperature = float(TEMPERATURES[int(np.argmin(losses))])
    quality = judge(softmax(logits / temperature), labelled.targets)
    return ClassHead(labelled.release_id, labelled.names, weight, bias, temperature, quality)


def fit(
    vectors: Floats, targets: Rows, classes: int, strength: float = STRENGTH
) -> tuple[Doubles, Doubles]:
    """Softmax regression with squared weights held down, the bias free.

    Shapes: vectors (N, T) of unit length, targets (N,) -> (T, C), (C,).
    Source: Nesterov's method with the step 1 / L, L the bound on the Hessian for unit rows.

    >>> rows = np.array([[1, 0], [0, 1]], np.float32)
    >>> weight, bias = fit(rows, np.array([0, 1]), 2)
    >>> softmax(rows @ weight + bias).argmax(axis=1).tolist()
    [0, 1]
    """
    if not len(vectors):
        return np.zeros((vectors.shape[1], classes)), np.zeros(classes)
    data = np.concatenate([vectors, np.ones((len(vectors), 1), vectors.dtype)], axis=1)
    data = data.astype(np.float64)
    wanted = np.eye(classes)[targets]
    ridge = np.full((data.shape[1], 1), 1.0 / (strength * len(data)))
    ridge[-1] = 0.0
    # A softmax's Hessian is at most half; a row and its one have length sqrt(2).
    steep = 0.5 * 2.0 + float(ridge[0, 0])
    now = ahead = np.zeros((data.shape[1], classes))
    pace = 1.0
    for _ in range(STEPS):
        slope = data.T @ (softmax(data @ ahead) - wanted) / len(data) + ridge * ahead
        then, now = now, ahead - slope / steep
        faster = (1.0 + np.sqrt(1.0 + 4.0 * pace**2)) / 2.0
        ahead = now + (pace - 1.0) / faster * (now - then)
        pace = faster
    return now[:-1], now[-1]


def softmax(logits: Doubles) -> Doubles:
    """Rows that sum to 1; the largest is taken off first, so that nothing overflows."""
    powers: Doubles = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def log_loss(probabilities: Doubles, targets: Rows) -> float:
    """Mean of -log p of what was right, in nats."""
    right = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.maximum(right, 1e-12)).mean())


def judge(probabilities: Doubles, targets: Rows) -> Quality:
    """How good probabilities are.  Shapes: (N, C), (N,); classes that nobody has count as 0 in F1
    only where they were predicted."""
    counts = np.bincount(targets, minlength=probabilities.shape[1])
    shares = counts[counts > 0] / len(targets)
    return Quality(
        len(targets),
        log_loss(probabilities, targets),
        float(-(shares * np.log(shares)).sum()),
        macro_f1(probabilities.argmax(axis=1), targets),
        calibration_error(probabilities, targets),
    )


def macro_f1(predicted: Rows, targets: Rows) -> float:
    """Mean of the classes' F1, over those that are there or were predicted.

    >>> macro_f1(np.array([0, 1, 1, 1]), np.array([0, 0, 1, 1])).__round__(3)
    0.733
    """
    found = []
    for name in np.union1d(predicted, targets):
        said, true = predicted == name, targets == name
        found.append(2.0 * (said & true).sum() / (said.sum() + true.sum()))
    return float(np.mean(found))


def calibration_error(probabilities: Doubles, targets: Rows) -> float:
    """Expected calibration error: |confidence - accuracy| over bins of confidence, by their size.

    >>> calibration_error(np.array([[1.0, 0.0], [1.0, 0.0]]), np.array([0, 1]))
    0.5
    """
    sure = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == targets
    bins = np.minimum((sure * BINS).astype(np.int64), BINS - 1)
    gaps = [
        abs(float(sure[bins == at].mean()) - float(right[bins == at].mean())) * (bins == at).mean()
        for at in np.unique(bins)
    ]
    return float(np.sum(gaps))
