"""From runs to figures: prequential quality, the matrix R, what was forgotten, and the bars.

How rounds learn is what is compared, so figures are those of the releases alone; `served` has them
as workers serve, their scores lifted by what the stream turned to lately (`profiles.trend`), which
helps whoever learns little.

Prequential figures are over blocks 2 to B unless they say otherwise: block 1 is ranked with the
base release by every strategy, so including it only pulls all of them together.

R[i][j] is NDCG@10 of the model after block i on the held events of period j (0 is the base), each
with the user's history as it was then.  Backward transfer, forgetting and plasticity are the
learner's own functions of it (learner/evaluation.py).  The cells hold a few hundred events each,
so seeds (which hold different events) are pooled before any maximum is taken: forgetting is a
difference of a maximum and would grow with the noise.

Intervals: users drawn with replacement, the same draws for every strategy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from benchmarks.continual.running import Run
from benchmarks.continual.timeline import Timeline, make_groups
from benchmarks.harness import Result
from benchmarks.offline.figures import Draws, Interval, seed_mean
from benchmarks.offline.histories import Bools, Doubles, Ints
from learner.evaluation import backward_transfer, forgetting, plasticity
from profiles.evaluation import gains

ENDS = (0.025, 0.975)
OF_MATRIX: Mapping[str, Callable[[Sequence[Sequence[float]]], float]] = {
    "backward_transfer": backward_transfer,
    "forgetting": forgetting,
    "plasticity": plasticity,
}


@dataclass(frozen=True, slots=True)
class Study:
    """All runs of all strategies over the timelines of the seeds (which differ in what is held)."""

    timelines: Mapping[int, Timeline]
    runs: Mapping[str, Sequence[Run]]

    @property
    def blocks(self) -> int:
        """How many blocks come after the base."""
        return self.any_timeline.blocks

    @property
    def any_timeline(self) -> Timeline:
        """Users, items and periods are the same for every seed."""
        return next(iter(self.timelines.values()))


def figures(study: Study, seed: int) -> Result:
    """Everything of every strategy, and the bars of the default."""
    slices = _slices(study)
    users = study.any_timeline.data.users
    draws = {name: Draws(users[inside], seed) for name, inside in slices.items()}
    matrices = {name: _Matrices(study, runs, seed) for name, runs in study.runs.items()}
    found: Result = {
        name: {
            **_quality(runs, slices, draws),
            **matrices[name].figures(),
            **_cost(runs),
        }
        for name, runs in study.runs.items()
    }
    sizes = {name: int(inside.sum()) for name, inside in slices.items()}
    return {"events": sizes, "strategies": found, "bars": _bars(study, slices, draws, matrices)}


def _slices(study: Study) -> dict[str, Bools]:
    """Which ranked events count where.  Shapes: (N,) each."""
    timeline = study.any_timeline
    ranked = timeline.asked() & (timeline.periods > 0)
    later = ranked & (timeline.periods > 1)
    blocks = {
        f"block_{number}": ranked & (timeline.periods == number)
        for number in range(1, study.blocks + 1)
    }
    groups = {name: inside & later for name, inside in make_groups(timeline).items()}
    return {"later": later, "all": ranked, **groups, **blocks}


def _quality(
    runs: Sequence[Run], slices: Mapping[str, Bools], draws: Mapping[str, Draws]
) -> Result:
    found: Result = {}
    for name, inside in slices.items():
        ranks = [run.ranks[inside] for run in runs]
        hits: Doubles = np.mean([(r > 0) & (r <= 10) for r in ranks], axis=0)
        found[name] = {
            "ndcg10": asdict(draws[name].interval(seed_mean(ranks))),
            "hr10": asdict(draws[name].interval(hits)),
            "ndcg10_by_seed": [float(gains(r).mean()) if len(r) else 0.0 for r in ranks],
        }
    for name in ("later", "cold_items"):
        served = seed_mean([run.served_ranks[slices[name]] for run in runs])
        found[name]["served_ndcg10"] = asdict(draws[name].interval(served))
    return found


def _cost(runs: Sequence[Run]) -> Result:
    """Per round, mean over seeds."""
    examples = np.mean([run.examples for run in runs], axis=0)
    seconds = np.mean([run.seconds for run in runs], axis=0)
    return {
        "examples": [round(float(value)) for value in examples],
        "examples_mean": round(float(examples.mean())),
        "cpu_seconds": [round(float(value), 1) for value in seconds],
        "cpu_seconds_mean": round(float(seconds.mean()), 1),
        "gate_promoted_share": float(np.mean([run.promoted for run in runs])),
    }


class _Matrices:
    """R of one strategy: pooled over seeds, of each seed, and in each bootstrap draw.

    Shapes: `pooled` (B+1, B+1), `by_seed` the same each, `drawn` (draws, B+1, B+1).
    """

    def __init__(self, study: Study, runs: Sequence[Run], seed: int) -> None:
        users, periods, values = [], [], []
        for run in runs:
            timeline = study.timelines[run.seed]
            held = timeline.held & timeline.asked()
            users.append(timeline.data.users[held])
            periods.append(timeline.periods[held])
            values.append(np.stack([gains(ranks[held]) for ranks in run.held_ranks]))
        self.by_seed = [
            _cells(value, period, study.blocks)
            for value, period in zip(values, periods, strict=True)
        ]
        value, period = np.concatenate(values, axis=1), np.concatenate(periods)
        self.pooled = _cells(value, period, study.blocks)
        draws = Draws(np.concatenate(users), seed)
        self.drawn = np.empty((len(draws.means(value[0])), *self.pooled.shape))
        for column in range(study.blocks + 1):
            inside = (period == column).astype(np.float64)
            weight = np.maximum(draws.means(inside), 1e-12)
            for row in range(study.blocks + 1):
                self.drawn[:, row, column] = draws.means(value[row] * inside) / weight

    def figures(self) -> Result:
        """The matrix and what follows from it."""
        found: Result = {"matrix": np.round(self.pooled, 4).tolist()}
        for name, of in OF_MATRIX.items():
            found[name] = asdict(self.interval(of))
            found[name]["by_seed"] = [of(_lower(matrix)) for matrix in self.by_seed]
        return found

    def interval(self, of: Callable[[Sequence[Sequence[float]]], float]) -> Interval:
        """A figure of the matrix, with its interval."""
        low, high = np.quantile(self.of_draws(of), ENDS)
        return Interval(of(_lower(self.pooled)), float(low), float(high))

    def of_draws(self, of: Callable[[Sequence[Sequence[float]]], float]) -> Doubles:
        """The figure in each draw.  Shapes: -> (draws,)."""
        return np.array([of(_lower(matrix)) for matrix in self.drawn])


def _cells(values: Doubles, periods: Ints, blocks: int) -> Doubles:
    """Means by period.  Shapes: values (B+1, H), periods (H,) -> (B+1, B+1)."""
    columns = [values[:, periods == column].mean(axis=1) for column in range(blocks + 1)]
    return np.stack(columns, axis=1)


def _lower(matrix: Doubles) -> list[list[float]]:
    """Only what had happened: row i holds periods 0 to i."""
    return [row[: number + 1].tolist() for number, row in enumerate(matrix)]


def _bars(
    study: Study,
    slices: Mapping[str, Bools],
    draws: Mapping[str, Draws],
    matrices: Mapping[str, _Matrices],
) -> Result:
    """The default against full retraining and naive fine-tuning; ratios are paired."""
    if not {"default", "naive", "full"} <= set(study.runs):
        return {}

    def ratio(other: str, name: str, of: str = "ranks") -> Result:
        mine, theirs = (
            seed_mean([getattr(run, of)[slices[name]] for run in study.runs[who]])
            for who in ("default", other)
        )
        return asdict(draws[name].ratio(mine, theirs))

    def share(other: str) -> float:
        mine, theirs = (
            float(np.mean([run.examples for run in study.runs[who]])) for who in ("default", other)
        )
        return mine / theirs

    mine, naive = matrices["default"], matrices["naive"]
    lost = mine.interval(forgetting).mean, naive.interval(forgetting).mean
    to_full, to_naive = ratio("full", "later"), ratio("naive", "later")
    groups = {name: ratio("naive", name) for name in ("new_users", "returning_users")}
    return {
        "served_over_full": ratio("full", "later", "served_ranks"),
        "served_over_naive": ratio("naive", "later", "served_ranks"),
        "ndcg_over_full": {**to_full, "bar": 0.99, "met": to_full["mean"] >= 0.99},
        "examples_over_full": {
            "mean": share("full"), "bar": 0.15, "met": share("full") <= 0.15
        },
        "ndcg_over_naive": {**to_naive, "bar": 1.05, "met": to_naive["mean"] >= 1.05},
        "forgetting": {
            "default": lost[0], "naive": lost[1], "bar": "at most half of naive's",
            "met": lost[0] <= 0.5 * lost[1],
            "backward_transfer_difference": _difference(mine, naive),
        },
        **{
            f"{name}_over_naive": {**found, "bar": 1.0, "met": found["mean"] >= 1.0}
            for name, found in groups.items()
        },
    }  # fmt: skip


def _difference(mine: _Matrices, naive: _Matrices) -> Result:
    """Backward transfer of the default less naive's, paired."""
    pooled = mine.interval(backward_transfer).mean - naive.interval(backward_transfer).mean
    drawn = mine.of_draws(backward_transfer) - naive.of_draws(backward_transfer)
    low, high = np.quantile(drawn, ENDS)
    return asdict(Interval(pooled, float(low), float(high)))


def table(found: Result) -> str:
    """A Markdown table of the strategies."""
    head = (
        "strategy", "NDCG@10", "as served", "HR@10", "new users", "returning", "cold items",
        "backward transfer", "forgetting", "plasticity", "examples/round", "CPU s/round",
    )  # fmt: skip
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for name, of in found["strategies"].items():
        cells = [
            name,
            _told(of["later"]["ndcg10"]),
            f"{of['later']['served_ndcg10']['mean']:.4f}",
            f"{of['later']['hr10']['mean']:.4f}",
            *(f"{of[g]['ndcg10']['mean']:.4f}" for g in ("new_users", "returning_users")),
            f"{of['cold_items']['ndcg10']['mean']:.4f}",
            *(_told(of[figure]) for figure in OF_MATRIX),
            f"{of['examples_mean']:,}",
            f"{of['cpu_seconds_mean']:.1f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _told(interval: Mapping[str, float]) -> str:
    return f"{interval['mean']:.4f} ({interval['low']:.4f} to {interval['high']:.4f})"
