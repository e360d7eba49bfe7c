"""Two processes that learn a round together: the curve of one, and what happens when one dies."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from learner.bootstrap import bootstrap_release
from learner.catalogue import make_catalogue
from learner.round_types import Hooks, Parent, RoundData
from learner.sampling import ActionWeights, Segment
from learner.trainer import SharedRound, train_round
from profiles.config import load_settings
from profiles.expected import expected_by
from profiles.items import Item
from profiles.registry import ReleaseStore
from profiles.release import open_release
from profiles.wire import key64

pytestmark = pytest.mark.e2e

ITEMS, USERS, EVENTS = 30, 24, 12
SAME = 1e-4
"""Largest relative difference between the losses of one process and of two: float32 sums in
another order, over some hundred steps."""

MEMBER = """
import json, os, pickle, sys
from dataclasses import replace
from pathlib import Path
from learner.distributed import follow
from learner.round_types import Hooks
from learner.team import Team
from learner.trainer import train_round

root, die_at = Path(sys.argv[1]), int(sys.argv[2])
work = pickle.loads((root / "work").read_bytes())
team = Team.join()
if not team.leads:
    if die_at:
        agree, asked = team.agree, [0]
        def agree_until(answer):
            asked[0] += 1
            if asked[0] > die_at:
                os._exit(9)
            return agree(answer)
        team.agree = agree_until
    follow(team)
else:
    losses = []
    hooks = Hooks(
        lambda stage, done, of, loss: losses.append([stage, loss]),
        checkpoint=work.checkpoint, identity=work.identity, team=team,
    )
    made = train_round(work.model, work.settings, work.actions, work.parent, work.data, hooks)
    (root / "losses").write_text(json.dumps(losses))
    (root / "text").write_bytes(made.text.tobytes())
    team.tell(None)
team.leave()
"""


@dataclass(frozen=True, slots=True)
class Curve:
    """Losses of a round, and its text vectors at the end."""

    losses: list[float]
    text: np.ndarray[tuple[int, int], np.dtype[np.float32]]


@pytest.fixture
def work(tmp_path: Path, tiny_language_model: Path) -> SharedRound:
    """A round on a small world: who took item n of a kind takes n + 1 next."""
    settings = load_settings(
        model={"base": str(tiny_language_model), "dim": 16, "hidden": 16, "lora_rank": 2},
        store={"directory": str(tmp_path), "releases": str(tmp_path / "releases")},
        learner={
            "sequence_length": 12, "epochs": 6, "lora_steps": 12, "lora_items": 9,
            "head_lr": 0.02, "lora_lr": 0.01, "batch_users": 8, "device": "cpu",
        },
    )  # fmt: skip
    items = [Item(f"i{number}", title=f"tale number {number}") for number in range(ITEMS)]
    store = ReleaseStore(settings.store.releases, tmp_path / "cache")
    name = bootstrap_release(settings, items, store).release_id
    release = open_release(store.fetch(name), expected_by(settings))
    actions = ActionWeights.from_settings(settings.actions)
    segments = [
        Segment(
            user, 0, 0,
            np.array([key64(f"i{(user + n) % ITEMS}") for n in range(EVENTS)], np.uint64),
            np.arange(EVENTS, dtype=np.float64) * 60.0,
            np.full(EVENTS, actions.names.index("view")), np.zeros(EVENTS, np.float32),
            np.arange(EVENTS) + user * EVENTS,
        )
        for user in range(USERS)
    ]  # fmt: skip
    data = RoundData(
        make_catalogue(items), segments[:16], [], segments[16:], np.full(ITEMS, 9.0, np.float32)
    )
    parent = Parent(release.head, release.items, release.adapter_directory, False)
    path = tmp_path / "checkpoint.safetensors"
    return SharedRound(settings.model, settings.learner, actions, parent, data, path, "round 1")


def by_one(work: SharedRound, hooks: Hooks) -> Curve:
    losses: list[float] = []
    watched = Hooks(
        lambda stage, done, of, loss: losses.append(loss),
        checkpoint=hooks.checkpoint,
        identity=hooks.identity,
    )
    made = train_round(work.model, work.settings, work.actions, work.parent, work.data, watched)
    return Curve([loss for loss in losses if np.isfinite(loss)], made.text)


def start_two(work: SharedRound, root: Path, *, die_at: int = 0) -> subprocess.Popen[str]:
    (root / "work").write_bytes(pickle.dumps(work))
    (root / "member.py").write_text(MEMBER)
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(root / "member.py"), str(root), str(die_at),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_two_processes_learn_along_the_curve_of_one(work: SharedRound, tmp_path: Path) -> None:
    one = by_one(work, Hooks())

    process = start_two(work, tmp_path)
    output, _ = process.communicate(timeout=280)

    assert process.returncode == 0, output
    together = [
        loss for _, loss in json.loads((tmp_path / "losses").read_text()) if np.isfinite(loss)
    ]
    assert len(together) == len(one.losses)
    assert np.abs(np.array(together) / np.array(one.losses) - 1.0).max() < SAME
    text = np.frombuffer((tmp_path / "text").read_bytes(), np.float32).reshape(one.text.shape)
    assert np.allclose(text, one.text, atol=1e-4)
    assert one.losses[-1] < one.losses[0]


def test_a_process_that_dies_ends_the_round_which_goes_on_from_its_checkpoint(
    work: SharedRound, tmp_path: Path
) -> None:
    process = start_two(work, tmp_path, die_at=15)
    output, _ = process.communicate(timeout=280)

    assert process.returncode != 0, output
    assert not (tmp_path / "losses").exists()
    resumed = by_one(work, Hooks(checkpoint=work.checkpoint, identity=work.identity))
    whole = by_one(work, Hooks())
    assert len(resumed.losses) < len(whole.losses)
    assert np.allclose(resumed.text, whole.text, atol=1e-4)
