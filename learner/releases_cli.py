"""What `driftline releases list|show|status|promote|rollback` do, as functions that return values.

An operator's promote and rollback are notices like the learner's own: every worker hears them, and
the learner takes the release that serves then as the parent of its next round.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from learner.kafka_edge import open_producer
from learner.opening import open_trusted
from learner.release_log import announce, read_board, read_freeze, rollback_notices
from profiles.config import Settings
from profiles.errors import ReleaseError
from profiles.manifest import Manifest, read_manifest
from profiles.notices import ReleaseNotice
from profiles.registry import ReleaseStore
from profiles.release import Release


@dataclass(frozen=True, slots=True)
class ReleaseLine:
    """One line of the list."""

    notice: ReleaseNotice
    is_serving: bool


@dataclass(frozen=True, slots=True)
class ReleaseDetails:
    """A release in full: its newest notice, if any, and its manifest."""

    notice: ReleaseNotice | None
    manifest: Manifest
    is_serving: bool


@dataclass(frozen=True, slots=True)
class Rollback:
    """What a rollback announced."""

    serving: ReleaseNotice
    rolled_back: ReleaseNotice


@dataclass(frozen=True, slots=True)
class ReleaseDesk:
    """What the console does to releases and reads of them.  Raises as the functions below."""

    settings: Settings

    def promote(self, release_id: str, force: bool) -> ReleaseNotice:
        """Make a release serve at once."""
        return promote(self.settings, release_id, "promoted in the console", force=force)

    def rollback(self) -> ReleaseNotice:
        """Make the release serve that served before; returns its notice."""
        return rollback(self.settings, "rolled back in the console").serving

    def open(self, release_id: str) -> Release:
        """A release as a worker opens it.  Raises: ReleaseRefused, ReleaseError."""
        return open_trusted(self.settings, open_store(self.settings), release_id)

    def manifest(self, release_id: str) -> Manifest:
        """What a release says about itself.  Raises: ReleaseRefused, ReleaseError."""
        return read_manifest(open_store(self.settings).fetch(release_id))


def open_store(settings: Settings) -> ReleaseStore:
    """The release store of these settings.  Raises: ReleaseError."""
    return ReleaseStore(settings.store.releases, settings.store.directory / "release-cache")


def list_releases(settings: Settings) -> list[ReleaseLine]:
    """Every announced release, oldest notice first.  Raises: BrokerError, TopicError."""
    board = read_board(settings)
    serving = board.serving()
    return [ReleaseLine(notice, notice is serving) for notice in board.all()]


def show_release(settings: Settings, release_id: str | None = None) -> ReleaseDetails:
    """One release, by default the serving one.

    Raises: ReleaseError when nothing serves; ReleaseRefused when the store lacks it or its
    manifest is wrong; BrokerError, TopicError.
    """
    board = read_board(settings)
    serving = board.serving()
    if release_id is None:
        if serving is None:
            raise ReleaseError("no release serves yet; start the learner, or name a release")
        release_id = serving.release_id
    manifest = read_manifest(open_store(settings).fetch(release_id))
    is_serving = serving is not None and serving.release_id == release_id
    return ReleaseDetails(board.get(release_id), manifest, is_serving)


def promote(
    settings: Settings, release_id: str, reason: str = "", *, force: bool = False
) -> ReleaseNotice:
    """Make a release serve at once, without shadow or canary.  It must open, as a worker opens it.

    Not while promotions are frozen.  `force`: also one that was refused or rolled back.  The
    learner watches it like any other and rolls it back if it does harm, unless
    `rollout.auto_rollback` is off.
    Raises: ReleaseRefused, ReleaseError, BrokerError, TopicError.
    """
    frozen = read_freeze(settings)
    if frozen is not None:
        raise ReleaseError(
            f"promotions are frozen ({frozen.reason or 'no reason given'}), so {release_id} does "
            "not serve; lift it with `driftline releases unfreeze` first"
        )
    board = read_board(settings)
    said = board.get(release_id)
    if said is not None and said.status in ("refused", "rolled-back") and not force:
        raise ReleaseError(
            f"release {release_id} was {said.status} ({said.reason}); promote it with --force if "
            "you know better"
        )
    release = open_trusted(settings, open_store(settings), release_id)
    notice = ReleaseNotice(
        release_id,
        "serving",
        board.next_sequence(),
        settings.store.releases,
        release.manifest.parent_id,
        time.time(),
        reason or "promoted by an operator",
        release.manifest.metrics,
    )
    _send(settings, notice)
    return notice


def rollback(settings: Settings, reason: str = "") -> Rollback:
    """Make the release serve that served before.

    Raises: ReleaseError when there is none; ReleaseRefused when it does not open any more;
    BrokerError, TopicError.
    """
    board = read_board(settings)
    why = reason or "rolled back by an operator"
    serving, gone = rollback_notices(board, why, time.time(), {})
    open_trusted(settings, open_store(settings), serving.release_id)
    _send(settings, serving, gone)
    return Rollback(serving, gone)


def _send(settings: Settings, *notices: ReleaseNotice) -> None:
    producer = open_producer(settings)
    try:
        announce(producer, settings, *notices, actor="operator")
    finally:
        producer.close(timeout=5)
