"""Rounds as the service sees them: start one, resume one, announce what it came to.

The order in which things become durable is what makes a kill harmless:

    plan saved → round trained (checkpoints) → release in the store → outcome saved
    → notices acknowledged → buffer says the events are learned → plan, outcome, checkpoint removed

A learner that starts finds the last of these that was reached and goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from kafka import KafkaProducer

from learner.announcing import STALE, Announcer
from learner.bootstrap import bootstrap_from
from learner.feeds import BoardFeed
from learner.jobs import Job, told_out_of_memory
from learner.opening import open_trusted
from learner.priority import Priority
from learner.private_steps import require_private
from learner.replay import ReplayBuffer
from learner.retention import remove_old
from learner.round_files import Finished, RoundFiles
from learner.round_types import Hooks, RoundCancelled
from learner.rounds import (
    Outcome,
    Plan,
    plan_round,
    round_identity,
    run_round,
)
from learner.sealed_disk import LearnerKeys
from learner.team import Team
from learner.tracking import told
from learner.unknown_tokens import show_unknown, tell_unknown
from profiles.config import Settings
from profiles.errors import LearnerError, ReleaseError
from profiles.logs import get_logger
from profiles.manifest import read_manifest
from profiles.metrics import LearnerMetrics
from profiles.registry import ReleaseStore
from profiles.release import Release
from profiles.tracing import NO_TRACES, Traces

log = get_logger("learner.rounds")

LEARNED_FROM = ("shadow", "canary", "serving")
"""Releases that an erasure's receipt names: whoever is or may be served by them."""


