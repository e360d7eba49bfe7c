"""What the continual benchmark promises: test-then-learn, groups as stated, R as it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.continual.figures import Study, figures, table
from benchmarks.continual.learning import Workshop
from benchmarks.continual.running import Run, run_strategy
from benchmarks.continual.strategies import Strategy
from benchmarks.continual.timeline import RETURN_GAP_S, make_groups, make_timeline
from benchmarks.offline.histories import Ints
from benchmarks.offline.interactions import Interactions
from benchmarks.offline.ours import go_on_learning
from benchmarks.offline.protocols import prequential
from profiles.config import Settings, load_settings
from profiles.items import Item

ITEMS = 30


def interactions(users: Ints, items: Ints, ts: Ints) -> Interactions:
    """Events `view` in the order given."""
    n = len(users)
    return Interactions(
        "made up", "nowhere", True, users, items, np.zeros(n, np.int64),
        np.full(n, np.nan, np.float32), ts.astype(np.float64),
        tuple(f"u{user}" for user in range(int(users.max()) + 1)), ("view",),
        tuple(Item(f"i{number}", title=f"title {number}") for number in range(ITEMS)),
    )  # fmt: skip


def random_interactions(count: int, seed: int = 0) -> Interactions:
    rng = np.random.default_rng(seed)
    return interactions(
        rng.integers(12, size=count), rng.integers(ITEMS, size=count), np.arange(count)
    )


@pytest.fixture
def settings(tmp_path: Path, tiny_language_model: Path) -> Settings:
    return load_settings(
        model={"base": str(tiny_language_model), "dim": 8, "hidden": 8, "lora_rank": 2},
        store={"directory": str(tmp_path), "releases": str(tmp_path / "releases")},
        learner={"epochs": 2, "lora_steps": 0, "sequence_length": 10, "device": "cpu"},
    )


@pytest.mark.parametrize("mode", ["rounds", "retrain"])
def test_a_block_is_ranked_before_anything_of_it_or_after_it_is_used(
    settings: Settings, tmp_path: Path, mode: str
) -> None:
    """Another future, from the second block on, changes no rank of the first two blocks'
    beginnings: those of block 1, and of block 2 before the first difference."""
    data = random_interactions(300)
    other = random_interactions(300)
    other.items[220:] = (other.items[220:] + 7) % ITEMS
    borders = [180, 220, 260, 300]
    strategy = Strategy("any", "", mode=mode)  # type: ignore[arg-type]  # one of the modes
    ranks = []
    for number, events in enumerate((data, other)):
        root = tmp_path / str(number)
        root.mkdir()
        mine = settings.model_copy(
            update={"store": settings.store.model_copy(update={"releases": str(root / "r")})}
        )
        timeline = make_timeline(events, mine, borders=borders, held_share=0.2, seed=1)
        found = run_strategy(strategy, Workshop(mine, root), timeline, root / "buffer")
        ranks.append(found.ranks)

    assert (ranks[0][180:220] > 0).any()
    assert ranks[0][:220].tolist() == ranks[1][:220].tolist()
    assert ranks[0][220:].tolist() != ranks[1][220:].tolist()


def test_in_the_quality_benchmark_our_rounds_rank_every_asked_event_before_its_block_is_learned(
    settings: Settings,
) -> None:
    found = []
    for shift in (0, 7):
        data = random_interactions(300)
        split = prequential(data.users, data.items, blocks=3)
        last = split.stages[-1].asked
        data.items[last[-5:]] = (data.items[last[-5:]] + shift) % ITEMS
        task = data.task(split, np.zeros((ITEMS, 1), np.float32))
        found.append(go_on_learning(task, settings))

    assert all(len(ranks) == len(split.asked()) for ranks in found)
    assert (found[0] > 0).all()
    assert found[0][:-5].tolist() == found[1][:-5].tolist()
    assert found[0][-5:].tolist() != found[1][-5:].tolist()


def test_held_events_never_reach_the_learner_and_every_period_has_some(
    settings: Settings,
) -> None:
    timeline = make_timeline(
        random_interactions(400), settings, borders=[200, 300, 400], held_share=0.3, seed=3
    )

    for period in range(3):
        inside = timeline.periods == period
        read = {row.offset for row in timeline.rows(period)}
        assert read == set(np.flatnonzero(inside & ~timeline.held).tolist())
        assert 10 < int((inside & timeline.held).sum()) < 60


def test_groups_are_told_from_what_came_before(settings: Settings) -> None:
    gap = int(RETURN_GAP_S)
    #                base         | block
    users = np.array([0, 1, 0, 1, 0, 2, 1, 2, 0])
    ts = np.array([0, 1, 2, 3, gap + 3, gap + 4, gap + 4, gap + 5, gap + 6])
    items = np.array([5, 5, 5, 5, 5, 6, 5, 7, 8])

    timeline = make_timeline(
        interactions(users, items, ts), settings, borders=[4, 9], held_share=0.0, seed=0
    )
    groups = make_groups(timeline)

    assert np.flatnonzero(groups["new_users"]).tolist() == [5, 7]
    assert np.flatnonzero(groups["returning_users"]).tolist() == [4, 6, 8]
    # Item 5 had four events in the base: one fewer than it takes.
    assert np.flatnonzero(groups["cold_items"]).tolist() == [4, 5, 6, 7, 8]


def test_the_matrix_and_what_follows_from_it(settings: Settings) -> None:
    """A model that ranks a period's events first once it learned it, and tenth once it forgot."""
    timeline = make_timeline(
        random_interactions(600), settings, borders=[200, 400, 600], held_share=0.3, seed=0
    )
    seen = timeline.held & timeline.asked()

    def run(name: str, after_two: tuple[int, int, int]) -> Run:
        by_row = [(1, 40, 40), (1, 1, 40), after_two]
        held = np.stack([np.where(seen, np.array(row)[timeline.periods], 0) for row in by_row])
        ranks = np.where(timeline.asked() & (timeline.periods > 0), 3, 0)
        return Run(
            name, 0, ranks, ranks, held, np.ones(2), np.array([10, 20]), np.ones(2, np.bool_)
        )

    study = Study(
        {0: timeline},
        {
            "default": [run("default", (1, 1, 1))],
            "naive": [run("naive", (40, 40, 1))],
            "full": [run("full", (1, 1, 1))],
        },
    )
    found = figures(study, 0)
    naive = found["strategies"]["naive"]

    assert naive["matrix"] == [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    assert (naive["forgetting"]["mean"], naive["backward_transfer"]["mean"]) == (1.0, -1.0)
    assert found["strategies"]["default"]["forgetting"]["mean"] == 0.0
    assert naive["plasticity"]["mean"] == 1.0
    assert naive["later"]["ndcg10"]["mean"] == pytest.approx(0.5)
    assert found["bars"]["forgetting"]["met"]
    assert found["bars"]["examples_over_full"] == {"mean": 1.0, "bar": 0.15, "met": False}
    assert table(found).count("\n") == 4
