"""Where rollouts are run: evidence is gathered, verdicts become notices.

Which stage a release is in stands on the `releases` topic alone: a learner that starts reads it
there.  The evidence of the stage is saved every few seconds, with the offsets up to which the
workers' reports are in it, so a killed learner loses the last few seconds of it and counts nothing
twice.  Evidence of another release or stage is thrown away.

While promotions are frozen (`profiles.policies`) a stage that would end in one goes on.

An operator's notices count like ours: a promotion by hand begins a watch, a rollback during a
canary leaves the candidate without its parent, and it is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
from kafka import KafkaProducer

from learner.announcing import STALE
from learner.checkpoint import write_atomically
from learner.feeds import BoardFeed
from learner.opening import open_trusted
from learner.records import Row
from learner.release_log import announce, next_notice, rollback_notices
from learner.replay import ReplayBuffer
from learner.rollout.arms import Arm
from learner.rollout.pairing import Pair, count_new
from learner.rollout.stages import Rollout, Stage, Verdict, begin, decide, figures, live_evidence
from learner.sampling import ActionWeights
from profiles.config import Settings
from profiles.errors import ReleaseError
from profiles.logs import get_logger
from profiles.metrics import LearnerMetrics
from profiles.notices import OutcomeWindow, ReleaseNotice
from profiles.registry import ReleaseStore

log = get_logger("learner.rollout")

SAVE_S = 5.0
LEVEL_EVENTS = 5_000
"""The recent level of a release is that of about so many ranked events."""
BUSY_SHARE = 0.25
"""Most of its time that the main thread spends on scoring."""
STAGES: tuple[Stage, ...] = ("shadow", "canary", "watch")


class Outcomes(Protocol):
    """The workers' reports: `learner.rollout.outcomes.OutcomeFeed`."""

    def poll(self) -> list[OutcomeWindow]: ...

    def offsets(self) -> dict[int, int]: ...

    def close(self) -> None: ...


class Saved(msgspec.Struct):
    """What survives a restart.  `levels`: recent live figures by release; `kept`: the notice whose
    watch is over."""

    rollout: Rollout | None = None
    levels: dict[str, Arm] = msgspec.field(default_factory=dict)
    offsets: dict[int, int] = msgspec.field(default_factory=dict)
    kept: str = ""


