"""The `releases` topic: which releases there are, which one serves, and saying so.

Notices are ordered by their sequence number, never by arrival: compaction keeps one notice per
release and may reorder what a reader sees.  The serving release is the one whose `serving` notice
has the highest sequence.  Whoever writes takes the highest sequence seen plus one; learner and
operator write rarely enough that two never meet, and if they do, both notices stand and the
release id decides for every reader alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from kafka import KafkaConsumer, KafkaProducer

from learner.kafka_edge import open_consumer, read_to_end, send_all
from profiles.audit import AuditLog
from profiles.config import Settings
from profiles.errors import BadMessage, ReleaseError
from profiles.events import ReleaseNotice, decode_notice, encode
from profiles.topics import Topics

SERVED = ("serving", "retired")


class ReleaseBoard:
    """The newest notice of every release.

    >>> board = ReleaseBoard()
    >>> board.put(ReleaseNotice("r1", "serving", 1, "store"))
    >>> board.put(ReleaseNotice("r2", "serving", 3, "store"))
    >>> board.serving().release_id, board.next_sequence(), board.previous().release_id
    ('r2', 4, 'r1')
    """

    def __init__(self, notices: Iterable[ReleaseNotice] = ()) -> None:
        self._newest: dict[str, ReleaseNotice] = {}
        self._highest = 0
        for notice in notices:
            self.put(notice)

    def put(self, notice: ReleaseNotice) -> None:
        """Take a notice in; an older one of the same release changes nothing."""
        self._highest = max(self._highest, notice.sequence)
        known = self._newest.get(notice.release_id)
        if known is None or notice.sequence >= known.sequence:
            self._newest[notice.release_id] = notice

    def put_payload(self, payload: bytes | None) -> None:
        """Take a record in; a tombstone or an unreadable one is passed over."""
        try:
            self.put(decode_notice(payload))
        except BadMessage:
            return

    def get(self, release_id: str) -> ReleaseNotice | None:
        """The newest notice of a release."""
        return self._newest.get(release_id)

    def all(self) -> list[ReleaseNotice]:
        """Newest notice of every release, in order of sequence."""
        return sorted(self._newest.values(), key=_rank)

    def serving(self) -> ReleaseNotice | None:
        """What serves now."""
        found = [notice for notice in self._newest.values() if notice.status == "serving"]
        return max(found, key=_rank, default=None)

    def previous(self) -> ReleaseNotice | None:
        """What served before: where a rollback goes."""
        now = self.serving()
        found = [n for n in self._newest.values() if n.status in SERVED and n is not now]
        return max(found, key=_rank, default=None)

    def was_rolled_back_to(self, serving: ReleaseNotice) -> bool:
        """Whether a release serves because another one was rolled back after it was announced."""
        return any(
            notice.status == "rolled-back" and notice.sequence > serving.sequence
            for notice in self._newest.values()
        )

    def next_sequence(self) -> int:
        """The number of the next notice."""
        return self._highest + 1


def _rank(notice: ReleaseNotice) -> tuple[int, str]:
    return notice.sequence, notice.release_id


def read_board(settings: Settings) -> ReleaseBoard:
    """Read the releases topic to its end.  Raises: BrokerError, TopicError."""
    topic = Topics.under(settings.topics.prefix).releases
    consumer: KafkaConsumer = open_consumer(settings)
    try:
        board = ReleaseBoard()
        for record in read_to_end(consumer, topic, settings.broker.connect_timeout_s):
            board.put_payload(record.value)
        return board
    finally:
        consumer.close()


def next_notice(
    board: ReleaseBoard,
    last: ReleaseNotice,
    status: str,
    reason: str,
    now_s: float,
    figures: Mapping[str, float],
    share: float = 0.0,
) -> ReleaseNotice:
    """What comes after a release's last notice; `figures` are added to those of before."""
    return ReleaseNotice(
        last.release_id,
        status,
        board.next_sequence(),
        last.store_url,
        last.parent_id,
        now_s,
        reason,
        {**last.metrics, **figures},
        share,
    )


def rollback_notices(
    board: ReleaseBoard, reason: str, now_s: float, figures: Mapping[str, float]
) -> tuple[ReleaseNotice, ReleaseNotice]:
    """The release that served before serves again, and the present one is rolled back.

    Raises: ReleaseError when nothing served before.
    """
    current, previous = board.serving(), board.previous()
    if current is None or previous is None:
        raise ReleaseError(
            "there is nothing to roll back to: fewer than two releases have served; see "
            "`driftline releases list`, and promote one by its id"
        )
    serving = next_notice(board, previous, "serving", reason, now_s, {})
    gone = next_notice(board, current, "rolled-back", reason, now_s, figures)
    return serving, msgspec.structs.replace(gone, sequence=serving.sequence + 1)


def announce(
    producer: KafkaProducer, settings: Settings, *notices: ReleaseNotice, actor: str = "learner"
) -> None:
    """Publish notices, await every replica's acknowledgement, and note them in the audit log.

    Raises: BrokerError, AuditError.
    """
    topic = Topics.under(settings.topics.prefix).releases
    send_all(producer, topic, [(n.release_id.encode(), encode(n)) for n in notices])
    audit = AuditLog.of(settings)
    for notice in notices:
        audit.append(
            actor,
            f"release {notice.status}",
            release=notice.release_id,
            parent=notice.parent_id,
            sequence=notice.sequence,
            reason=notice.reason,
            metrics=notice.metrics,
        )
