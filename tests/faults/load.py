"""Events that keep coming while something is done to the workers."""

from __future__ import annotations

import threading

from profiles.events import Event
from profiles.wire import encode
from tests.deployment import ITEMS, Deployment, make_events

USERS = 40
PAUSE_S = 0.05


def event_at(number: int, users: int) -> Event:
    """Event `number` of a stream in which so many users take turns."""
    return Event(
        event_id=f"e-{number}",
        user_id=f"user-{number % users}",
        item_id=f"item-{number * 7 % ITEMS}",
        action="rate",
        ts=1_000_000.0 + number,
        value=float(number % 5 + 1),
    )


class Load(threading.Thread):
    """An event of every user in turn, every `pause_s`, for as long as it runs."""

    def __init__(self, deployment: Deployment, pause_s: float = PAUSE_S) -> None:
        super().__init__(name="load", daemon=True)
        self._deployment = deployment
        self._pause_s = pause_s
        self._ended = threading.Event()
        self.sent = 0

    def run(self) -> None:
        number = 0
        while not self._ended.wait(self._pause_s):
            for event in make_events(USERS, each=1, start=number):
                self._deployment.producer.send(
                    self._deployment.topics.events, key=event.user_id.encode(), value=encode(event)
                )
                self.sent += 1
            number += 1

    def end(self) -> int:
        """Returns: how many events were sent, all of them acknowledged."""
        self._ended.set()
        self.join()
        self._deployment.producer.flush(60)
        return self.sent
