"""What may be switched on beside the objective: each does what it says, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import pytest
import torch
from torch import Tensor

from learner.adversarial import worst_case
from learner.augmentation import augment_sequences, drop_words
from learner.averaging import Average
from learner.catalogue import make_catalogue
from learner.catalogue_text import CatalogueText
from learner.language import LanguageModel
from learner.model import Batch
from learner.sampling import join, make_windows
from profiles.items import Item
from tests.unit.test_sampling import ACTIONS, CATALOGUE, segment

pytestmark = pytest.mark.unit


def windows(users: int) -> Batch:
    made = make_windows([segment(9, user=u) for u in range(1, users + 1)], CATALOGUE, ACTIONS, 12)
    return join(made, np.arange(users), made, np.arange(0))


def test_augmented_windows_keep_events_with_what_is_predicted_of_them() -> None:
    before = windows(60)

    after = augment_sequences(before, 1.0, np.random.default_rng(3))

    changed = 0
    for row in range(60):
        inputs = int(after.mask[row].sum())
        items = after.items[row, :inputs].tolist()
        assert set(items) <= set(range(8)), "no event is made up"
        assert len(set(items)) == inputs, "none comes twice"
        assert after.targets[row, : inputs + 1].tolist() == [*items, 8], "targets move along"
        gaps = after.gaps_s[row]
        assert torch.isnan(gaps[0])
        assert bool((gaps[1:inputs] >= 10.0).all())
        changed += items != list(range(8))
        starts_whole = items[0] == 0
        assert (after.weights[row, 0] > 0) == starts_whole
    assert changed > 40


def test_gaps_over_dropped_events_add_up() -> None:
    before = windows(60)

    after = augment_sequences(before, 1.0, np.random.default_rng(3))

    for row in range(60):
        inputs = int(after.mask[row].sum())
        items = sorted(after.items[row, :inputs].tolist())  # one event each ten seconds
        assert float(after.gaps_s[row, 1:inputs].sum()) == 10.0 * (items[-1] - items[0])


def test_a_share_of_the_windows_is_augmented_and_the_batch_itself_is_left_alone() -> None:
    before = windows(200)
    kept = before.items.clone()

    after = augment_sequences(before, 0.25, np.random.default_rng(0))

    moved = [row for row in range(200) if not torch.equal(after.targets[row], before.targets[row])]
    assert 30 <= len(moved) <= 70
    assert torch.equal(before.items, kept)


def test_dropped_words_leave_the_others_in_order_and_one_at_least() -> None:
    rng = np.random.default_rng(0)
    text = "a b c d e f g h"

    shorter = [drop_words(text, 0.5, rng) for _ in range(200)]

    assert all(list(words.split()) == sorted(set(words.split())) for words in shorter)
    assert 3.0 < np.mean([len(words.split()) for words in shorter]) < 5.0
    assert drop_words("alone", 0.99, rng) == "alone"


class Reader:
    """A language model that remembers what it was asked to read."""

    device = "cpu"

    def __init__(self) -> None:
        self.read: list[str] = []

    def embed_trainable(self, texts: Sequence[str]) -> Tensor:
        self.read += texts
        return torch.zeros(len(texts), 2)


def test_text_dropout_shortens_what_a_language_step_reads() -> None:
    catalogue = make_catalogue([Item(f"i{n}", title=f"{n} " + "word " * 20) for n in range(5)])

    def words(dropout: float) -> int:
        reader = Reader()
        first = np.zeros((5, 2), np.float32)
        text = CatalogueText(catalogue, cast(LanguageModel, reader), first)
        text.read_some(torch.arange(5), 5, np.random.default_rng(1), dropout)
        return sum(len(read.split()) for read in reader.read)

    assert words(0.0) == 5 * 21
    assert words(0.5) < 0.7 * words(0.0)


def test_the_worst_case_raises_the_loss_more_than_a_random_move_of_equal_length() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(30, 8, generator=generator).requires_grad_()
    goal = torch.randn(30, 8, generator=generator)

    def loss(at: Tensor) -> Tensor:
        return (torch.sigmoid(at) - goal).square().sum()

    move = worst_case(loss(vectors), vectors, 0.1)
    noise = torch.randn(30, 8, generator=generator)
    other = noise / noise.norm(dim=1, keepdim=True) * move.norm(dim=1, keepdim=True)

    assert torch.allclose(move.norm(dim=1), 0.1 * vectors.norm(dim=1), atol=1e-6)
    assert loss(vectors + move) > loss(vectors + other)
    assert loss(vectors + move) > loss(vectors)


def test_the_average_lags_behind_and_the_weights_come_back() -> None:
    weights = {"w": torch.zeros(1)}
    average = Average(0.9)
    for step in range(1, 21):
        weights["w"].fill_(float(step))
        average.update(weights)

    with average.applied(weights):
        inside = weights["w"].item()
    assert 10.0 < inside < 20.0
    assert weights["w"].item() == 20.0

    average.settle(weights)
    assert weights["w"].item() == inside


def test_an_average_goes_on_after_a_kill() -> None:
    def run(average: Average, first: int, last: int) -> float:
        weights = {"w": torch.zeros(1)}
        for step in range(first, last):
            weights["w"].fill_(float(step))
            average.update(weights)
        with average.applied(weights):
            return weights["w"].item()

    unbroken, killed, resumed = Average(0.9), Average(0.9), Average(0.9)
    run(killed, 0, 7)
    resumed.restore(killed.tensors())

    assert run(resumed, 7, 15) == run(unbroken, 0, 15)


def test_without_a_decay_nothing_is_averaged() -> None:
    weights = {"w": torch.ones(1)}
    average = Average(0.0)
    average.update(weights)
    weights["w"].fill_(2.0)

    with average.applied(weights):
        assert weights["w"].item() == 2.0
