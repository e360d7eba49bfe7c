"""What `driftline releases list|show|promote|rollback` do, as functions that return values.

An operator's promote and rollback are notices like the learner's own: every worker hears them, and
the learner takes the release that serves then as the parent of its next round.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from learner.bootstrap import expected_release
from learner.kafka_edge import open_producer
from learner.release_log import ReleaseBoard, announce, read_board
from profiles.config import Settings
from profiles.errors import ReleaseError
from profiles.events import ReleaseNotice
from profiles.registry import ReleaseStore
from profiles.release import Manifest, open_release, read_manifest
from profiles.signing import check_signature, load_trusted


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


def promote(settings: Settings, release_id: str, reason: str = "") -> ReleaseNotice:
    """Make a release serve, whatever the gate said of it.  It must open, as a worker opens it.

    Raises: ReleaseRefused, ReleaseError, BrokerError, TopicError.
    """
    board = read_board(settings)
    return _serve(settings, board, release_id, reason or "promoted by an operator")


def rollback(settings: Settings, reason: str = "") -> Rollback:
    """Make the release serve that served before.

    Raises: ReleaseError when there is none; ReleaseRefused when it does not open any more;
    BrokerError, TopicError.
    """
    board = read_board(settings)
    current, previous = board.serving(), board.previous()
    if current is None or previous is None:
        raise ReleaseError(
            "there is nothing to roll back to: fewer than two releases have served; see "
            "`driftline releases list`, and promote one by its id"
        )
    why = reason or "rolled back by an operator"
    serving = _serve(settings, board, previous.release_id, why)
    gone = ReleaseNotice(
        current.release_id,
        "rolled-back",
        serving.sequence + 1,
        current.store_url,
        current.parent_id,
        time.time(),
        why,
        current.metrics,
    )
    _send(settings, gone)
    return Rollback(serving, gone)


def _serve(settings: Settings, board: ReleaseBoard, release_id: str, reason: str) -> ReleaseNotice:
    directory = open_store(settings).fetch(release_id)
    release = open_release(directory, expected_release(settings))
    check_signature(release.manifest, load_trusted(settings.security.trusted_keys))
    notice = ReleaseNotice(
        release_id,
        "serving",
        board.next_sequence(),
        settings.store.releases,
        release.manifest.parent_id,
        time.time(),
        reason,
        release.manifest.metrics,
    )
    _send(settings, notice)
    return notice


def _send(settings: Settings, notice: ReleaseNotice) -> None:
    producer = open_producer(settings)
    try:
        announce(producer, settings, notice)
    finally:
        producer.close(timeout=5)
