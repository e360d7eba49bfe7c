"""Events that keep coming while something is done to the workers."""

from __future__ import annotations

import threading

from profiles.events import encode
from tests.deployment import Deployment, make_events

USERS = 40
PAUSE_S = 0.05


class Load(threading.Thread):
    """An event of every user in turn, for as long as it runs."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(name="load", daemon=True)
        self._deployment = deployment
        self._ended = threading.Event()
        self.sent = 0

    def run(self) -> None:
        number = 0
        while not self._ended.wait(PAUSE_S):
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
