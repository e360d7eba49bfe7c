"""One strategy through one timeline, strictly test-then-learn, and what it did on every event.

block t: rank all its events with the release that serves → only then may the learner read
them → learn → measure the new release on the held events of all periods (a row of R)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.continual.learning import Learner, Workshop
from benchmarks.continual.strategies import Strategy, strategy_named
from benchmarks.continual.timeline import Timeline, make_timeline
from benchmarks.offline.histories import Bools, Ints
from benchmarks.offline.interactions import Interactions
from profiles.config import Settings
from profiles.evaluation import Lifts, prequential
from profiles.release import Release
from profiles.trend import Trend, TrendLog


@dataclass(frozen=True, slots=True)
class Run:
    """What one strategy did with one seed.

    Shapes: ranks (N,): rank of each event of blocks 1 to B before it was learned from, by the
    release alone, 0 where it was not ranked; served_ranks (N,): the same as workers serve it, with
    scores lifted by the trend; held_ranks (B+1, N): ranks of the held events of every period after
    the base and after each block; seconds (CPU), examples, promoted (B,).
    """

    strategy: str
    seed: int
    ranks: Ints
    served_ranks: Ints
    held_ranks: Ints
    seconds: npt.NDArray[np.float64]
    examples: Ints
    promoted: Bools

    def save(self, path: Path) -> None:
        """Keep it as .npz."""
        np.savez_compressed(
            path, ranks=self.ranks.astype(np.int32),
            served_ranks=self.served_ranks.astype(np.int32),
            held_ranks=self.held_ranks.astype(np.int32),
            seconds=self.seconds, examples=self.examples, promoted=self.promoted,
        )  # fmt: skip


def load_run(path: Path, strategy: str, seed: int) -> Run:
    """A run that was kept."""
    with np.load(path) as kept:
        return Run(
            strategy, seed, kept["ranks"].astype(np.int64), kept["served_ranks"].astype(np.int64),
            kept["held_ranks"].astype(np.int64),
            kept["seconds"], kept["examples"], kept["promoted"],
        )  # fmt: skip


def run_strategy(strategy: Strategy, workshop: Workshop, timeline: Timeline, buffer: Path) -> Run:
    """Go through all blocks.  `buffer` is an empty folder."""
    learner = Learner(strategy, workshop, timeline, buffer)
    learner.remember_base()
    serving, ranks = workshop.base_release(timeline), np.zeros(len(timeline.data), np.int64)
    asked = timeline.asked()
    held = timeline.held & asked
    trend, served_ranks = Trend.of(workshop.settings.serving), np.zeros_like(ranks)
    held_ranks, seconds, examples, promoted = [rank(timeline, serving, held)], [], [], []
    for period in range(1, timeline.blocks + 1):
        now = asked & (timeline.periods == period)
        ranks += rank(timeline, serving, now)
        served_ranks += rank(timeline, serving, now, trend)
        learned = learner.learn_block(period, serving)
        serving = learned.release
        held_ranks.append(rank(timeline, serving, held))
        seconds.append(learned.seconds)
        examples.append(learned.examples)
        promoted.append(learned.promoted)
    learner.close()
    return Run(
        strategy.name, workshop.settings.learner.seed, ranks, served_ranks, np.stack(held_ranks),
        np.array(seconds), np.array(examples), np.array(promoted),
    )  # fmt: skip


def rank(timeline: Timeline, release: Release, wanted: Bools, trend: Trend | None = None) -> Ints:
    """Ranks of the wanted events, each with the user's history, and the trend, as they were then.

    Shapes: wanted (N,) -> (N,), 0 where not wanted or not ranked.
    """
    users = [events for events in timeline.by_user() if wanted[events].any()]
    upto = [events[: int(np.flatnonzero(wanted[events])[-1]) + 1] for events in users]
    found = np.zeros(len(wanted), np.int64)
    table = release.items
    lifts = None
    if trend is not None:
        lifts = Lifts(TrendLog(trend, timeline.counted(), timeline.data.ts, table.counts), upto)
    assert np.array_equal(table.keys, timeline.catalogue.keys), "one catalogue throughout"
    ranked = prequential(
        release.head,
        table.vectors,
        table.bias,
        [timeline.sequence(events) for events in upto],
        [wanted[events] for events in upto],
        lifts=lifts,
    )
    for events, ranks in zip(upto, ranked, strict=True):
        found[events] = ranks
    return found


def default_ranks(
    data: Interactions, settings: Settings, borders: Sequence[int], directory: Path
) -> Ints:
    """What our default does prequentially, as workers serve it: the rank of each event from
    `borders[0]` on.

    For comparisons with others on the same blocks: nothing is held from the learner here.
    `borders`: the end of the base, then of each block; `directory`: an empty folder, whatever
    the settings say of stores.
    Shapes: -> (N,), 0 for the base and for repetitions, which cannot be recommended.
    """
    store = settings.store.model_copy(
        update={"directory": directory, "releases": str(directory / "releases")}
    )
    mine = settings.model_copy(update={"store": store})
    timeline = make_timeline(
        data, mine, borders=borders, held_share=0.0, seed=settings.learner.seed
    )
    workshop = Workshop(mine, directory)
    return run_strategy(
        strategy_named("default"), workshop, timeline, directory / "buffer"
    ).served_ranks
