"""The search that every method gets, ours and peers alike: random, within a budget of CPU seconds.

The first trial is the method's usual settings, the others are drawn from its space; the best on
the validation part wins.  A trial begins only while the budget has room for one of average cost.
CPU seconds, not wall clock: neighbours on the machine must not cost a method its trials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.offline.exchange import Settings, Value

MOST_TRIALS = 60


@dataclass(frozen=True, slots=True)
class Between:
    """A real setting from `low` to `high`, drawn on a log scale."""

    low: float
    high: float

    def draw(self, rng: np.random.Generator) -> float:
        drawn = math.exp(rng.uniform(math.log(self.low), math.log(self.high)))
        return float(f"{drawn:.3g}")


Space = Mapping[str, tuple[Value, ...] | Between]
Evaluate = Callable[[Settings], tuple[float, Settings]]
"""Settings -> (validation NDCG@10, the settings with what the trial found out, as epochs)."""


@dataclass(frozen=True, slots=True)
class Found:
    """The best settings, and how many were tried in how many CPU seconds."""

    settings: Settings
    score: float
    trials: int
    cpu_s: float


def draw(space: Space, rng: np.random.Generator) -> Settings:
    """One point of the space."""
    return {
        name: choice.draw(rng)
        if isinstance(choice, Between)
        else choice[int(rng.integers(len(choice)))]
        for name, choice in space.items()
    }


def search(
    space: Space,
    first: Settings,
    evaluate: Evaluate,
    budget_s: float,
    seed: int,
    clock: Callable[[], float],
) -> Found:
    """Try `first`, then draws of the space; `clock` counts CPU seconds."""
    rng = np.random.default_rng(seed)
    begun = clock()
    score, best = evaluate(first)
    tried = {tuple(sorted(first.items()))}
    trials = 1
    for _ in range(MOST_TRIALS * 4):
        spent = clock() - begun
        if trials >= MOST_TRIALS or not space or spent + spent / trials > budget_s:
            break
        settings = {**first, **draw(space, rng)}
        key = tuple(sorted(settings.items()))
        if key in tried:
            continue
        tried.add(key)
        trials += 1
        reached, settled = evaluate(settings)
        if reached > score:
            score, best = reached, settled
    return Found(best, score, trials, clock() - begun)
