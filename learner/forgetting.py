"""Erasure in the learner: everything of a user leaves the buffer, and a receipt says so.

A round that is training on the user's events is dropped and begun again without them.  What was
learned before cannot be taken out of a release; the receipt names the releases that stand on the
user's events.  With `retrain` they are withdrawn: the last one made before her first event serves,
and everything that came since is learned again without her.
"""

from __future__ import annotations

import time

from kafka import KafkaProducer

from learner.feeds import BoardFeed
from learner.kafka_edge import send_all
from learner.publishing import Rounds
from learner.replay import ReplayBuffer
from profiles.audit import AuditLog
from profiles.erasures import Receipt
from profiles.logs import get_logger
from profiles.wire import encode

log = get_logger("learner.forgetting")

COMPONENT = "learner"


class Eraser:
    """Works off the erasures that the board has read."""

    def __init__(
        self,
        board: BoardFeed,
        buffer: ReplayBuffer,
        producer: KafkaProducer,
        rounds: Rounds,
        audit: AuditLog,
    ) -> None:
        self._board, self._buffer = board, buffer
        self._producer, self._rounds, self._audit = producer, rounds, audit
        topic = board.topics.erasures
        self._done = buffer.offsets(topic, board.erasure_partitions)

    def run(self) -> None:
        """Erase what was asked for since the last turn.

        The offset is kept after the receipt is acknowledged: a kill between the two erases again,
        finds nothing, and says so in a second receipt.
        """
        waiting = [
            request
            for request in self._board.erasures
            if request.offset >= self._done.get(request.partition, 0)
        ]
        self._board.erasures.clear()
        if not waiting:
            return
        users = [request.user for request in waiting]
        self._rounds.drop_if_about(set(users))
        report = self._buffer.erase(users, self._board.erased_at_ms)
        affected = {
            release for request in waiting if request.retrain for release in report[request.user][1]
        }
        rebuilt_from = self._rounds.go_back(affected) if affected else None
        receipts: list[tuple[bytes, bytes]] = []
        erased: dict[str, dict[str, int]] = {}
        for request in waiting:
            counts, releases = report[request.user]
            receipt = Receipt(
                erasure_id=request.erasure_id,
                user_id=request.user_id,
                component=COMPONENT,
                erased=counts,
                releases=releases,
                erased_at=time.time(),
                rebuilt_from=rebuilt_from if request.retrain else None,
            )
            receipts.append((request.user_id.encode(), encode(receipt)))
            erased[request.erasure_id] = counts
            self._done[request.partition] = request.offset + 1
        send_all(self._producer, self._board.topics.receipts, receipts)
        for erasure_id, counts in erased.items():
            self._audit.append(COMPONENT, "erasure", erasure=erasure_id, erased=counts)
        self._buffer.ingest(self._board.topics.erasures, [], self._done)
        log.info("users erased", users=len(report))
