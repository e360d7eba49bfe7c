"""A learning round on a small world with something to learn, and what happens when it is cut."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner import rounds
from learner.language import LanguageModel
from learner.records import Row
from learner.round_types import Candidate, Hooks, Parent, RoundCancelled, RoundData
from learner.rounds import load_plan, plan_round, save_plan
from learner.sampling import Segment
from learner.trainer import train_round
from profiles.encoder import PROBE_TEXTS, TextEncoder
from profiles.errors import LearnerError
from profiles.release import Release, check_probe
from profiles.wire import key64
from tests.unit.learning_world import ITEMS, USERS, World, learn, make_world, with_learner


@pytest.fixture
def world(tmp_path: Path, tiny_language_model: Path) -> World:
    return make_world(tmp_path, tiny_language_model)


def test_two_rounds_each_make_a_release_that_opens_and_knows_more(world: World) -> None:
    first = world.first_release()
    buffer = world.buffer()
    buffer.ingest("events", world.rows(0, 30), {0: 30 * USERS})

    one = learn(world, buffer, first)
    second = world.open(one.manifest.release_id)
    buffer.ingest("events", world.rows(30 * USERS, 15), {0: 45 * USERS})
    two = learn(world, buffer, second)
    third = world.open(two.manifest.release_id)
    buffer.close()

    figures = one.manifest.metrics
    assert one.decision.promote, one.decision.reason
    # Chance is about 0.11 for NDCG@10 among 40 items.
    assert figures["recent_ndcg10_candidate"] > figures["recent_ndcg10_parent"] + 0.1
    assert two.decision.promote, two.decision.reason
    assert second.manifest.parent_id == first.release_id
    assert third.manifest.parent_id == second.release_id
    assert second.manifest.trained_events > 0
    assert third.manifest.trained_events > second.manifest.trained_events
    assert second.manifest.offsets == {"events/0": 7}
    assert second.manifest.contributors == USERS
    assert [len(row) for row in third.manifest.forgetting] == [1, 2]
    assert two.manifest.metrics["long_ago_events"] > 0
    for release in (first, second, third):
        encoder = TextEncoder.load(world.settings.model, adapter=release.adapter_directory)
        check_probe(release, encoder.encode(list(PROBE_TEXTS)))


@pytest.mark.parametrize("harm", ["permuted", "drawn"])
def test_a_round_that_would_do_harm_is_refused_by_the_gate_which_says_why(
    world: World, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    """The candidate loads, is finite and proves its probe; only what it recommends is wrong."""
    buffer = world.buffer()
    buffer.ingest("events", world.rows(0, 30), {0: 30 * USERS})
    serving = world.open(learn(world, buffer, world.first_release()).manifest.release_id)
    buffer.ingest("events", world.rows(30 * USERS, 15), {0: 45 * USERS})

    def train_and_spoil(*given: Any) -> Candidate:  # Any: whatever a round hands to its trainer
        candidate = train_round(*given)
        rng, vectors = np.random.default_rng(0), candidate.items.vectors
        spoiled = {
            "permuted": vectors[rng.permutation(ITEMS)],
            "drawn": rng.normal(scale=vectors.std(), size=vectors.shape).astype(np.float32),
        }
        items = dataclasses.replace(candidate.items, vectors=spoiled[harm])
        return dataclasses.replace(candidate, items=items)

    monkeypatch.setattr(rounds, "train_round", train_and_spoil)
    spoiled = learn(world, buffer, serving)
    buffer.close()

    assert not spoiled.decision.promote
    # The recent exam has four events here, which chance may pass; what was known long ago tells.
    assert spoiled.decision.reason.startswith(("recent: NDCG@10", "forgetting: NDCG@10"))
    assert "forgetting: NDCG@10" in spoiled.decision.reason


@pytest.mark.parametrize("objective", ["click", "multi_task"])
def test_a_round_that_learns_clicks_releases_probabilities_that_hold(
    world: World, objective: str
) -> None:
    with_learner(world, objective=objective, epochs=10)
    buffer = world.buffer()
    buffer.ingest("events", world.rows(0, 40, hidden=0.3), {0: 40 * USERS})

    outcome = learn(world, buffer, world.first_release())
    buffer.close()
    calibration = world.open(outcome.manifest.release_id).manifest.calibration

    figures = outcome.manifest.metrics
    assert calibration is not None
    assert calibration.slope > 0
    assert figures["click_auc"] > 0.8, "hidden items are of the other kind"
    assert figures["click_brier"] < figures["click_brier_base"]
    assert figures["click_ece"] < 0.15


def round_data(world: World, text: np.ndarray[tuple[int, int], np.dtype[np.float32]]) -> RoundData:
    by_user: dict[int, list[Row]] = {}
    for row in world.rows(0, 20):
        by_user.setdefault(row.user, []).append(row)
    segments = [
        Segment(
            user, 0, 0,
            np.array([r.item for r in rows], np.uint64), np.array([r.ts for r in rows]),
            np.array([r.action for r in rows]), np.zeros(len(rows), np.float32),
            np.array([r.offset for r in rows]),
        )
        for user, rows in by_user.items()
    ]  # fmt: skip
    counts = np.full(ITEMS, 30.0, np.float32)
    return RoundData(world.catalogue, segments[:40], segments[40:50], segments[50:], counts, text)


def train(
    world: World, parent: Release, data: RoundData, hooks: Hooks, *, is_trained: bool = False
) -> Candidate:
    start = Parent(parent.head, parent.items, parent.adapter_directory, is_trained)
    return train_round(
        world.settings.model, world.settings.learner, world.actions, start, data, hooks
    )


def base_text(world: World) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    language = LanguageModel.load(world.settings.model, None, "cpu", 0)
    return language.encode(world.catalogue.texts)


@pytest.mark.parametrize("is_trained", [False, True])
@pytest.mark.parametrize("stop_at", [3, 20])
def test_a_round_killed_and_resumed_makes_the_same_candidate(
    world: World, is_trained: bool, stop_at: int
) -> None:
    parent = world.first_release()
    data = round_data(world, base_text(world))
    unbroken = train(world, parent, data, Hooks(), is_trained=is_trained)
    steps: list[int] = []

    def count(stage: str, done: int, of: int, loss: float) -> None:
        steps.append(done)

    checkpoint = world.root / "checkpoint.safetensors"
    with pytest.raises(RoundCancelled):
        train(
            world, parent, data,
            Hooks(count, lambda: len(steps) >= stop_at, checkpoint, "round 1"),
            is_trained=is_trained,
        )  # fmt: skip
    first_part = len(steps)
    resumed = train(
        world, parent, data, Hooks(count, checkpoint=checkpoint, identity="round 1"),
        is_trained=is_trained,
    )  # fmt: skip

    assert resumed.steps == unbroken.steps
    # Something had been kept: fewer steps were repeated than had been done.
    assert stop_at < 10 or len(steps) - first_part < unbroken.steps
    for name, array in unbroken.head.arrays().items():
        assert np.allclose(array, resumed.head.arrays()[name], atol=1e-6), name
    assert np.allclose(unbroken.items.vectors, resumed.items.vectors, atol=1e-5)
    assert np.allclose(unbroken.text, resumed.text, atol=1e-6)


EVERY_FLAG: dict[str, object] = {
    "objective": "multi_task",
    "dislike_weight": 0.5,
    "popularity_correction": 0.5,
    "adversarial": 0.1,
    "text_dropout": 0.2,
    "sequence_augmentation": 0.5,
    "ema_decay": 0.9,
    "optimiser": "nadam",
    "schedule": "linear",
}


@pytest.mark.parametrize("stop_at", [20, 29])
def test_a_round_with_every_flag_resumes_as_well(world: World, stop_at: int) -> None:
    with_learner(world, **EVERY_FLAG, epochs=5)
    model = world.settings.model.model_copy(update={"peft_method": "adalora"})
    world.settings = world.settings.model_copy(update={"model": model})
    parent = world.first_release()
    data = round_data(world, base_text(world))
    unbroken = train(world, parent, data, Hooks())
    steps: list[str] = []

    def count(stage: str, done: int, of: int, loss: float) -> None:
        steps.append(stage)

    checkpoint = world.root / "checkpoint.safetensors"
    stop = Hooks(count, lambda: len(steps) >= stop_at, checkpoint, "round 1")
    with pytest.raises(RoundCancelled):
        train(world, parent, data, stop)
    first_part = len(steps)
    resumed = train(world, parent, data, Hooks(count, checkpoint=checkpoint, identity="round 1"))

    assert {"head", "lora"} & set(steps[:first_part])
    assert len(steps) - first_part < unbroken.steps + 1
    for name, array in unbroken.head.arrays().items():
        assert np.allclose(array, resumed.head.arrays()[name], atol=1e-6), name
    assert np.allclose(unbroken.text, resumed.text, atol=1e-6)


@pytest.mark.parametrize(
    ("flag", "value"),
    [(name, value) for name, value in EVERY_FLAG.items() if name != "objective"]
    + [("objective", "click"), ("objective", "multi_task")],
)
def test_a_flag_changes_what_is_learned_and_it_is_still_learning(
    world: World, flag: str, value: object
) -> None:
    with_learner(world, epochs=3, head_lr=0.01, ema_decay=0.0)
    parent = world.first_release()
    data = round_data(world, base_text(world))
    plain = train(world, parent, data, Hooks())

    with_learner(world, **{flag: value})
    flagged = train(world, parent, data, Hooks())

    same = flag == "dislike_weight"  # this world has no dislikes
    assert np.array_equal(plain.head.text_weight, flagged.head.text_weight) == same
    assert flagged.validation_loss < flagged.start_loss


def test_watchers_are_told_every_figure_by_name(world: World) -> None:
    with_learner(world, objective="multi_task", epochs=4)
    parent = world.first_release()
    told: dict[str, set[str]] = {}
    last_step = 0

    def watch(stage: str, step: int, figures: Mapping[str, float]) -> None:
        nonlocal last_step
        told.setdefault(stage, set()).update(figures)
        last_step = step

    candidate = train(world, parent, round_data(world, base_text(world)), Hooks(figures=watch))

    every_step = {
        "loss", "loss_next_item", "loss_click", "weight_next_item", "weight_click",
        "head_lr", "gradient_norm",
    }  # fmt: skip
    validated = {
        "validation_loss", "validation_ndcg", "validation_next_item_loss", "validation_click_loss",
    }  # fmt: skip
    assert told == {"head": every_step, "lora": every_step, "polish": every_step | validated}
    assert last_step == candidate.steps


def test_a_checkpoint_of_another_round_is_ignored(world: World) -> None:
    parent = world.first_release()
    data = round_data(world, base_text(world))
    checkpoint = world.root / "checkpoint.safetensors"
    one = train(world, parent, data, Hooks(checkpoint=checkpoint, identity="round 1"))
    steps: list[int] = []

    def count(stage: str, done: int, of: int, loss: float) -> None:
        steps.append(done)

    two = train(world, parent, data, Hooks(count, checkpoint=checkpoint, identity="round 2"))

    assert len(steps) >= two.steps == one.steps


def test_a_damaged_checkpoint_costs_a_round_begun_again(world: World) -> None:
    parent = world.first_release()
    data = round_data(world, base_text(world))
    checkpoint = world.root / "checkpoint.safetensors"
    checkpoint.write_bytes(b"\x10\x00\x00\x00\x00\x00\x00\x00{broken")

    candidate = train(world, parent, data, Hooks(checkpoint=checkpoint, identity="round 1"))

    assert candidate.validation_loss < candidate.start_loss


def test_the_language_model_learns_and_only_its_adapter_does(world: World) -> None:
    parent = world.first_release()
    text = base_text(world)

    candidate = train(world, parent, round_data(world, text), Hooks())

    assert np.abs(candidate.text - text).max() > 1e-4
    trained = candidate.language.weights()
    assert trained
    assert all("lora_" in name for name in trained)
    assert np.allclose(candidate.text_before, text)


def test_a_loss_that_is_not_finite_ends_the_round_without_a_candidate(world: World) -> None:
    parent = world.first_release()
    learner = world.settings.learner.model_copy(update={"head_lr": 1e30})
    world.settings = world.settings.model_copy(update={"learner": learner})

    with pytest.raises(LearnerError, match="diverged"):
        train(world, parent, round_data(world, base_text(world)), Hooks())


def test_nothing_to_learn_from_is_said(world: World) -> None:
    parent = world.first_release()
    empty = RoundData(world.catalogue, [], [], [], np.zeros(ITEMS, np.float32))

    with pytest.raises(LearnerError, match="produce items before events"):
        train(world, parent, empty, Hooks())


def test_the_pull_to_the_parent_keeps_a_later_round_near(world: World) -> None:
    parent = world.first_release()
    data = round_data(world, base_text(world))

    def distance(proximal: float) -> float:
        learner = world.settings.learner.model_copy(update={"proximal": proximal})
        world.settings = world.settings.model_copy(update={"learner": learner})
        head = train(world, parent, data, Hooks(), is_trained=True).head
        return float(np.abs(head.text_weight - parent.head.text_weight).mean())

    assert distance(10.0) < distance(0.0)


def test_a_plan_survives_the_way_to_disk_and_back(world: World) -> None:
    first = world.first_release()
    buffer = world.buffer()
    buffer.ingest("events", world.rows(0, 5), {0: 5 * USERS})
    plan = plan_round(buffer, first.manifest, world.settings, "time", {})
    buffer.close()

    save_plan(world.root / "plan", plan)

    assert load_plan(world.root / "plan") == plan
    assert load_plan(world.root / "none") is None
    assert plan.users() == {key64(f"u{user}") for user in range(USERS)}


def test_equal_adapters_are_equal_bytes(world: World, tmp_path: Path) -> None:
    def saved(name: str) -> list[bytes]:
        language = LanguageModel.load(world.settings.model, None, "cpu", 3)
        directory = tmp_path / name
        directory.mkdir()
        language.save(directory)
        return [path.read_bytes() for path in sorted(directory.iterdir())]

    one = saved("one")

    assert len(one) == 2
    assert one == saved("two")


def test_trainer_imports_neither_kafka_nor_rocksdb(run_python: Callable[[str], str]) -> None:
    code = "import sys, learner.trainer; print(sorted({'kafka', 'rocksdict'} & set(sys.modules)))"

    assert run_python(code).strip() == "[]"


@pytest.fixture
def run_python() -> Callable[[str], str]:
    """Run a line of Python in a process of its own."""
    import subprocess
    import sys

    def run(code: str) -> str:
        return subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout

    return run


def test_threads_are_what_the_settings_say(world: World) -> None:
    parent = world.first_release()

    train(world, parent, round_data(world, base_text(world)), Hooks())

    assert torch.get_num_threads() == world.settings.learner.threads
