"""What the learner says on the `releases` topic of its own releases: verdicts, and withdrawals."""

from __future__ import annotations

import time
from collections.abc import Collection

from kafka import KafkaProducer

from learner.feeds import BoardFeed
from learner.release_log import announce, next_notice
from learner.rollout.stages import first_status
from learner.round_files import Finished
from profiles.config import Settings
from profiles.logs import get_logger
from profiles.manifest import Manifest
from profiles.metrics import LearnerMetrics
from profiles.notices import ReleaseNotice

log = get_logger("learner.rounds")

STALE = "parent-changed"
DECIDED = ("shadow", "canary", "serving", "refused", "rolled-back")


class Announcer:
    """Announces, and puts what it said on the board: it need not be read first."""

    def __init__(
        self,
        settings: Settings,
        feed: BoardFeed,
        producer: KafkaProducer,
        metrics: LearnerMetrics,
    ) -> None:
        self._settings, self._feed = settings, feed
        self._producer, self._metrics = producer, metrics

    def verdict(self, finished: Finished, manifest: Manifest) -> None:
        """Say what became of a release, unless that was said before a kill."""
        board, policies = self._feed.board, self._feed.policies
        said = board.get(finished.release_id)
        if said is not None and said.status in DECIDED:
            return
        serving = board.serving()
        now_serving = serving.release_id if serving is not None else None
        promote, reason = finished.promote, finished.reason
        if now_serving != manifest.parent_id:
            promote = False
            reason = f"{STALE}: {now_serving} serves now, not {manifest.parent_id}"
        self._say(manifest, "candidate", "trained" if finished.number else "made")
        # A first release has nothing to be compared with.
        passed = first_status(self._settings.rollout) if manifest.parent_id else "serving"
        frozen = policies.freeze
        if promote and frozen is not None and manifest.parent_id and passed == "serving":
            promote, reason = False, f"promotions are frozen: {frozen.reason}; {reason}"
        self._say(manifest, passed if promote else "refused", reason)
        outcome = "promoted" if promote else "refused"
        log.info("release announced", release=manifest.release_id, outcome=outcome, reason=reason)
        if finished.number:
            self._metrics.rounds.labels(outcome).inc()
        if promote and passed == "serving":
            self._metrics.forgetting.set(manifest.metrics.get("forgetting", 0.0))

    def go_back_to(self, found: ReleaseNotice, affected: Collection[str], reason: str) -> int:
        """Let an earlier release serve and withdraw others (`erased`).

        Returns: how many were withdrawn.
        """
        board = self._feed.board
        withdrawn = [notice for notice in board.all() if notice.release_id in affected]
        now_s = time.time()
        notices: list[ReleaseNotice] = []
        if found is not board.serving():
            notices.append(next_notice(board, found, "serving", reason, now_s, {}))
            board.put(notices[0])
        for notice in withdrawn:
            notices.append(next_notice(board, notice, "erased", reason, now_s, {}))
            board.put(notices[-1])
        announce(self._producer, self._settings, *notices)
        return len(withdrawn)

    def _say(self, manifest: Manifest, status: str, reason: str) -> None:
        notice = ReleaseNotice(
            release_id=manifest.release_id,
            status=status,
            sequence=self._feed.board.next_sequence(),
            store_url=self._settings.store.releases,
            parent_id=manifest.parent_id,
            decided_at=time.time(),
            reason=reason,
            metrics=manifest.metrics,
        )
        announce(self._producer, self._settings, notice)
        self._feed.board.put(notice)
