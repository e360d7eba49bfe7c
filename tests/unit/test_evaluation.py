"""Ranks against a slow and obvious computation; forgetting and transfer on known matrices."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from learner.bootstrap import bootstrap_head
from learner.catalogue import make_catalogue
from learner.evaluation import (
    KEPT_ROWS,
    NO_EVENTS,
    Model,
    Paired,
    align,
    backward_transfer,
    examine,
    forgetting,
    next_matrix,
    plasticity,
)
from learner.sampling import ActionWeights, Segment
from profiles.evaluation import UserSequence, prequential, summarise
from profiles.head import Head, HeadShape
from profiles.items import Item
from profiles.layers import Floats
from profiles.manifest import MAX_MANIFEST_BYTES
from profiles.release import ItemTable
from profiles.updater import Steps, advance, profile_at_start, start_state

ITEMS = 30


def small_model(seed: int = 0) -> tuple[Head, Floats, Floats]:
    rng = np.random.default_rng(seed)
    text = rng.normal(size=(ITEMS, 12)).astype(np.float32)
    head = bootstrap_head(text, HeadShape(8, 1, 8, 12, 2), ("rate", "view"), seed)
    vectors = rng.normal(size=(ITEMS, 8)).astype(np.float32)
    return head, vectors, rng.normal(size=ITEMS).astype(np.float32)


def random_sequences(seed: int, users: int = 7) -> list[UserSequence]:
    rng = np.random.default_rng(seed)
    sequences = []
    for _ in range(users):
        n = int(rng.integers(1, 15))
        sequences.append(
            UserSequence(
                items=rng.integers(-1, ITEMS, size=n),
                actions=rng.integers(2, size=n),
                values=rng.random(n).astype(np.float32),
                ts=np.cumsum(rng.exponential(1e4, size=n)),
            )
        )
    return sequences


def obvious_ranks(
    head: Head, vectors: Floats, bias: Floats, sequence: UserSequence, *, exclude_seen: bool
) -> list[int]:
    """One user, one event, one item at a time."""
    state, profile = start_state(head, 1), profile_at_start(head, 1)
    seen: set[int] = set()
    last: float | None = None
    ranks = []
    for item, action, value, ts in zip(
        sequence.items.tolist(), sequence.actions, sequence.values, sequence.ts, strict=True
    ):
        if item < 0:
            ranks.append(0)
            continue
        scores = vectors @ profile[0] * head.score_scale[0] + bias
        if exclude_seen and item in seen:
            ranks.append(0)
        else:
            others = [i for i in range(ITEMS) if i != item and not (exclude_seen and i in seen)]
            ranks.append(1 + sum(scores[i] >= scores[item] for i in others))
        gap = np.array([np.nan if last is None else ts - last])
        step = Steps(vectors[[item]], np.array([action]), np.array([value]), gap)
        state, profile = advance(head, state, step)
        seen.add(item)
        last = ts
    return ranks


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_batched_ranks_equal_the_obvious_ones(exclude_seen: bool) -> None:
    head, vectors, bias = small_model()
    sequences = random_sequences(1)
    everything = [np.ones(len(s.items), np.bool_) for s in sequences]

    found = prequential(
        head, vectors, bias, sequences, everything, exclude_seen=exclude_seen, block_users=3
    )

    for sequence, ranks in zip(sequences, found, strict=True):
        assert ranks.tolist() == obvious_ranks(
            head, vectors, bias, sequence, exclude_seen=exclude_seen
        )


def test_only_the_asked_events_are_ranked() -> None:
    head, vectors, bias = small_model()
    sequences = random_sequences(2)
    everything = [np.ones(len(s.items), np.bool_) for s in sequences]
    some = [np.arange(len(s.items)) % 3 == 1 for s in sequences]

    whole = prequential(head, vectors, bias, sequences, everything)
    part = prequential(head, vectors, bias, sequences, some)

    for mask, all_ranks, ranks in zip(some, whole, part, strict=True):
        assert ranks.tolist() == np.where(mask, all_ranks, 0).tolist()


def test_a_model_that_scores_all_items_alike_ranks_last() -> None:
    head, vectors, _ = small_model()
    flat = np.zeros_like(vectors)
    sequence = UserSequence(np.array([3]), np.array([0]), np.zeros(1, np.float32), np.zeros(1))

    [ranks] = prequential(head, flat, np.zeros(ITEMS, np.float32), [sequence], [np.array([True])])

    assert ranks.tolist() == [ITEMS]


def test_scores_that_are_not_numbers_rank_last() -> None:
    head, vectors, bias = small_model()
    sequence = UserSequence(np.array([3]), np.array([0]), np.zeros(1, np.float32), np.zeros(1))

    [ranks] = prequential(head, vectors, bias * np.nan, [sequence], [np.array([True])])

    assert ranks.tolist() == [ITEMS]


def test_summary_of_known_ranks() -> None:
    ranking = summarise(np.array([0, 1, 3, 11]))

    assert (ranking.events, ranking.hr10, ranking.ndcg10) == (3, 2 / 3, 0.5)


def test_forgetting_transfer_and_plasticity_of_a_known_matrix() -> None:
    matrix = [[0.3], [0.2, 0.4], [0.1, 0.5, 0.6]]

    assert backward_transfer(matrix) == pytest.approx(((0.1 - 0.3) + (0.5 - 0.4)) / 2)
    assert forgetting(matrix) == pytest.approx(((0.3 - 0.1) + (0.4 - 0.5)) / 2)
    assert plasticity(matrix) == pytest.approx((0.3 + 0.4 + 0.6) / 3)


def test_an_empty_exam_is_left_out_of_the_figures() -> None:
    empty = Paired(0, 0.0, 0.0, 0.0)

    matrix = next_matrix([[0.3]], {}, 2, empty)

    assert matrix == [[0.3], [NO_EVENTS, NO_EVENTS]]
    assert (backward_transfer(matrix), forgetting(matrix), plasticity(matrix)) == (0.0, 0.0, 0.3)


def test_both_models_sit_the_same_exams() -> None:
    head, vectors, bias = small_model()
    catalogue = make_catalogue([Item(f"i{n}", title=str(n)) for n in range(ITEMS)])
    actions = ActionWeights.from_settings({"rate": 1.0, "view": 0.3})
    rng = np.random.default_rng(5)

    def segment(user: int, first: int) -> Segment:
        rows = rng.permutation(ITEMS)[:12]
        return Segment(
            user, 0, first, catalogue.keys[rows], np.arange(12.0), np.zeros(12, np.int64),
            np.full(12, 5.0, np.float32), np.arange(12) + 100 * user,
        )  # fmt: skip

    model, other = Model(head, vectors, bias), Model(head, vectors, bias[::-1].copy())
    recent = [segment(user, 6) for user in range(8)]
    old = {1: [segment(9, 4)], 2: [segment(10, 8)]}

    same = examine(model, model, recent, old, catalogue, actions, np.zeros(ITEMS, np.float32))
    apart = examine(model, other, recent, old, catalogue, actions, np.zeros(ITEMS, np.float32))

    assert same.recent.events == 8 * 6
    assert same.long_ago.events == 8 + 4
    assert same.recent.parent == same.recent.candidate
    assert same.recent.standard_error == 0.0
    assert apart.recent.candidate != apart.recent.parent
    assert set(apart.row) == {1, 2}


def test_aligning_gives_new_items_what_a_worker_would() -> None:
    head, _, _ = small_model()
    items = [Item(f"i{n}", title=f"title {n}") for n in range(3)]
    catalogue = make_catalogue(items)
    rng = np.random.default_rng(6)
    text = rng.normal(size=(3, 12)).astype(np.float32)
    table = ItemTable(
        keys=catalogue.keys[:2], text_keys=catalogue.text_keys[:2],
        vectors=np.zeros((2, 8), np.float32), ids=rng.normal(size=(2, 8)).astype(np.float32),
        bias=np.array([0.5, -0.5], np.float32), counts=np.array([10, 0], np.float32),
    )  # fmt: skip

    model = align(head, table, catalogue, text)

    assert model.bias.tolist() == [0.5, -0.5, float(head.new_item_bias[0])]
    assert np.isfinite(model.vectors).all()


def test_the_matrix_of_a_year_of_rounds_still_fits_a_manifest() -> None:
    matrix: list[list[float]] = []
    rounds = 1_500
    for period in range(1, rounds + 1):
        now = Paired(events=9, parent=0.1, candidate=0.123456789, standard_error=0.0)
        matrix = next_matrix(matrix, {1: 0.987654321}, period, now)
    assert len(matrix) == rounds, "the next round takes its number from it"
    assert [bool(row) for row in matrix] == [False] * (rounds - KEPT_ROWS) + [True] * KEPT_ROWS
    assert (len(matrix[-1]), matrix[-1][0]) == (rounds, 0.987654321)
    assert len(msgspec.json.format(msgspec.json.encode(matrix))) < MAX_MANIFEST_BYTES / 2
    whole = [[0.9, *[NO_EVENTS] * row] for row in range(rounds)]
    assert sum(map(len, whole)) * len("0.9,") > MAX_MANIFEST_BYTES
    assert plasticity(matrix) == pytest.approx(0.123456789)
    assert (backward_transfer(matrix), forgetting(matrix)) == (0.0, 0.0)
