"""The workers' reports of live outcomes, read with offsets of our own, kept beside the evidence."""

from __future__ import annotations

from collections.abc import Mapping

from learner.kafka_edge import close_on_error, end_offsets, open_consumer, partitions_of, poll
from profiles.config import Settings
from profiles.errors import BadMessage
from profiles.logs import get_logger
from profiles.notices import OutcomeWindow
from profiles.topics import Topics
from profiles.wire import decode_json

log = get_logger("learner.outcomes")


class OutcomeFeed:
    """Follows the outcomes topic.  Raises at start: BrokerError, TopicError.

    `offsets`: partition to the first report not taken; without one, reports begin now: what was
    reported before belongs to a stage that is over.
    """

    def __init__(self, settings: Settings, offsets: Mapping[int, int]) -> None:
        topic = Topics.under(settings.topics.prefix).outcomes
        self._consumer = open_consumer(settings)
        with close_on_error(self._consumer):
            self._partitions = partitions_of(
                self._consumer, topic, settings.broker.connect_timeout_s
            )
            self._consumer.assign(self._partitions)
            ends = end_offsets(self._consumer, self._partitions)
            for tp in self._partitions:
                stored = offsets.get(tp.partition, ends[tp])
                # A topic that was made anew is shorter than what was read of the old one.
                self._consumer.seek(tp, stored if stored <= ends[tp] else 0)

    def poll(self) -> list[OutcomeWindow]:
        """What has arrived; unreadable reports are passed over."""
        windows: list[OutcomeWindow] = []
        for records in poll(self._consumer, 0).values():
            for record in records:
                try:
                    windows.append(decode_json(record.value or b"", OutcomeWindow))
                except BadMessage as error:
                    log.warning("report of outcomes unreadable", error=str(error))
        return windows

    def offsets(self) -> dict[int, int]:
        """Where each partition goes on."""
        return {tp.partition: self._consumer.position(tp) for tp in self._partitions}

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()
