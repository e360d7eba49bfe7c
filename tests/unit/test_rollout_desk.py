"""Verdicts become notices, and what stands on the topic decides which stage is under way."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from kafka import KafkaProducer
from prometheus_client import CollectorRegistry

from learner.feeds import BoardFeed
from learner.release_log import rollback_notices
from learner.replay import ReplayBuffer
from learner.rollout.desk import RolloutDesk
from profiles.board import ReleaseBoard
from profiles.config import Settings, load_settings
from profiles.metrics import LearnerMetrics
from profiles.notices import OutcomeCell, OutcomeWindow, PolicyOrder, ReleaseNotice, decode_notice
from profiles.policies import PolicyBoard
from profiles.registry import ReleaseStore
from profiles.rollout import BUCKETS

pytestmark = pytest.mark.unit


class Acknowledged:
    """A send that Kafka has taken."""

    def get(self, timeout_s: float) -> None:
        return


class Board:
    """What the learner has read of the releases topic."""

    def __init__(self) -> None:
        self.board = ReleaseBoard()
        self.policies = PolicyBoard()


class Reports:
    """Workers' reports, put in by hand."""

    def __init__(self) -> None:
        self.windows: list[OutcomeWindow] = []
        self.taken = 0

    def poll(self) -> list[OutcomeWindow]:
        windows, self.windows = self.windows, []
        self.taken += len(windows)
        return windows

    def offsets(self) -> dict[int, int]:
        return {0: self.taken}

    def close(self) -> None:
        return


