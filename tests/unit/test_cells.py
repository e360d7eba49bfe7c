"""Candidates by cells: nearly the exact ranking, and exact where an index cannot know."""

from __future__ import annotations

import numpy as np
import pytest

from profiles.catalog import Catalog
from profiles.cells import CELL_ROWS, Bools, Cells
from profiles.items import Item
from profiles.layers import Floats, layer_norm
from profiles.scoring import FEW_ROWS, candidates, exact, recalled
from profiles.space import Space
from profiles.wire import key64
from tests.unit.builders import LAYOUT, make_items, make_release

pytestmark = pytest.mark.unit

WIDTH = 16
TOPICS = 40


def clustered(count: int, seed: int) -> Floats:
    """Synthetic vectors around `TOPICS` centres, on the sphere that a LayerNorm leaves."""
    centres = np.random.default_rng(1).normal(size=(TOPICS, WIDTH)) * 2.0
    chance = np.random.default_rng(seed)
    rows = centres[chance.integers(TOPICS, size=count)] + chance.normal(size=(count, WIDTH))
    ones, nothing = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    return layer_norm(rows.astype(np.float32), ones, nothing)


def proposed_by(cells: Cells, query: Floats, count: int) -> tuple[list[set[int]], list[bool]]:
    found = cells.search(query, np.ones(count, np.bool_), 16)
    return [set(rows) for rows in found.rows.tolist()], found.wide.tolist()


def test_nearly_all_of_the_best_items_are_found_without_reading_them_all() -> None:
    count = 60_000
    vectors, query = clustered(count, 2), clustered(64, 3)
    bias = np.random.default_rng(4).normal(size=count).astype(np.float32)
    cells = Cells(np.arange(count), vectors, bias, 0.25, seed=5)
    scores = (query * np.float32(0.25)) @ vectors.T + bias
    best = np.argsort(-scores, axis=1)[:, :10].tolist()

    found, wide = proposed_by(cells, query, count)

    narrow = np.flatnonzero(~np.array(wide)).tolist()
    assert len(narrow) > 48
    hits = [len(found[at] & set(best[at])) for at in narrow]
    assert sum(hits) / (10 * len(hits)) >= 0.98


def test_equal_seeds_give_equal_candidates() -> None:
    vectors, query, bias = clustered(3_000, 2), clustered(8, 3), np.zeros(3_000, np.float32)
    first, second = (Cells(np.arange(3_000), vectors, bias, 0.25, seed=5) for _ in range(2))
    assert proposed_by(first, query, 3_000) == proposed_by(second, query, 3_000)


def test_equal_items_are_cut_into_cells_all_the_same() -> None:
    vectors = np.ones((2_000, WIDTH), np.float32)
    cells = Cells(np.arange(2_000), vectors, np.zeros(2_000, np.float32), 0.25, seed=5)
    assert len(cells) >= 2_000 // CELL_ROWS


# --- in a space ---------------------------------------------------------------------------------


class Shop:
    """A catalogue larger than `FEW_ROWS`, its space indexed."""

    def __init__(self, count: int = FEW_ROWS + 5_000) -> None:
        self.catalog = Catalog()
        self.items = make_items(count)
        for item in self.items:
            self.catalog.put(item)
        self.space = Space(make_release(self.items), self.catalog, LAYOUT.seen_bytes)
        self.space.finish_index(self.space.begin_index()())
        chance = np.random.default_rng(8)
        self.query = chance.normal(size=(6, LAYOUT.dim)).astype(np.float32)

    def best(self, allowed: Bools) -> list[list[int]]:
        rows: list[list[int]] = exact(self.query, self.space, allowed, 5).rows.tolist()
        return rows

    def proposed(self, allowed: Bools) -> list[list[int]]:
        rows: list[list[int]] = candidates(self.query, self.space, allowed, 5).rows.tolist()
        return rows


@pytest.fixture(scope="module")
def shop() -> Shop:
    return Shop()


def test_candidates_are_scored_exactly(shop: Shop) -> None:
    ranked = candidates(shop.query, shop.space, np.ones(len(shop.items), np.bool_), 5)
    scale = shop.space.head.score_scale[0]
    scores = np.einsum("bd,bkd->bk", shop.query * scale, shop.space.vectors[ranked.rows])
    scores += shop.space.lifted_bias[ranked.rows]
    np.testing.assert_allclose(ranked.scores, scores, rtol=1e-5, atol=1e-5)


def test_items_that_are_not_allowed_are_never_proposed(shop: Shop) -> None:
    allowed = np.random.default_rng(9).random(len(shop.items)) < 0.9
    rows = np.array(shop.proposed(allowed))
    assert rows.shape == (6, 5)
    assert allowed[rows].all()


def test_a_restrictive_filter_is_ranked_exactly(shop: Shop) -> None:
    allowed = np.zeros(len(shop.items), np.bool_)
    allowed[[3, 77, 1234]] = True
    assert shop.proposed(allowed) == [[*rows[:3], -1, -1] for rows in shop.best(allowed)]


def test_recall_counts_what_the_index_finds(shop: Shop) -> None:
    everything = np.ones(len(shop.items), np.bool_)
    found, of = recalled(shop.query, shop.space, everything, 5)
    assert of == 30
    assert found == sum(
        len(set(a) & set(b))
        for a, b in zip(shop.best(everything), shop.proposed(everything), strict=True)
    )


def test_an_item_newer_than_the_index_is_found() -> None:
    shop = Shop()
    shop.catalog.put(Item("new", "New"))
    row = np.array(shop.space.extend())
    text = np.zeros((1, shop.space.head.shape.text_dim), np.float32)
    shop.space.set_text_vectors(row, text, np.array([key64(Item("new", "New").full_text())]))
    shop.space.lifted_bias[row] = 1e6  # the best for everybody
    assert shop.space.uncovered() == 1
    everything = np.ones(len(shop.catalog), np.bool_)
    assert [rows[0] for rows in shop.proposed(everything)] == row.tolist() * 6


def test_an_item_whose_vector_changed_after_the_index_is_found_by_its_new_one() -> None:
    shop = Shop()
    changed = np.array([5])
    shop.catalog.put(Item("i5", "Another title", tags=["song"]))
    assert shop.space.extend().tolist() == [5]
    text = np.zeros((1, shop.space.head.shape.text_dim), np.float32)
    shop.space.set_text_vectors(changed, text, shop.catalog.text_keys[changed])
    shop.space.lifted_bias[changed] = 1e6
    everything = np.ones(len(shop.catalog), np.bool_)
    assert [rows[0] for rows in shop.proposed(everything)] == [5] * 6


def test_an_item_that_changes_while_the_index_is_built_is_found() -> None:
    shop = Shop()
    build = shop.space.begin_index()
    changed = np.array([5])
    shop.catalog.put(Item("i5", "Another title", tags=["song"]))
    shop.space.extend()
    text = np.zeros((1, shop.space.head.shape.text_dim), np.float32)
    shop.space.set_text_vectors(changed, text, shop.catalog.text_keys[changed])
    shop.space.finish_index(build())
    assert shop.space.uncovered() == 1
