"""How far 1% fake users push one item: its exposure among real users, by what bounds the crowd.

The crowds are in benchmarks/attacks/crowd.py.  Exposure is the number of real users in whose top
ten the target stands after a round of the product on all histories, early stopping included; the
bar is twice what it is without fake users.  Targets are items shown to 1% to 5% of the users.  An
arm is a value of `learner.user_item_events`, as how many one user's events on one item count: `all`
is 0.

The crowd `trending` poisons no round: it makes the target trend (`profiles.trend`) under the honest
release, and is compared with lists that are lifted by the real users' events alone.  No arm
changes it.

    make bench-abuse [BENCH_ARGS="--seeds 11 12 --targets 3 --arms 1 --runs FOLDER"]

`--runs` keeps what is finished, and a later call goes on from there.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np

from benchmarks.attacks.crowd import KINDS, TRENDING, crowd_size, fake_users
from benchmarks.attacks.world import World, make_world
from benchmarks.harness import Result, load_average, report, say
from learner.round_types import Candidate
from profiles.settings.learning import LearnerSettings

BAR = 2.0


class Run(msgspec.Struct):
    """What one round showed.  `shown` (N,): real users to whom each item is recommended."""

    shown: list[int]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    default = LearnerSettings.model_construct().user_item_events
    parser.add_argument("--seeds", type=int, nargs="+", default=[11, 12], help="7: tuned on")
    parser.add_argument("--arms", type=int, nargs="+", default=[default])
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, help="of crowds")
    parser.add_argument("--events", type=int, default=200, help="of each fake user")
    parser.add_argument("--targets", type=int, default=3, help="items pushed, one at a time")
    parser.add_argument("--runs", type=Path, help="folder of finished rounds")
    parser.add_argument("--name", default="abuse", help="of the result file")
    asked = parser.parse_args()
    started_load = load_average()
    runs: list[Result] = []
    with tempfile.TemporaryDirectory() as folder:
        for seed in asked.seeds:
            attacks = _Attacks(seed, asked.events, asked.runs or Path(folder))
            runs += attacks.all(asked.targets, asked.kinds, asked.arms)
    worst: dict[str, float] = {}
    for arm in map(_name, asked.arms):
        found = [run["ratios"][f"{kind}, {arm}"] for run in runs for kind in asked.kinds]
        worst[arm] = max(found)
    report(
        asked.name,
        asked.seeds[0],
        vars(asked),
        started_load,
        data="movielens-100k with synthetic fake users",
        default=_name(default),
        runs=runs,
        worst=worst,
        bar=BAR,
        is_met=worst.get(_name(default), np.inf) <= BAR,
    )


def _name(arm: int) -> str:
    return str(arm) if arm else "all"


class _Attacks:
    """All rounds of one seed."""

    def __init__(self, seed: int, events: int, folder: Path) -> None:
        self._seed, self._events, self._folder = seed, events, folder
        self._made: World | None = None
        self._honest: Candidate | None = None

    def all(self, targets: int, kinds: Sequence[str], arms: Sequence[int]) -> list[Result]:
        honest = self._run("honest", 0, None)
        users = len(self._world.users)
        fitting = np.flatnonzero((honest >= 0.01 * users) & (honest <= 0.05 * users))
        drawn = np.random.default_rng(self._seed).permutation(fitting)[:targets].tolist()
        found: list[Result] = []
        for target in drawn:
            ratios = {}
            for kind in kinds:
                for arm in arms:
                    before = int(honest[target])
                    if kind == TRENDING:
                        before, after = self._trending(target)
                    else:
                        run = self._run(f"{target}-{kind}-{arm}", arm, (target, kind))
                        after = int(run[target])
                    ratios[f"{kind}, {_name(arm)}"] = round(after / before, 3)
                    say(f"seed {self._seed}, {target}, {kind}, {_name(arm)}: {before} to {after}")
            found.append(
                {
                    "seed": self._seed,
                    "users": users,
                    "fake_users": crowd_size(self._world),
                    "honest_users_shown": int(honest[target]),
                    "ratios": ratios,
                }
            )
        return found

    @property
    def _world(self) -> World:
        if self._made is None:
            self._made = make_world(self._seed)
        return self._made

    def _trending(self, target: int) -> tuple[int, int]:
        """To how many real users the target is shown, lists lifted, without and with the crowd."""
        if self._honest is None:
            self._honest = self._world.train(self._world.users, {}).release
        rng = np.random.default_rng([self._seed, target, KINDS.index(TRENDING)])
        crowd = fake_users(self._world, target, TRENDING, 1, rng)
        without, with_it = (
            int(self._world.shown(self._honest, self._world.lifts(self._honest, more))[target])
            for more in ((), crowd)
        )
        return max(without, 1), with_it

    def _run(
        self, name: str, arm: int, attack: tuple[int, str] | None
    ) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        kept = self._folder / f"{self._seed}-{name}.json"
        if kept.exists():
            return np.array(msgspec.json.decode(kept.read_bytes(), type=Run).shown)
        users = list(self._world.users)
        if attack is not None:
            target, kind = attack
            rng = np.random.default_rng([self._seed, target, KINDS.index(kind)])
            users += fake_users(self._world, target, kind, self._events, rng)
        changed = {"user_item_events": arm}
        shown = self._world.shown(self._world.train(users, changed).release)
        self._folder.mkdir(parents=True, exist_ok=True)
        kept.write_bytes(msgspec.json.encode(Run(shown.tolist())))
        return shown


if __name__ == "__main__":
    main()