class Bench:
    """A desk whose Kafka, clock and reports are in hand.  No release opens: live figures count."""

    def __init__(self, root: Path, **rollout: object) -> None:
        self.root = root
        self.settings: Settings = load_settings(
            store={"directory": str(root), "releases": str(root / "releases")},
            rollout={"stage_limit_s": 100.0, "canary_events": 10**9, **rollout},
        )
        self.feed, self.now_s, self.said = Board(), 1_000.0, list[ReleaseNotice]()
        self.start()

    def start(self) -> None:
        """A learner that starts, on whatever is on disk and topic."""
        self.metrics = LearnerMetrics(CollectorRegistry())
        self.reports = Reports()
        self.from_offsets: dict[int, int] = {}

        def open_reports(offsets: Any) -> Reports:  # Any: a mapping
            self.from_offsets = dict(offsets)
            return self.reports

        store = ReleaseStore(self.settings.store.releases, self.root / "cache")
        self.desk = RolloutDesk(
            self.settings,
            cast(ReplayBuffer, None),
            cast(BoardFeed, self.feed),
            cast(KafkaProducer, self),
            store,
            self.root,
            self.metrics,
            open_reports,
            lambda: self.now_s,
        )

    def send(self, topic: str, key: bytes, value: bytes) -> Acknowledged:
        self.said.append(decode_notice(value))
        return Acknowledged()

    def notice(self, release_id: str, status: str, parent: str | None = None) -> None:
        board = self.feed.board
        board.put(ReleaseNotice(release_id, status, board.next_sequence(), "store", parent))

    def report(self, release_id: str, mean: float, refusal: str = "") -> None:
        wobble = np.random.default_rng(0).normal(0.0, 0.01, BUCKETS).tolist()
        cells = [
            OutcomeCell(b, 20, 10, 20 * (mean + w), 20 * (mean + w) ** 2)
            for b, w in enumerate(wobble)
        ]
        self.reports.windows.append(
            OutcomeWindow(
                release_id, "w1", self.now_s, self.now_s, [] if refusal else cells, refusal
            )
        )

    def turn(self) -> list[tuple[str, str]]:
        """One turn.  Returns: what was said in it."""
        before = len(self.said)
        self.desk.turn([])
        return [(notice.release_id, notice.status) for notice in self.said[before:]]

    def stage(self) -> str | None:
        for stage in ("shadow", "canary", "watch"):
            if self.metric("driftline_rollout_stage", stage=stage):
                return stage
        return None

    def metric(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def test_a_quiet_candidate_walks_from_shadow_to_canary_to_serving_by_time(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.notice("old", "serving")
    assert (bench.turn(), bench.stage(), bench.desk.is_deciding) == ([], None, False)
    bench.notice("new", "shadow", "old")
    assert (bench.turn(), bench.stage(), bench.desk.is_deciding) == ([], "shadow", True)
    bench.now_s += 100.0
    assert bench.turn() == [("new", "canary")]
    assert bench.said[-1].share == bench.settings.rollout.canary_share
    assert bench.said[-1].parent_id == "old"
    assert bench.stage() == "canary"
    bench.now_s += 99.0
    assert bench.turn() == []
    bench.now_s += 1.0
    assert bench.turn() == [("new", "serving")]
    assert (bench.stage(), bench.desk.is_deciding) == ("watch", False)
    told = bench.said[-1]
    assert (told.share, told.reason) == (0.0, "no harm seen at 100 s, with 0 events")
    assert {"shadow_paired_events", "canary_live_events_candidate"} <= told.metrics.keys()


def test_under_a_freeze_nothing_is_promoted_and_harm_is_still_ended(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.notice("old", "serving")
    bench.notice("new", "shadow", "old")
    bench.feed.policies.put(PolicyOrder("freeze", "releases", True, "incident 12"))
    bench.turn()
    bench.now_s += 1_000.0
    assert (bench.turn(), bench.stage()) == ([], "shadow")
    assert bench.metric("driftline_releases_frozen") == 1
    bench.start()  # the order outlives the learner
    assert (bench.turn(), bench.stage()) == ([], "shadow")
    bench.feed.policies.put(PolicyOrder("freeze", "releases", False))
    assert bench.turn() == [("new", "canary")]
    assert bench.metric("driftline_releases_frozen") == 0

    bench.feed.policies.put(PolicyOrder("freeze", "releases", True))
    bench.report("old", 0.3)
    bench.report("new", 0.1)
    assert bench.turn() == [("new", "refused")]
    bench.notice("forced", "serving", "old")
    bench.now_s += 1.0
    bench.turn()
    bench.report("forced", 0.05)
    assert bench.turn() == [("old", "serving"), ("forced", "rolled-back")]


def test_live_figures_refuse_a_canary_and_roll_a_fallen_release_back(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.notice("old", "serving")
    bench.notice("new", "canary", "old")
    bench.turn()
    bench.report("old", 0.3)
    bench.report("new", 0.1)
    assert bench.turn() == [("new", "refused")]
    assert bench.said[-1].reason.startswith("harm, live")
    assert bench.said[-1].metrics["canary_live_ndcg10_candidate"] == pytest.approx(0.1, abs=0.01)

    bench.notice("forced", "serving", "old")
    bench.now_s += 1.0
    assert (bench.turn(), bench.stage()) == ([], "watch")
    bench.report("forced", 0.05)
    assert bench.turn() == [("old", "serving"), ("forced", "rolled-back")]
    serving = bench.feed.board.serving()
    assert serving is not None
    assert serving.release_id == "old"
    assert bench.metric("driftline_auto_rollbacks_total") == 1
    # What serves because of a rollback is not watched against what was rolled back.
    assert (bench.turn(), bench.stage()) == ([], None)


def test_a_workers_refusal_ends_a_canary_but_not_a_release_that_serves(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.notice("old", "serving")
    bench.notice("new", "canary", "old")
    bench.turn()
    bench.report("new", 0.0, refusal="hash: wrong")
    assert bench.turn() == [("new", "refused")]
    assert bench.said[-1].reason == "worker w1 does not serve it: hash: wrong"
    bench.notice("next", "serving", "old")
    bench.turn()
    bench.report("next", 0.0, refusal="hash: wrong")
    assert bench.turn() == []


def test_an_operator_is_followed(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.notice("older", "serving")
    bench.notice("old", "serving", "older")
    bench.notice("new", "canary", "old")
    bench.turn()
    for notice in rollback_notices(bench.feed.board, "a bad feeling", bench.now_s, {}):
        bench.feed.board.put(notice)
    assert bench.turn() == [("new", "refused")]
    assert bench.said[-1].reason.startswith("parent-changed")
    bench.notice("new", "serving", "old")  # by force
    assert (bench.turn(), bench.stage()) == ([], "watch")

    unwatched = Bench(tmp_path / "other", auto_rollback=False)
    unwatched.notice("old", "serving")
    unwatched.notice("new", "serving", "old")
    assert (unwatched.turn(), unwatched.stage()) == ([], None)


def test_a_restart_goes_on_with_the_evidence_of_the_same_stage_only(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.notice("old", "serving")
    bench.notice("new", "canary", "old")
    bench.turn()
    bench.report("old", 0.27)
    bench.report("new", 0.243)  # as much worse as is tolerated: no verdict
    bench.turn()
    seen = bench.metric("driftline_rollout_events", evidence="live")
    assert seen == 20 * BUCKETS
    bench.desk.close()
    bench.start()
    assert bench.from_offsets == {0: 2}
    bench.turn()
    assert bench.metric("driftline_rollout_events", evidence="live") == seen

    bench.desk.close()
    bench.notice("new", "refused", "old")
    bench.notice("other", "canary", "old")
    bench.start()
    bench.turn()
    assert bench.metric("driftline_rollout_events", evidence="live") == 0
    (tmp_path / "rollout.json").write_text("{")
    bench.start()
    assert (bench.turn(), bench.stage()) == ([], "canary")


def test_a_watch_that_ended_well_is_not_begun_again(tmp_path: Path) -> None:
    bench = Bench(tmp_path, watch_events=1)
    bench.notice("old", "serving")
    bench.notice("new", "serving", "old")
    bench.turn()
    rollout = bench.desk._saved.rollout
    assert rollout is not None
    rollout.paired.take(np.full(200, 0.3), np.full(200, 0.3))
    assert (bench.turn(), bench.stage()) == ([], None)
    bench.desk.close()
    bench.start()
    assert (bench.turn(), bench.stage()) == ([], None)
    bench.notice("new", "serving", "old")
    assert (bench.turn(), bench.stage()) == ([], "watch")
