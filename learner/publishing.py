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

import msgspec
from kafka import KafkaProducer

from learner.bootstrap import bootstrap_from
from learner.checkpoint import Seal, Unseal, as_it_is, write_atomically
from learner.feeds import BoardFeed
from learner.jobs import Job, told_out_of_memory
from learner.opening import open_trusted
from learner.priority import Priority
from learner.private_steps import require_private
from learner.release_log import announce, next_notice
from learner.replay import ReplayBuffer
from learner.retention import remove_old
from learner.rollout.stages import first_status
from learner.round_types import Hooks, RoundCancelled
from learner.rounds import (
    Outcome,
    Plan,
    load_plan,
    plan_round,
    round_identity,
    run_round,
    save_plan,
)
from learner.sealed_disk import LearnerKeys
from learner.team import Team
from learner.tracking import told
from learner.unknown_tokens import show_unknown, tell_unknown
from profiles.config import Settings
from profiles.errors import LearnerError, ReleaseError
from profiles.logs import get_logger
from profiles.manifest import Manifest, read_manifest
from profiles.metrics import LearnerMetrics
from profiles.notices import ReleaseNotice
from profiles.registry import ReleaseStore
from profiles.release import Release
from profiles.tracing import NO_TRACES, Traces

log = get_logger("learner.rounds")

STALE = "parent-changed"
DECIDED = ("shadow", "canary", "serving", "refused", "rolled-back")
LEARNED_FROM = ("shadow", "canary", "serving")
"""Releases that an erasure's receipt names: whoever is or may be served by them."""


class Finished(msgspec.Struct, frozen=True):
    """What a job came to, as saved before it is announced.  `number` 0 is the bootstrap."""

    number: int
    release_id: str
    promote: bool
    reason: str


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
        self._team, self._keys, self._traces = team, keys, traces
        self._settings, self._buffer, self._board = settings, buffer, board
        self._producer, self._store, self._metrics = producer, store, metrics
        self._directory = directory
        self._plan_path = directory / "round" / "plan.msgpack"
        self._outcome_path = directory / "round" / "outcome.json"
        self._checkpoint_path = directory / "round" / "checkpoint.safetensors"
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
            return self._save_outcome(Finished(0, manifest.release_id, True, "first release"))

        self._start("bootstrap", work)

    def resume(self) -> bool:
        """Go on with what a killed learner left.  Returns: whether there was anything."""
        plan = self._load_plan()
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
        self._checkpoint_path.unlink(missing_ok=True)
        save_plan(self._plan_path, plan, self._seals()[0])
        log.info("round starting", number=plan.number, due_by=reason, events=plan.fresh_events)
        self._launch(plan)

    def _launch(self, plan: Plan) -> None:
        assert self.parent is not None, "a round has a parent"
        parent, catalogue = self.parent, self._board.catalogue.snapshot()
        sequence = self._board.board.next_sequence()
        identity = round_identity(plan, catalogue, self._settings)
        seal, unseal = self._seals()

        def work(is_cancelled: Callable[[], bool]) -> Finished:
            on_failure = self._metrics.tracker_failures.inc
            with told(self._settings, f"round-{plan.number}", on_failure) as figures:
                hooks = Hooks(
                    self._report,
                    is_cancelled,
                    self._checkpoint_path,
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
            return self._save_outcome(
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
        try:
            finished = msgspec.json.decode(self._outcome_path.read_bytes(), type=Finished)
        except (OSError, msgspec.DecodeError):
            return False
        self._plan = self._load_plan()
        self._announce(finished)
        return finished.number > 0

    def _announce(self, finished: Finished) -> None:
        board, plan = self._board.board, self._plan
        manifest = read_manifest(self._store.fetch(finished.release_id))
        tell_unknown(manifest, self._settings, self._metrics)
        serving = board.serving()
        said = board.get(finished.release_id)
        if said is None or said.status not in DECIDED:
            now_serving = serving.release_id if serving is not None else None
            promote, reason = finished.promote, finished.reason
            frozen = self._board.policies.freeze
            if now_serving != manifest.parent_id:
                promote = False
                reason = f"{STALE}: {now_serving} serves now, not {manifest.parent_id}"
            self._say(manifest, "candidate", "trained" if finished.number else "made")
            # A first release has nothing to be compared with.
            passed = first_status(self._settings.rollout) if manifest.parent_id else "serving"
            if promote and frozen is not None and manifest.parent_id and passed == "serving":
                promote, reason = False, f"promotions are frozen: {frozen.reason}; {reason}"
            self._say(manifest, passed if promote else "refused", reason)
            outcome = "promoted" if promote else "refused"
            log.info(
                "release announced", release=manifest.release_id, outcome=outcome, reason=reason
            )
            if finished.number:
                self._metrics.rounds.labels(outcome).inc()
            if promote and passed == "serving":
                self._metrics.forgetting.set(manifest.metrics.get("forgetting", 0.0))
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

    def _say(self, manifest: Manifest, status: str, reason: str) -> None:
        notice = ReleaseNotice(
            release_id=manifest.release_id,
            status=status,
            sequence=self._board.board.next_sequence(),
            store_url=self._settings.store.releases,
            parent_id=manifest.parent_id,
            decided_at=time.time(),
            reason=reason,
            metrics=manifest.metrics,
        )
        announce(self._producer, self._settings, notice)
        # What we said we need not wait to read.
        self._board.board.put(notice)

    # -- going back -------------------------------------------------------------------------------

    def go_back(self, affected: set[str]) -> str | None:
        """Let the last ancestor serve that is none of these releases, and learn anew from there.

        Everything after it is withdrawn (`erased`).  Returns: its id, or None where no release of
        ours stands on them or no ancestor is in the store any more.
        """
        board = self._board.board
        serving = board.serving()
        found = serving
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
        withdrawn = [notice for notice in board.all() if notice.release_id in affected]
        now_s = time.time()
        notices: list[ReleaseNotice] = []
        if found is not serving:
            notices.append(next_notice(board, found, "serving", reason, now_s, {}))
            board.put(notices[0])
        for notice in withdrawn:
            notices.append(next_notice(board, notice, "erased", reason, now_s, {}))
            board.put(notices[-1])
        announce(self._producer, self._settings, *notices)
        self._buffer.rewind(self._buffer.learned_by(found.release_id) or 1)
        self.parent = None
        self.owes_round = self._buffer.fresh_events > 0
        log.info("went back", release=found.release_id, withdrawn=len(withdrawn))
        return found.release_id

    # -- stopping -------------------------------------------------------------------------------

    def drop_if_about(self, users: set[int]) -> None:
        """Drop a planned round that learns from any of these users, whether it runs or not."""
        if self._job is None and self._plan is None:
            plan = self._load_plan()
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
        for path in (self._outcome_path, self._plan_path, self._checkpoint_path):
            path.unlink(missing_ok=True)
        if self._keys is not None:
            self._keys.forget_round()
        self._plan, self._plan_users = None, set()

    def _load_plan(self) -> Plan | None:
        if not self._plan_path.is_file():
            return None
        return load_plan(self._plan_path, self._seals()[1])

    def _seals(self) -> tuple[Seal, Unseal]:
        """How the present round's files are sealed and opened."""
        if self._keys is None:
            return as_it_is, as_it_is
        vault = self._keys.round_vault()
        return vault.seal, vault.open

    # -- from the job's thread ------------------------------------------------------------------

    def _save_outcome(self, finished: Finished) -> Finished:
        write_atomically(self._outcome_path, msgspec.json.encode(finished))
        return finished

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
