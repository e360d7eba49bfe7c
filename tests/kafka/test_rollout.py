"""Rollouts on a real broker: what a candidate goes through, and what happens to one that harms."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from learner.opening import open_trusted
from learner.release_log import read_board
from learner.releases_cli import promote
from learner.rollout.telling import in_words, read_status
from profiles.answers import Recommendation
from profiles.board import ReleaseBoard
from profiles.errors import ReleaseError
from profiles.notices import ReleaseNotice
from profiles.release import Release
from profiles.rollout import in_canary
from stream.oracle import OracleReport, run_oracle
from tests.deployment import Deployment, WorkerProcess, make_events, wait_until
from tests.harmful import publish_permuted

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(400)]

USERS = 60
WORKER = {"DRIFTLINE_SERVING__EXCLUDE_SEEN": "false", "DRIFTLINE_ROLLOUT__WINDOW_S": "0.5"}
LEARNER = {
    "DRIFTLINE_LEARNER__MIN_EVENTS": "600",
    "DRIFTLINE_LEARNER__ROUND_EVENTS": "1000000",
    "DRIFTLINE_LEARNER__SEQUENCE_LENGTH": "12",
    "DRIFTLINE_LEARNER__EPOCHS": "4",
    "DRIFTLINE_LEARNER__LORA_STEPS": "2",
    "DRIFTLINE_LEARNER__LORA_ITEMS": "8",
    "DRIFTLINE_LEARNER__HEAD_LR": "0.02",
    "DRIFTLINE_LEARNER__DEVICE": "cpu",
    "DRIFTLINE_SERVING__EXCLUDE_SEEN": "false",
}


@dataclass(slots=True)
class Stream:
    """Events that go on for as long as a test waits for something."""

    deployment: Deployment
    sent: int = field(default=0)
    sent_s: float = 0.0

    def send(self, each: int) -> None:
        self.deployment.send_events(make_events(USERS, each, start=self.sent))
        self.sent += each

    def until(self, what: str, check: Callable[[], bool], within_s: float = 150.0) -> None:
        """Send more, slowly enough for any machine to follow, until `check` holds."""

        def send_and_check() -> bool:
            if time.monotonic() - self.sent_s > 0.5:
                self.send(each=1)
                self.sent_s = time.monotonic()
            return check()

        wait_until(what, send_and_check, within_s)

    @property
    def board(self) -> ReleaseBoard:
        return read_board(self.deployment.settings)

    def notice(self, release_id: str) -> ReleaseNotice:
        found = self.board.get(release_id)
        assert found is not None
        return found

    def serving(self) -> Release:
        notice = self.board.serving()
        assert notice is not None
        return open_trusted(self.deployment.settings, self.deployment.store, notice.release_id)


def trained(stream: Stream) -> Release:
    """Wait for the first trained release to serve."""
    first = stream.serving().release_id
    stream.send(each=12)
    stream.until("a trained release serves", lambda: stream.serving().release_id != first)
    return stream.serving()


def is_served(worker: WorkerProcess, release_id: str) -> bool:
    return worker.metric(f'driftline_serving_release_info{{release_id="{release_id}"}}') == 1.0


def has_canary(worker: WorkerProcess, share: float) -> bool:
    return worker.metric("driftline_canary_share") == share


def made_by(stream: Stream, each: int) -> list[Recommendation]:
    """What workers make of some more events of every user, once every user has been answered."""
    known = {told.output_id for told in stream.deployment.recommendations()}
    made: list[Recommendation] = []
    stream.send(each)

    def answered() -> bool:
        found = stream.deployment.recommendations()
        made[:] = [told for told in found if told.output_id not in known]
        return len({told.user_id for told in made}) == USERS

    stream.deployment.wait_applied(USERS * stream.sent)
    wait_until("everybody is answered", answered)
    return made


def check_promises(stream: Stream, releases: set[str]) -> OracleReport:
    """Recompute everything: nothing lost, doubled, or made from two releases."""
    stream.deployment.wait_applied(USERS * stream.sent)
    report = run_oracle(stream.deployment.settings)
    assert report.faults() == []
    assert report.mixed_release_recommendations == 0
    assert report.profiles_checked == USERS
    assert report.recommendations_checked > 0
    made = stream.deployment.recommendations()
    assert releases <= {each.release_id for each in made}
    assert all(each.release_id == each.profile_release_id for each in made)
    return report


def test_a_good_candidate_passes_its_shadow_and_a_harmful_one_is_refused_in_it(
    deployment: Deployment,
) -> None:
    stream = Stream(deployment)
    learner = deployment.start_learner(**LEARNER, DRIFTLINE_ROLLOUT__MODE="shadow")
    good = trained(stream)
    told = stream.notice(good.release_id)
    assert told.metrics["shadow_paired_events"] >= 100
    assert told.metrics["shadow_paired_ndcg10_candidate"] > 0
    assert told.metrics["recent_ndcg10_candidate"] > 0  # the gate's figures stay

    harmful = publish_permuted(deployment.store, good, sequence=99)
    deployment.announce(harmful, "shadow", parent=good.release_id)
    stream.until("refused", lambda: stream.notice(harmful).status == "refused")

    told = stream.notice(harmful)
    assert told.reason.startswith("harm: NDCG@10")
    assert (
        told.metrics["shadow_paired_ndcg10_candidate"] < told.metrics["shadow_paired_ndcg10_rival"]
    )
    assert stream.serving().release_id == good.release_id
    assert learner.metric('driftline_rollout_decisions_total{decision="refused"}') == 1


def test_a_harmful_release_forced_past_every_check_is_rolled_back_by_itself(
    deployment: Deployment,
) -> None:
    stream = Stream(deployment)
    learner = deployment.start_learner(**LEARNER, DRIFTLINE_ROLLOUT__MODE="direct")
    worker = deployment.start_worker(**WORKER)
    good = trained(stream)
    harmful = publish_permuted(deployment.store, good, sequence=99)
    deployment.announce(harmful, "refused", parent=good.release_id)
    with pytest.raises(ReleaseError, match="--force"):
        promote(deployment.settings, harmful)

    promote(deployment.settings, harmful, force=True)
    assert stream.serving().release_id == harmful
    # Before more events come: from them the learner may know better sooner than a worker swaps.
    wait_until("the worker serves it", lambda: is_served(worker, harmful))
    stream.until("rolled back", lambda: stream.notice(harmful).status == "rolled-back")

    assert stream.serving().release_id == good.release_id
    told = stream.notice(harmful)
    # Either the learner's own pairs of events say so, or the workers' figures, whichever is first.
    assert told.reason.startswith("harm")
    by_workers = told.reason.startswith("harm, live")
    counted = "watch_live_events_candidate" if by_workers else "watch_paired_events"
    assert told.metrics[counted] >= 100
    wait_until("counted", lambda: learner.metric("driftline_auto_rollbacks_total") == 1)
    wait_until("the worker went back", lambda: is_served(worker, good.release_id))
    # What serves because of a rollback is not rolled back in turn.
    stream.send(each=5)
    assert learner.stop() == 0
    assert stream.serving().release_id == good.release_id
    check_promises(stream, {harmful, good.release_id})


def test_a_killed_learner_finds_the_stage_on_the_topic_and_the_evidence_on_its_disk(
    deployment: Deployment,
) -> None:
    stream = Stream(deployment)
    settings = {**LEARNER, "DRIFTLINE_ROLLOUT__MODE": "shadow"}
    learner = deployment.start_learner(**settings)
    good = trained(stream)
    candidate = publish_permuted(deployment.store, good, sequence=99)
    slow = {**settings, "DRIFTLINE_ROLLOUT__ALPHA": "1e-300"}  # no verdict but by the limit
    learner.kill()
    deployment.announce(candidate, "shadow", parent=good.release_id)
    learner = deployment.start_learner(**slow, DRIFTLINE_ROLLOUT__SHADOW_EVENTS="1000000")

    def seen() -> float:
        return learner.metric('driftline_rollout_events{evidence="paired"}')

    wait_until("the learner is up", learner.is_ready)
    stream.until("evidence", lambda: seen() > 100)
    # Saved every few seconds: until it has been, a kill may lose it.
    saved = deployment.root / "data" / "learner" / "rollout.json"
    written = saved.stat().st_mtime_ns
    stream.until("saved", lambda: saved.stat().st_mtime_ns > written)
    learner.kill()
    learner = deployment.start_learner(**slow, DRIFTLINE_ROLLOUT__SHADOW_EVENTS="1000000")
    wait_until("the learner is up again", learner.is_ready)
    wait_until("the old evidence", lambda: seen() > 100)
    assert stream.notice(candidate).status == "shadow"
    learner.kill()
    # Given up by hand: the candidate's parent does not serve any more.
    other = deployment.new_release(seed=5)
    deployment.announce(other)
    learner = deployment.start_learner(**settings)
    stream.until("refused", lambda: stream.notice(candidate).status == "refused")
    assert stream.notice(candidate).reason.startswith("parent-changed")


def test_a_candidate_is_served_to_a_share_of_the_users_and_then_to_all(
    deployment: Deployment,
) -> None:
    stream = Stream(deployment)
    deployment.start_learner(
        **LEARNER,
        DRIFTLINE_ROLLOUT__MODE="canary",
        DRIFTLINE_ROLLOUT__CANARY_SHARE="0.4",
        DRIFTLINE_ROLLOUT__CANARY_EVENTS="400",
    )
    workers = [deployment.start_worker(name, **WORKER) for name in ("a", "b")]
    first = stream.serving().release_id
    stream.send(each=12)
    candidates: list[ReleaseNotice] = []

    def in_canary_now() -> bool:
        candidates[:] = [each for each in stream.board.all() if each.status == "canary"]
        return bool(candidates)

    stream.until("a canary", in_canary_now)
    [canary] = candidates
    assert (canary.share, canary.parent_id) == (0.4, first)
    assert stream.serving().release_id == first
    words = in_words(read_status(deployment.settings))
    assert f"{canary.release_id} is a canary, served to 40% of the users" in words
    stream.until("promoted", lambda: stream.serving().release_id == canary.release_id)

    told = stream.notice(canary.release_id)
    assert told.metrics["shadow_paired_events"] >= 100
    assert told.metrics["canary_live_events_candidate"] >= 100
    assert told.metrics["canary_live_events_rival"] >= 100
    for worker in workers:
        wait_until("all swapped", partial(is_served, worker, canary.release_id))
    stream.send(each=2)
    check_promises(stream, {first, canary.release_id})


def test_a_worker_killed_in_mid_canary_goes_on_with_it_and_a_refusal_brings_everybody_back(
    deployment: Deployment,
) -> None:
    stream = Stream(deployment)
    parent, candidate = stream.serving().release_id, deployment.new_release(seed=99)
    users = [f"user-{number}" for number in range(USERS)]
    chosen = in_canary([user.encode() for user in users], candidate, 0.4).tolist()
    inside = {user for user, is_in in zip(users, chosen, strict=True) if is_in}
    worker = deployment.start_worker(**WORKER)
    worker.wait_ready()
    stream.send(each=3)
    deployment.wait_applied(3 * USERS)
    deployment.announce(candidate, "canary", parent=parent, share=0.4)
    wait_until("a canary", partial(has_canary, worker, 0.4))

    for _ in range(2):
        made = made_by(stream, each=3)
        assert {each.user_id for each in made if each.release_id == candidate} == inside
        assert {each.user_id for each in made if each.release_id == parent} == set(users) - inside
        worker.kill()
        worker = deployment.start_worker(**WORKER)
        worker.wait_ready()
        wait_until("the canary again", partial(has_canary, worker, 0.4))

    deployment.announce(candidate, "refused", parent=parent)
    wait_until("no canary", partial(has_canary, worker, 0.0))
    wait_until(
        "everybody rebuilt by the sweep",
        lambda: worker.metric('driftline_profiles_rebuilt_total{path="sweep"}') >= len(inside),
    )
    assert {each.release_id for each in made_by(stream, each=1)} == {parent}
    check_promises(stream, {parent, candidate})


def test_a_canary_that_a_worker_cannot_load_is_refused_for_all(deployment: Deployment) -> None:
    stream = Stream(deployment)
    parent, candidate = stream.serving().release_id, deployment.new_release(seed=99)
    head = deployment.root / "releases" / candidate / "head.safetensors"
    head.write_bytes(head.read_bytes()[:-1] + b"\x01")
    learner = deployment.start_learner(**LEARNER, DRIFTLINE_ROLLOUT__MODE="canary")
    worker = deployment.start_worker(**WORKER)
    worker.wait_ready()
    wait_until("the learner is up", learner.is_ready)
    deployment.announce(candidate, "canary", parent=parent, share=0.4)
    wait_until("refused", lambda: stream.notice(candidate).status == "refused")

    assert "worker a does not serve it: head.safetensors" in stream.notice(candidate).reason
    stream.send(each=2)
    deployment.wait_applied(2 * USERS)
    assert {each.release_id for each in deployment.recommendations()} == {parent}
    assert worker.metric("driftline_releases_refused_total") == 1
