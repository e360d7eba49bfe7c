"""A small world with something to learn, for tests of whole rounds; synthetic."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from learner.bootstrap import bootstrap_release
from learner.catalogue import Catalogue, make_catalogue
from learner.records import Row
from learner.replay import ReplayBuffer
from learner.round_types import Hooks
from learner.rounds import Outcome, plan_round, run_round
from learner.sampling import ActionWeights
from profiles.config import Settings, load_settings
from profiles.expected import expected_by
from profiles.items import Item
from profiles.registry import ReleaseStore
from profiles.release import Release, open_release
from profiles.wire import key64

ITEMS = 40
USERS = 60


@dataclass(slots=True)
class World:
    """Forty items of two kinds; whoever took item n of a kind mostly takes n + 1 of it next."""

    settings: Settings
    items: list[Item]
    catalogue: Catalogue
    actions: ActionWeights
    store: ReleaseStore
    root: Path

    def item_of(self, kind: int, number: int) -> int:
        return key64(f"item-{kind}-{number % (ITEMS // 2)}")

    def rows(self, start: int, each: int, seed: int = 0, hidden: float = 0.0) -> list[Row]:
        """`hidden`: share of events in which a user hides an item of the other kind."""
        rng = np.random.default_rng([seed, start])
        made: list[Row] = []
        at = {user: int(rng.integers(ITEMS // 2)) for user in range(USERS)}
        for number in range(each):
            for user in range(USERS):
                at[user] += 1 if rng.random() < 0.85 else int(rng.integers(ITEMS // 2))
                offset = start + len(made)
                hides = bool(hidden) and rng.random() < hidden
                kind, action = (1 - user % 2, "hide") if hides else (user % 2, "view")
                made.append(
                    Row(
                        0, offset, key64(f"u{user}"), self.item_of(kind, at[user]),
                        self.actions.names.index(action), 0.0,
                        1e6 + start + 60.0 * number, offset + 1,
                    )
                )  # fmt: skip
        return made

    def first_release(self) -> Release:
        return self.open(bootstrap_release(self.settings, self.items, self.store).release_id)

    def open(self, release_id: str) -> Release:
        return open_release(self.store.fetch(release_id), expected_by(self.settings))

    def buffer(self) -> ReplayBuffer:
        return ReplayBuffer(
            self.root / "buffer",
            buffer_bytes=10**7,
            sequence_length=self.settings.learner.sequence_length,
            seed=1,
            actions=self.actions.names,
            conversations=self.settings.learner.judged_conversations,
        )


def make_world(tmp_path: Path, tiny_language_model: Path) -> World:
    """The world in an empty folder, with small shapes and few steps."""
    settings = load_settings(
        model={"base": str(tiny_language_model), "dim": 16, "hidden": 16, "lora_rank": 2},
        store={"directory": str(tmp_path), "releases": str(tmp_path / "releases")},
        learner={
            "sequence_length": 12, "epochs": 8, "lora_steps": 4, "lora_items": 8,
            "head_lr": 0.02, "batch_users": 16, "device": "cpu", "dropout": 0.1,
        },
    )  # fmt: skip
    items = [
        Item(f"item-{kind}-{number}", title=f"{word} number {number}")
        for kind, word in enumerate(("tale", "song"))
        for number in range(ITEMS // 2)
    ]
    return World(
        settings,
        items,
        make_catalogue(items),
        ActionWeights.from_settings(settings.actions),
        ReleaseStore(settings.store.releases, tmp_path / "cache"),
        tmp_path,
    )


def learn(world: World, buffer: ReplayBuffer, parent: Release) -> Outcome:
    """One round from the buffer, and its end there."""
    plan = plan_round(buffer, parent.manifest, world.settings, "count", {"events/0": 7})
    outcome = run_round(
        world.settings, plan, world.catalogue, parent, world.store,
        parent.manifest.sequence + 1, world.root, Hooks(),
    )  # fmt: skip
    buffer.finish_round(plan.upto, plan.border, plan.period)
    return outcome


def with_learner(world: World, **changes: object) -> None:
    """Other settings of the learner, unchecked."""
    learner = world.settings.learner.model_copy(update=changes)
    world.settings = world.settings.model_copy(update={"learner": learner})
