"""Giving orders: `driftline items block` and `driftline releases freeze`, as functions.

An order counts once every replica of Kafka has it; then it is written to the audit log.
"""

from __future__ import annotations

import time

from profiles.audit import AuditLog
from profiles.config import Settings
from profiles.errors import SettingsError
from profiles.notices import PolicyKind, PolicyOrder
from profiles.policies import PolicyBoard
from profiles.topics import Topics
from profiles.wire import check_key, encode
from stream.oracle.records import read_topic
from stream.outbox import Outbox


async def give_order(
    settings: Settings, kind: PolicyKind, target: str, *, active: bool, reason: str = ""
) -> PolicyOrder:
    """Send an order and note it in the audit log.

    Raises: SettingsError when there is nothing to lift; BadMessage for an id that no item can
    have; BrokerError, TopicError, AuditError.
    """
    check_key(target)
    order = PolicyOrder(kind, target, active, reason, time.time())
    if not active and order.name not in {held.name for held in read_orders(settings).all()}:
        raise SettingsError(
            f"{order.name!r} is not in force, so there is nothing to lift; "
            "`driftline items blocked` lists what is"
        )
    topic = Topics.under(settings.topics.prefix).policies
    async with Outbox.connected(settings.broker) as outbox:
        await outbox.check_topics(topic)
        await outbox.send(topic, order.name, encode(order))
        await outbox.drain()
    AuditLog.of(settings).append(
        "operator",
        f"{kind} {'ordered' if active else 'lifted'}",
        target=target,
        reason=reason,
    )
    return order


def read_orders(settings: Settings) -> PolicyBoard:
    """The orders that stand in the topic now.  Raises: BrokerError, TopicError."""
    board = PolicyBoard()
    for raw in read_topic(settings.broker, Topics.under(settings.topics.prefix).policies):
        board.put_payload(raw.key, raw.value)
    return board
