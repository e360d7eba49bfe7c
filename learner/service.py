"""The learner: follows the events, and now and then turns them into a better release.

The main thread reads topics, fills the replay buffer and announces releases; a `Job` makes the
first release or trains a round.  What a round learns from is written down before it starts, what
it came to before it is announced, so that a learner killed at any moment goes on from there and
no event counts twice.

A bad event is counted and skipped (the workers dead-letter it).  A round whose loss diverges is
dropped and the serving release stays.  Anything unknown ends the process: better restarted than
wrong.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from learner.drift import Progress, due
from learner.feeds import BoardFeed, EventFeed
from learner.forgetting import Eraser
from learner.kafka_edge import open_producer
from learner.publishing import Rounds
from learner.replay import ReplayBuffer
from learner.rollout.desk import RolloutDesk
from learner.rollout.outcomes import OutcomeFeed
from learner.sampling import ActionWeights
from learner.sealed_disk import LearnerKeys
from learner.sensing import Sensor
from learner.team import Team
from learner.tracking import require_tracker
from profiles.audit import AuditLog
from profiles.config import Settings
from profiles.endpoint import Endpoint
from profiles.logs import get_logger
from profiles.metrics import LearnerMetrics
from profiles.registry import ReleaseStore
from profiles.sealing import MasterKeys
from profiles.tracing import open_traces

log = get_logger("learner.service")

SETTLE_S = 2.0
"""Silence on the items topic before a first release is made: an import is still running else."""
POLL_MS = 200
COMMIT_S = 5.0
STOP_S = 15.0
LIVE_S = 120.0


def learner_directory(settings: Settings) -> Path:
    """Where the learner keeps its buffer, its checkpoint and its text vectors."""
    return settings.store.directory / "learner"


def run_learner(
    settings: Settings, stop: threading.Event, metrics: LearnerMetrics, team: Team | None = None
) -> None:
    """Learn until `stop` is set; then checkpoint, commit and close within 20 s.

    `team`: other processes that read texts with this one, which leads.
    Raises: SealError, SettingsError, BrokerError, TopicError, StoreError, ReleaseError, ModelError,
    LearnerError.
    """
    learner = _Learner(settings, metrics, team)
    try:
        while not stop.is_set():
            learner.turn()
    finally:
        learner.close()


def tell_gpu(metrics: LearnerMetrics) -> None:
    """What torch holds of the GPU, if this process uses one."""
    # Without a device torch may not even be imported yet, and asking would wake CUDA.
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        metrics.gpu_bytes.labels("used").set(torch.cuda.memory_allocated())
        metrics.gpu_bytes.labels("reserved").set(torch.cuda.memory_reserved())


class _Learner:
    """The parts of one learner and the order in which they take turns."""

    def __init__(self, settings: Settings, metrics: LearnerMetrics, team: Team | None) -> None:
        self._settings, self._metrics = settings, metrics
        require_tracker(settings.tracker)
        # Read by the endpoint's thread, which must not touch the consumers.
        self._not_ready: str | None = "reading items, releases and erasures"
        self._turned_s = self._committed_s = self._learned_s = time.monotonic()
        directory = learner_directory(settings)
        actions = ActionWeights.from_settings(settings.actions)
        with ExitStack() as opened:
            traces = open_traces(settings.observability, "driftline-learner")
            opened.callback(traces.close)
            self._board = BoardFeed(settings)
            opened.callback(self._board.close)
            self._producer = open_producer(settings)
            opened.callback(self._producer.close, timeout=3)
            service = MasterKeys.of(settings.privacy)
            keys = None if service is None else LearnerKeys(directory / "keys", service)
            if keys is not None:
                opened.callback(keys.close)
            self._buffer = ReplayBuffer(
                directory / "buffer",
                buffer_bytes=settings.learner.buffer_bytes,
                sequence_length=settings.learner.sequence_length,
                seed=settings.learner.seed,
                actions=actions.names,
                conversations=settings.learner.judged_conversations,
                keys=keys,
            )
            opened.callback(self._buffer.close)
            self._board.note_erased(self._buffer.erased_at_ms())
            self._events = EventFeed(settings, self._buffer, metrics)
            opened.callback(self._events.close)
            store = ReleaseStore(
                settings.store.releases, settings.store.directory / "release-cache"
            )
            self._endpoint = Endpoint(
                settings.http, settings.security, metrics.registry, self._ready, self._live
            )
            opened.callback(self._endpoint.close)
            self._desk = RolloutDesk(
                settings,
                self._buffer,
                self._board,
                self._producer,
                store,
                directory,
                metrics,
                partial(OutcomeFeed, settings),
            )
            opened.callback(self._desk.close)
            # From here on nothing fails: `close` closes all of it, last opened first.
            self._opened = opened.pop_all()
        self._rounds = Rounds(
            settings,
            self._buffer,
            self._board,
            self._producer,
            store,
            directory,
            metrics,
            team,
            keys,
            traces,
        )
        self._eraser = Eraser(
            self._board, self._buffer, self._producer, self._rounds, AuditLog.of(settings)
        )
        self._sensor = Sensor(self._buffer, exclude_seen=settings.serving.exclude_seen)
        self._drifted = False
        self._lag = -1
        log.info(
            "learner starting",
            http=f"{settings.http.host}:{self._endpoint.port}",
            broker=settings.broker.bootstrap,
            group=settings.learner.group,
            buffered=self._buffer.fresh_events,
            rounds=self._buffer.rounds,
        )

    def turn(self) -> None:
        """One turn: read, then see to whatever is due."""
        self._turned_s = time.monotonic()
        self._board.poll(0 if self._board.is_caught_up() else POLL_MS)
        if not self._board.is_caught_up():
            return
        self._eraser.run()
        rows = self._events.poll(POLL_MS, self._board.erased_at_ms)
        self._lag = self._events.lag()
        self._metrics.lag_records.set(self._lag)
        self._metrics.buffer_bytes.set(self._buffer.size_bytes)
        self._metrics.buffer_events.set(self._buffer.held_events)
        tell_gpu(self._metrics)
        if self._rounds.conclude():
            self._learned_s = time.monotonic()
            self._drifted = False
        self._desk.turn(rows)
        self._begin()
        self._not_ready = None if self._rounds.parent else "no release serves yet"
        if rows and self._sensor.watch(rows, self._rounds.parent, self._board.catalogue):
            self._drifted = True
            self._metrics.drift.inc()
            log.info("recommending got harder: a round is due", fresh=self._buffer.fresh_events)
        if time.monotonic() - self._committed_s > COMMIT_S:
            self._events.commit()
            self._committed_s = time.monotonic()

    def _begin(self) -> None:
        """Start what is due: the interrupted round, the first release, or a round."""
        if self._rounds.is_busy() or not len(self._board.catalogue):
            return
        if not self._rounds.find_parent():
            if time.monotonic() - self._board.last_item_s > SETTLE_S:
                self._rounds.start_bootstrap()
            return
        if self._desk.is_deciding:
            return  # what comes of it is the parent of the next round
        if self._rounds.resume():
            return
        reason = due(
            Progress(
                rounds=self._buffer.rounds,
                fresh_events=self._buffer.fresh_events,
                since_last_s=time.monotonic() - self._learned_s,
                drifted=self._drifted,
                is_caught_up=self._lag == 0,
            ),
            self._settings.learner,
        )
        if self._rounds.owes_round:
            reason = "erasure"
        if reason is not None:
            self._rounds.start_round(reason, self._events.offsets())

    def close(self) -> None:
        """Stop at the next step, keep what was done, disconnect."""
        with self._opened:
            self._rounds.stop(STOP_S)
            self._events.commit()
        log.info("learner stopped")

    def _ready(self) -> str | None:
        return self._not_ready

    def _live(self) -> str | None:
        idle_s = time.monotonic() - self._turned_s
        return None if idle_s < LIVE_S else f"no turn for {idle_s:.0f} s"
