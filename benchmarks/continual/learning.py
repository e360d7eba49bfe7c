"""Learning from a timeline with the product's own round code, and nothing else.

    base      replay buffer ← events of the base → plan_round → run_round, once per seed, shared
    rounds    the same after every block, from the release that serves then
    retrain   run_round from the first release, on a plan that holds every event seen

Retraining holds out as many of the newest events as a round does, so that both stop early on the
same evidence; held out by share, a tenth of everything, it would never see the last two blocks.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.continual.strategies import Strategy
from benchmarks.continual.timeline import Timeline
from learner.bootstrap import bootstrap_from
from learner.checkpoint import segments_to_bytes
from learner.records import Row
from learner.replay import ReplayBuffer
from learner.round_types import Hooks
from learner.rounds import Plan, plan_round, run_round
from learner.sampling import ActionWeights, holdout_border
from learner.segments import segments_of_rows
from profiles.config import Settings
from profiles.expected import expected_by
from profiles.registry import ReleaseStore
from profiles.release import Release, open_release

TOPIC = "timeline"


@dataclass(frozen=True, slots=True)
class Learned:
    """One round: the release that serves after it, and what it cost.

    `examples`: predicted events, each time they were; `promoted`: whether the gate, had it been
    asked, would have let the candidate serve.
    """

    release: Release
    seconds: float
    examples: int
    promoted: bool


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where one seed's releases are kept, so that strategies share the first and the base one."""

    settings: Settings
    directory: Path

    @property
    def store(self) -> ReleaseStore:
        """The release store of this seed."""
        return ReleaseStore(self.settings.store.releases, self.directory / "cache")

    def open(self, release_id: str) -> Release:
        """A release of the store, verified."""
        return open_release(self.store.fetch(release_id), expected_by(self.settings))

    def first_release(self, timeline: Timeline) -> Release:
        """The release made from texts alone."""
        return self._kept(
            "first",
            lambda: (
                bootstrap_from(
                    self.settings, timeline.catalogue, self.store, keep_text=self.directory
                ).release_id
            ),
        )

    def base_release(self, timeline: Timeline) -> Release:
        """The release trained on the base, the same for all strategies."""
        return self._kept("base", lambda: self._learn_base(timeline))

    def _learn_base(self, timeline: Timeline) -> str:
        with tempfile.TemporaryDirectory(dir=self.directory) as folder:
            learner = Learner(Strategy("base", ""), self, timeline, Path(folder))
            found = learner.learn_base().release.release_id
            learner.close()
        return found

    def _kept(self, name: str, make: Callable[[], str]) -> Release:
        """A release that is made once; its name stands in a file."""
        file = self.directory / name
        if not file.exists():
            file.write_text(make())
        return self.open(file.read_text())

    def train(self, settings: Settings, plan: Plan, timeline: Timeline, parent: Release) -> Learned:
        """Run a planned round.  `seconds` are CPU seconds of this process."""
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            folder = Path(name)
            # The learner keeps the texts of two releases; here several rounds share a parent.
            shutil.copy(self._texts(parent.release_id), folder)
            begun = time.process_time()
            outcome = run_round(
                settings, plan, timeline.catalogue, parent, self.store,
                parent.manifest.sequence + 1, folder, Hooks(),
            )  # fmt: skip
            seconds = time.process_time() - begun
            made = outcome.manifest.release_id
            shutil.copy(folder / self._texts(made).name, self._texts(made))
        examples = int(outcome.manifest.metrics["examples"])
        return Learned(self.open(made), seconds, examples, outcome.decision.promote)

    def _texts(self, release_id: str) -> Path:
        """Where the text vectors of a release lie (learner/text_cache.py)."""
        return self.directory / f"text-{release_id}.safetensors"


class Learner:
    """One strategy on its way through the timeline; `buffer` is an empty folder of its own."""

    def __init__(
        self, strategy: Strategy, workshop: Workshop, timeline: Timeline, buffer: Path
    ) -> None:
        self.strategy, self._workshop, self._timeline = strategy, workshop, timeline
        self._first = workshop.first_release(timeline)
        self._settings = with_learner(workshop.settings, strategy.learner)
        learner = self._settings.learner
        self._buffer = ReplayBuffer(
            buffer,
            buffer_bytes=learner.buffer_bytes,
            sequence_length=learner.sequence_length,
            seed=learner.seed,
            actions=ActionWeights.from_settings(self._settings.actions).names,
        )
        self._seen: list[Row] = []

    def close(self) -> None:
        """Let go of the buffer."""
        self._buffer.close()

    def learn_base(self) -> Learned:
        """Train the base release from the base's events."""
        plan = self._plan(self._first, 0)
        return self._workshop.train(self._settings, plan, self._timeline, self._first)

    def remember_base(self) -> None:
        """Leave the buffer as the round on the base would, without training it again."""
        plan = self._plan(self._first, 0)
        self._buffer.finish_round(plan.upto, plan.border, plan.period)

    def learn_block(self, period: int, serving: Release) -> Learned:
        """Learn after a block.  Returns: the release that serves from then on."""
        if self.strategy.mode == "none":
            return Learned(serving, 0.0, 0, True)
        if self.strategy.mode == "retrain":
            plan = self._plan_of_everything(period)
            return self._workshop.train(self._settings, plan, self._timeline, self._first)
        plan = self._plan(serving, period)
        learned = self._workshop.train(self._settings, plan, self._timeline, serving)
        self._buffer.finish_round(plan.upto, plan.border, plan.period)
        if self.strategy.gated and not learned.promoted:
            return Learned(serving, learned.seconds, learned.examples, False)
        return learned

    def _plan(self, parent: Release, period: int) -> Plan:
        rows = self._timeline.rows(period)
        self._seen += rows
        self._buffer.ingest(TOPIC, rows, {0: rows[-1].offset + 1})
        return plan_round(self._buffer, parent.manifest, self._settings, "count", {})

    def _plan_of_everything(self, period: int) -> Plan:
        new = self._timeline.rows(period)
        self._seen += new
        segments = segments_of_rows(self._seen)
        share = self._settings.learner.holdout_share * len(new) / len(self._seen)
        return Plan(
            number=period + 1,
            parent_id=self._first.release_id,
            upto=len(self._seen) + 1,
            border=holdout_border(segments, share),
            period=1,
            reason="count",
            fresh_events=len(self._seen),
            offsets={},
            fresh=segments_to_bytes(segments),
            past=segments_to_bytes([]),
            exams={},
        )


def with_learner(settings: Settings, changes: dict[str, Any]) -> Settings:
    """Settings with some of the section `learner` changed.  Any: values of any setting."""
    learner = settings.learner.model_validate({**settings.learner.model_dump(), **changes})
    return settings.model_copy(update={"learner": learner})