class RolloutDesk:
    """Owns the one rollout that may be under way.  Used by the learner's main thread."""

    def __init__(
        self,
        settings: Settings,
        buffer: ReplayBuffer,
        board: BoardFeed,
        producer: KafkaProducer,
        store: ReleaseStore,
        directory: Path,
        metrics: LearnerMetrics,
        open_outcomes: Callable[[Mapping[int, int]], Outcomes],
        clock_s: Callable[[], float] = time.time,
    ) -> None:
        self._settings, self._rules = settings, settings.rollout
        self._buffer, self._board, self._producer = buffer, board, producer
        self._store, self._metrics, self._clock_s = store, metrics, clock_s
        self._path = directory / "rollout.json"
        self._saved = _load(self._path)
        self._saved_s = clock_s()
        self._outcomes = open_outcomes(self._saved.offsets)
        self._pair: Pair | None = None
        self._pair_of: tuple[str, str] | None = None
        self._idle_until_s = 0.0

    @property
    def is_deciding(self) -> bool:
        """Whether a candidate waits for its verdict: its successor must not be trained yet."""
        rollout = self._saved.rollout
        return rollout is not None and rollout.stage != "watch"

    def turn(self, rows: Sequence[Row]) -> None:
        """Gather evidence, the events just read among it, and act on a verdict."""
        self._follow_board()
        rollout = self._saved.rollout
        self._take_outcomes(rollout)
        if rollout is not None:
            if rows:
                self._score(rollout, rows)
            verdict = decide(rollout, self._clock_s(), self._rules)
            # Under a freeze evidence goes on, and so do refusals and rollbacks.
            is_promotion = verdict is not None and verdict.status in ("canary", "serving")
            if verdict is not None and not (is_promotion and self._is_frozen()):
                self._conclude(rollout, verdict)
                self._follow_board()
        self._show(self._saved.rollout)
        if self._clock_s() - self._saved_s > SAVE_S:
            self._save()

    def close(self) -> None:
        """Keep the evidence and disconnect."""
        self._save()
        self._outcomes.close()

    # -- what is under way ----------------------------------------------------------------------

    def _follow_board(self) -> None:
        """Begin, go on with or drop a stage, as the releases topic says."""
        wanted = self._wanted()
        rollout = self._saved.rollout
        if rollout is not None and (rollout.stage, rollout.release_id, rollout.rival_id) == wanted:
            return
        if wanted is None:
            self._saved.rollout = None
            return
        stage, release_id, rival_id = wanted
        level = self._saved.levels.get(rival_id)
        self._saved.rollout = begin(
            stage, release_id, rival_id, self._clock_s(), self._rules, level
        )
        log.info("rollout stage", stage=stage, release=release_id, beside=rival_id)
        self._save()

    def _wanted(self) -> tuple[Stage, str, str] | None:
        board = self._board.board
        serving = board.serving()
        if serving is None:
            return None
        candidates = [notice for notice in board.all() if notice.status in ("shadow", "canary")]
        for notice in candidates:
            if notice.parent_id != serving.release_id:
                reason = f"{STALE}: {serving.release_id} serves now, not {notice.parent_id}"
                self._say(notice, "refused", reason, {})
        fitting = [notice for notice in candidates if notice.parent_id == serving.release_id]
        if fitting:
            newest = fitting[-1]
            stage: Stage = "shadow" if newest.status == "shadow" else "canary"
            return stage, newest.release_id, serving.release_id
        previous = board.previous()
        is_watched = self._rules.auto_rollback and _name(serving) != self._saved.kept
        if previous is None or not is_watched or board.was_rolled_back_to(serving):
            return None
        return "watch", serving.release_id, previous.release_id

    def _is_frozen(self) -> bool:
        return self._board.policies.freeze is not None

    # -- evidence -------------------------------------------------------------------------------

    def _take_outcomes(self, rollout: Rollout | None) -> None:
        for window in self._outcomes.poll():
            if window.cells:
                level = self._saved.levels.setdefault(window.release_id, Arm())
                level.take(window.cells)
                level.fade(LEVEL_EVENTS)
            if rollout is None or window.ended_at < rollout.began_s:
                continue
            if window.release_id == rollout.release_id:
                rollout.live.take(window.cells)
                if window.refusal:
                    rollout.refusals[window.worker] = window.refusal
            elif window.release_id == rollout.rival_id and rollout.stage == "canary":
                rollout.rival_live.take(window.cells)

    def _score(self, rollout: Rollout, rows: Sequence[Row]) -> None:
        """Score a sample of the new events, unless scoring has had its share of the time."""
        started_s = self._clock_s()
        if started_s < self._idle_until_s:
            return
        pair = self._paired(rollout)
        if pair is None:
            return
        new = count_new(rows)
        candidate, rival = pair.score(self._buffer.context(list(new)), new)
        if len(candidate):
            rollout.paired.take(candidate, rival)
        ended_s = self._clock_s()
        self._idle_until_s = ended_s + (ended_s - started_s) * (1.0 / BUSY_SHARE - 1.0)

    def _paired(self, rollout: Rollout) -> Pair | None:
        """Both releases, opened once; None where one cannot be: then only live figures count."""
        names = (rollout.release_id, rollout.rival_id)
        if self._pair_of != names:
            self._pair_of, self._pair = names, None
            try:
                mine, theirs = (open_trusted(self._settings, self._store, name) for name in names)
            except ReleaseError as error:
                log.error("no paired scores: a release does not open", error=str(error))
            else:
                self._pair = Pair(
                    mine,
                    theirs,
                    ActionWeights.from_settings(self._settings.actions),
                    exclude_seen=self._settings.serving.exclude_seen,
                )
        return self._pair

    # -- verdicts -------------------------------------------------------------------------------

    def _conclude(self, rollout: Rollout, verdict: Verdict) -> None:
        board = self._board.board
        notice = board.get(rollout.release_id)
        assert notice is not None, "a rollout follows a notice"
        found = figures(rollout, self._rules)
        log.info(
            "rollout decided",
            stage=rollout.stage,
            release=rollout.release_id,
            decision=verdict.status,
            reason=verdict.reason,
        )
        if verdict.status == "kept":
            self._saved.kept = _name(notice)
        elif verdict.status == "rolled-back":
            back = rollback_notices(board, verdict.reason, self._clock_s(), found)
            announce(self._producer, self._settings, *back)
            for said in back:
                board.put(said)
            self._metrics.rollbacks.inc()
        else:
            self._say(notice, verdict.status, verdict.reason, found)
            if verdict.status == "serving":
                self._metrics.forgetting.set(notice.metrics.get("forgetting", 0.0))
        if verdict.status != "kept":
            self._metrics.rollout_decisions.labels(verdict.status).inc()
        self._saved.rollout = None

    def _say(
        self, notice: ReleaseNotice, status: str, reason: str, found: dict[str, float]
    ) -> None:
        said = next_notice(
            self._board.board,
            notice,
            status,
            reason,
            self._clock_s(),
            found,
            share=self._rules.canary_share if status == "canary" else 0.0,
        )
        announce(self._producer, self._settings, said)
        self._board.board.put(said)

    # -- telling and keeping --------------------------------------------------------------------

    def _show(self, rollout: Rollout | None) -> None:
        metrics = self._metrics
        metrics.frozen.set(self._is_frozen())
        for stage in STAGES:
            is_now = rollout is not None and rollout.stage == stage
            metrics.rollout_stage.labels(stage).set(is_now)
        if rollout is None:
            return
        live, paired = live_evidence(rollout, self._rules), rollout.paired
        candidate, rival = paired.means()
        shown = {
            "paired": (paired.events, candidate, rival, paired.harm, paired.no_harm),
            "live": (
                rollout.live.count,
                rollout.live.mean(),
                rollout.rival_live.mean(),
                live.harm,
                live.no_harm,
            ),
        }
        for evidence, (events, mine, theirs, harm, no_harm) in shown.items():
            metrics.rollout_events.labels(evidence).set(events)
            metrics.rollout_ndcg10.labels(evidence, "candidate").set(mine)
            metrics.rollout_ndcg10.labels(evidence, "rival").set(theirs)
            metrics.rollout_odds.labels(evidence, "harm").set(harm)
            metrics.rollout_odds.labels(evidence, "no_harm").set(no_harm)

    def _save(self) -> None:
        saved = self._saved
        saved.offsets = self._outcomes.offsets()
        board = self._board.board
        needed = {notice.release_id for n in (board.serving(), board.previous()) if (notice := n)}
        if saved.rollout is not None:
            needed |= {saved.rollout.release_id, saved.rollout.rival_id}
        saved.levels = {name: arm for name, arm in saved.levels.items() if name in needed}
        write_atomically(self._path, msgspec.json.encode(saved))
        self._saved_s = self._clock_s()


def _name(notice: ReleaseNotice) -> str:
    """A release promoted again is watched again."""
    return f"{notice.release_id}@{notice.sequence}"


def _load(path: Path) -> Saved:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Saved)
    except (OSError, msgspec.DecodeError):
        return Saved()