class Rounds:
    """Owns the one job that may run, and the files that let it survive a kill."""

    def __init__(
        self,
        settings: Settings,
        buffer: ReplayBuffer,
        board: BoardFeed,
        producer: KafkaProducer,
        store: ReleaseStore,
        directory: Path,
        metrics: LearnerMetrics,
        team: Team | None = None,
        keys: LearnerKeys | None = None,
        traces: Traces = NO_TRACES,
    ) -> None:
        self._team, self._traces = team, traces
        self._settings, self._buffer, self._board = settings, buffer, board
        self._store, self._metrics = store, metrics
        self._directory = directory
        self._files = RoundFiles(directory, keys)
        self._announcer = Announcer(settings, board, producer, metrics)
        self._job: Job[Finished] | None = None
        self._plan: Plan | None = None
        self._plan_users: set[int] = set()
        self._begun_s = 0.0
        self.parent: Release | None = None
        self.owes_round = False
        """An erasure took releases away: what they knew is to be learned again, at once."""

    # -- the parent -----------------------------------------------------------------------------

    def find_parent(self) -> bool:
        """Open whatever serves now.  Returns: whether anything does.

        Raises: ReleaseRefused when the serving release does not fit these settings; SettingsError
        when it has no private lineage and `learner.dp_noise` asks for one.
        """
        notice = self._board.board.serving()
        if notice is None:
            return False
        if self.parent is None or self.parent.release_id != notice.release_id:
            self.parent = open_trusted(self._settings, self._store, notice.release_id)
            show_unknown(self.parent.manifest, self._metrics)
            require_private(self._settings.learner, self.parent.manifest)
        return True

    # -- starting -------------------------------------------------------------------------------

    def is_busy(self) -> bool:
        """Whether a job runs, or its result waits to be taken."""
        return self._job is not None

    def start_bootstrap(self) -> None:
        """Make the first release from the catalogue as it is."""
        catalogue = self._board.catalogue.snapshot()
        sequence = self._board.board.next_sequence()
        log.info("making the first release", items=len(catalogue))

        def work(is_cancelled: Callable[[], bool]) -> Finished:
            manifest = bootstrap_from(
                self._settings,
                catalogue,
                self._store,
                sequence=sequence,
                keep_text=self._directory,
            )
            return self._files.end(Finished(0, manifest.release_id, True, "first release"))

        self._start("bootstrap", work)

    def resume(self) -> bool:
        """Go on with what a killed learner left.  Returns: whether there was anything."""
        plan = self._files.plan()
        if plan is None:
            return False
        fits = plan.number == self._buffer.rounds + 1
        if fits and self.parent is not None and plan.parent_id == self.parent.release_id:
            log.info("resuming a round", number=plan.number)
            self._launch(plan)
            return True
        self._clear()
        return False

    def start_round(self, reason: str, offsets: dict[str, int]) -> None:
        """Plan a round, write the plan down and train."""
        assert self.parent is not None, "a round has a parent"
        self.owes_round = False
        plan = plan_round(self._buffer, self.parent.manifest, self._settings, reason, offsets)
        self._files.begin(plan)
        log.info("round starting", number=plan.number, due_by=reason, events=plan.fresh_events)
        self._launch(plan)

    def _launch(self, plan: Plan) -> None:
        assert self.parent is not None, "a round has a parent"
        parent, catalogue = self.parent, self._board.catalogue.snapshot()
        sequence = self._board.board.next_sequence()
        identity = round_identity(plan, catalogue, self._settings)
        seal, unseal = self._files.seals()

        def work(is_cancelled: Callable[[], bool]) -> Finished:
            on_failure = self._metrics.tracker_failures.inc
            with told(self._settings, f"round-{plan.number}", on_failure) as figures:
                hooks = Hooks(
                    self._report,
                    is_cancelled,
                    self._files.checkpoint,
                    identity,
                    figures=figures,
                    team=self._team,
                    seal=seal,
                    unseal=unseal,
                )
                span = self._traces.span(
                    "driftline.learning_round", number=plan.number, due_by=plan.reason
                )
                with span as told_round, told_out_of_memory(plan.number):
                    outcome = run_round(
                        self._settings, plan, catalogue, parent, self._store, sequence,
                        self._directory, hooks,
                    )  # fmt: skip
                    told_round.note(
                        release=outcome.manifest.release_id,
                        promoted=outcome.decision.promote,
                        events=plan.fresh_events,
                        **{f"seconds.{stage}": took for stage, took in outcome.seconds.items()},
                    )
            self._measure(outcome)
            return self._files.end(
                Finished(
                    plan.number,
                    outcome.manifest.release_id,
                    outcome.decision.promote,
                    outcome.decision.reason,
                )
            )

        self._plan, self._plan_users = plan, plan.users()
        self._start("round", work)

    def _start(self, name: str, work: Callable[[Callable[[], bool]], Finished]) -> None:
        self._begun_s = time.monotonic()
        self._metrics.round_running.set(1)
        learner = self._settings.learner
        self._job = Job(name, work, Priority(learner.nice, learner.scheduling))

    # -- ending ---------------------------------------------------------------------------------

    def conclude(self) -> bool:
        """Announce what the job came to, once it has ended.  Returns: whether a round ended.

        A round that diverged or ran out of memory is counted and dropped; its events become
        examples like others, so that the next round has others beside them.  Any other error is
        raised here.
        """
        if self._job is None:
            return self._conclude_saved()
        if not self._job.is_done():
            if self._is_stale():
                self._job.cancel()
            return False
        job, self._job = self._job, None
        self._metrics.round_running.set(0)
        try:
            finished = job.result()
        except RoundCancelled:
            self._clear()
            return False
        except LearnerError as error:
            if self._plan is None:
                raise
            log.error("round failed", number=self._plan.number, error=str(error))
            self._metrics.rounds.labels("failed").inc()
            self._learned(self._plan)
            return True
        self._announce(finished)
        return finished.number > 0

    def _is_stale(self) -> bool:
        """Whether another release serves than the one this round improves on."""
        serving = self._board.board.serving()
        return (
            self._plan is not None
            and serving is not None
            and serving.release_id != self._plan.parent_id
        )

    def _conclude_saved(self) -> bool:
        """An outcome that a killed learner saved and perhaps announced."""
        finished = self._files.finished()
        if finished is None:
            return False
        self._plan = self._files.plan()
        self._announce(finished)
        return finished.number > 0

    def _announce(self, finished: Finished) -> None:
        board, plan = self._board.board, self._plan
        manifest = read_manifest(self._store.fetch(finished.release_id))
        tell_unknown(manifest, self._settings, self._metrics)
        self._announcer.verdict(finished, manifest)
        remove_old(self._store, board, self._settings.store.keep_releases)
        newest = board.get(finished.release_id)
        is_next = plan is not None and plan.number == self._buffer.rounds + 1
        if plan is None or newest is None or not is_next or newest.reason.startswith(STALE):
            # The events of a stale round stay fresh: whoever serves now has not learned them.
            self._clear()
            return
        if newest.status in LEARNED_FROM:
            self._buffer.note_release(finished.release_id, plan.upto)
        self._learned(plan)

    def _learned(self, plan: Plan) -> None:
        self._buffer.finish_round(plan.upto, plan.border, plan.period)
        self._metrics.round_seconds.labels("total").observe(time.monotonic() - self._begun_s)
        self._clear()

    # -- going back -------------------------------------------------------------------------------

    def go_back(self, affected: set[str]) -> str | None:
        """Let the last ancestor serve that is none of these releases, and learn anew from there.

        Everything after it is withdrawn (`erased`).  Returns: its id, or None where no release of
        ours stands on them or no ancestor is in the store any more.
        """
        board = self._board.board
        found = board.serving()
        while found is not None and found.release_id in affected:
            found = board.get(found.parent_id) if found.parent_id else None
        if found is None:
            return None
        self.stop(None)
        self._clear()
        try:
            open_trusted(self._settings, self._store, found.release_id)
        except ReleaseError as error:
            log.warning("no way back", release=found.release_id, error=str(error))
            return None
        reason = "an erasure asked for a model without the user's events"
        withdrawn = self._announcer.go_back_to(found, affected, reason)
        self._buffer.rewind(self._buffer.learned_by(found.release_id) or 1)
        self.parent = None
        self.owes_round = self._buffer.fresh_events > 0
        log.info("went back", release=found.release_id, withdrawn=withdrawn)
        return found.release_id

    # -- stopping -------------------------------------------------------------------------------

    def drop_if_about(self, users: set[int]) -> None:
        """Drop a planned round that learns from any of these users, whether it runs or not."""
        if self._job is None and self._plan is None:
            plan = self._files.plan()
            self._plan_users = plan.users() if plan is not None else set()
        if users & self._plan_users:
            log.info("round dropped: it held the events of an erased user")
            self.stop(None)
            self._clear()

    def stop(self, timeout_s: float | None) -> None:
        """Cancel the job at its next step and wait (None: as long as it takes)."""
        if self._job is not None:
            self._job.cancel()
            ended = self._job.join(timeout_s)
            if not ended:
                log.warning("the round did not stop in time; its checkpoint stands")
            self._job = None
        self._metrics.round_running.set(0)

    def _clear(self) -> None:
        self._files.clear()
        self._plan, self._plan_users = None, set()

    # -- from the job's thread ------------------------------------------------------------------

    def _report(self, stage: str, done: int, of: int, loss: float) -> None:
        self._metrics.loss.labels(stage).set(loss)
        log.debug("training", stage=stage, done=done, of=of, loss=loss)

    def _measure(self, outcome: Outcome) -> None:
        phases = {"polish": "head", "encode": "lora"}
        for name, seconds in outcome.seconds.items():
            self._metrics.round_seconds.labels(phases.get(name, name)).observe(seconds)
        self._metrics.epsilon.set(outcome.manifest.metrics.get("privacy_epsilon", 0.0))
        figures = outcome.decision.figures
        for who in ("parent", "candidate"):
            for part in ("recent", "long_ago"):
                self._metrics.quality.labels(who, part).set(figures[f"{part}_ndcg10_{who}"])
