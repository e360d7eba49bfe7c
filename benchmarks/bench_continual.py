"""Does the learner go on learning, at a fraction of the price, without forgetting?

Prequential, strictly test-then-learn (protocol (c) of the quality benchmark): a base is learned
from the first 60% of the events, the rest comes in eight equal blocks.  Every event of a block is
ranked against the whole catalogue, less what the user had before, by the release that serves then;
only after its last event does a strategy learn from it.  benchmarks/continual/strategies.py lists
them; figures.py says how to read what comes out.

    make bench-continual [BENCH_ARGS="--jobs 2"]
    make bench-continual BENCH_ARGS="--smoke"                        # two minutes, means nothing
    make bench-continual BENCH_ARGS="--data movielens --path ~/ml-1m --seeds 1"
    make bench-continual BENCH_ARGS="--tuning"                       # inside the base, for choices

The language model's adapter is not trained here by default (`--lora-steps 0`, for every strategy):
on film titles it made no difference (docs/log.md), and it would take most of the time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from benchmarks.continual.figures import Study, figures, table
from benchmarks.continual.learning import Workshop
from benchmarks.continual.running import load_run, run_strategy
from benchmarks.continual.strategies import STRATEGIES, strategy_named
from benchmarks.continual.timeline import COLD_EVENTS, RETURN_GAP_S, Timeline, make_timeline
from benchmarks.harness import load_average, report, say
from benchmarks.offline.interactions import Interactions, load_interactions
from profiles.config import load_settings

BASE_SHARE = 0.6
TUNING_BASE_SHARE = 0.4
SMOKE_USERS = 200


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run on.  `begin` and `end` are the shares of events where blocks begin and end."""

    data: str
    path: Path | None
    begin: float
    end: float
    blocks: int
    held_share: float
    lora_steps: int
    smoke: bool
    runs: Path

    def interactions(self) -> Interactions:
        """The data set, smaller for a smoke test."""
        found = load_interactions(self.data, self.path)
        return found.some_users(SMOKE_USERS, 0) if self.smoke else found

    def prepare(self, seed: int) -> tuple[Workshop, Timeline]:
        """A seed's folder of releases, and the stream."""
        directory = self.runs / f"seed-{seed}"
        directory.mkdir(parents=True, exist_ok=True)
        learner = {"seed": seed, "lora_steps": self.lora_steps}
        settings = load_settings(
            store={"directory": str(directory), "releases": str(directory / "releases")},
            learner=learner | ({"epochs": 3} if self.smoke else {}),
        )
        data = self.interactions()
        step = (self.end - self.begin) / self.blocks
        borders = [
            round(len(data) * (self.begin + step * number)) for number in range(self.blocks + 1)
        ]
        timeline = make_timeline(
            data, settings, borders=borders, held_share=self.held_share, seed=seed
        )
        return Workshop(settings, directory), timeline

    def kept(self, strategy: str, seed: int) -> Path:
        """Where a finished run lies."""
        return self.runs / f"{strategy}-{seed}.npz"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0] if __doc__ else None)
    names = [strategy.name for strategy in STRATEGIES]
    parser.add_argument("--data", default="movielens", help="a data set of `driftline replay`")
    parser.add_argument("--path", type=Path, help="its file or folder")
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--held-share", type=float, default=0.1, help="of a block, for R alone")
    parser.add_argument("--seeds", type=int, default=3, help="how many")
    parser.add_argument("--seed", type=int, default=7, help="the first one")
    parser.add_argument("--only", help=f"some of {','.join(names)}")
    parser.add_argument("--jobs", type=int, default=1, help="processes, one core each")
    parser.add_argument("--lora-steps", type=int, default=0, help="language-model steps a round")
    parser.add_argument("--tuning", action="store_true", help="base 40%%, blocks up to 60%%")
    parser.add_argument("--smoke", action="store_true", help="200 users, 2 blocks, one seed")
    parser.add_argument("--runs", type=Path, help="keep finished runs here, and reuse them")
    parser.add_argument("--name", default="continual", help="of the result files")
    asked = parser.parse_args()
    started_load = load_average()
    with tempfile.TemporaryDirectory(prefix="driftline-continual-") as folder:
        plan = Plan(
            data=asked.data,
            path=asked.path,
            begin=TUNING_BASE_SHARE if asked.tuning else BASE_SHARE,
            end=BASE_SHARE if asked.tuning else 1.0,
            blocks=2 if asked.smoke else asked.blocks,
            held_share=asked.held_share,
            lora_steps=asked.lora_steps,
            smoke=asked.smoke,
            runs=asked.runs or Path(folder),
        )
        seeds = [asked.seed + number for number in range(1 if asked.smoke else asked.seeds)]
        chosen = asked.only.split(",") if asked.only else names
        _run_all(plan, chosen, seeds, asked.jobs)
        timelines = {seed: plan.prepare(seed)[1] for seed in seeds}
        runs = {
            name: [load_run(plan.kept(name, seed), name, seed) for seed in seeds] for name in chosen
        }
    data = next(iter(timelines.values())).data
    found = figures(Study(timelines, runs), asked.seed)
    _plot(found, asked.name, f"{data.name}, {len(seeds)} seeds")
    print(table(found))
    report(
        asked.name, asked.seed, vars(asked), started_load,
        data={"name": data.name, "events": len(data), "synthetic": data.synthetic},
        seeds=seeds,
        words={strategy.name: strategy.words for strategy in STRATEGIES},
        changed_settings={strategy.name: strategy.learner for strategy in STRATEGIES},
        return_gap_days=RETURN_GAP_S / 86_400.0,
        cold_events=COLD_EVENTS,
        **found,
    )  # fmt: skip


def _run_all(plan: Plan, chosen: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Bases first, since the strategies of a seed share one; then whatever is not there yet."""
    missing = [(n, s) for n in chosen for s in seeds if not plan.kept(n, s).exists()]
    # The dearest first, so that no core is idle at the end.
    missing.sort(key=lambda job: strategy_named(job[0]).mode != "retrain")
    bases = sorted({seed for _, seed in missing})
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=jobs, mp_context=spawn) as pool:
        for _ in pool.map(learn_base, [plan] * len(bases), bases):
            pass
        for _ in pool.map(
            run_one, [plan] * len(missing), [n for n, _ in missing], [s for _, s in missing]
        ):
            pass


def learn_base(plan: Plan, seed: int) -> None:
    """Train a seed's base release, if it is not there yet."""
    workshop, timeline = plan.prepare(seed)
    say(f"base, seed {seed}")
    workshop.base_release(timeline)


def run_one(plan: Plan, name: str, seed: int) -> None:
    """Run one strategy with one seed and keep what it did."""
    workshop, timeline = plan.prepare(seed)
    say(f"{name}, seed {seed}")
    with tempfile.TemporaryDirectory(prefix="driftline-buffer-") as buffer:
        run_strategy(strategy_named(name), workshop, timeline, Path(buffer)).save(
            plan.kept(name, seed)
        )
    say(f"{name}, seed {seed}: done")


def _plot(found: dict[str, object], name: str, title: str) -> None:
    # Only here: the child processes need no matplotlib.
    from benchmarks.continual.plots import plot_matrices, plot_quality

    plot_quality(found, name, title)
    plot_matrices(found, f"{name}-matrix", title)


if __name__ == "__main__":
    main()
