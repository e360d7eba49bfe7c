"""The `releases` topic: reading it, deciding what comes next, and saying so.

How its notices are read together: `profiles.board`.  Whoever writes takes the highest sequence
seen plus one; learner and operator write rarely enough that two never meet, and if they do, both
notices stand and the release id decides for every reader alike.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from kafka import KafkaConsumer, KafkaProducer

from learner.kafka_edge import open_consumer, read_messages, read_to_end, send_all
from profiles.audit import AuditLog
from profiles.board import ReleaseBoard
from profiles.config import Settings
from profiles.errors import ReleaseError
from profiles.notices import PolicyOrder, ReleaseNotice
from profiles.policies import PolicyBoard
from profiles.topics import Topics
from profiles.wire import encode


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


def read_freeze(settings: Settings) -> PolicyOrder | None:
    """The order that stops promotions, if one holds.  Raises: BrokerError, TopicError."""
    board = PolicyBoard()
    for order in read_messages(
        settings, Topics.under(settings.topics.prefix).policies, PolicyOrder
    ):
        board.put(order)
    return board.freeze


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
