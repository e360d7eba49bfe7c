"""Made-up news for the opinion monitor: tales are labelled negative, songs positive.

Time is the posts' own.
"""

from __future__ import annotations

import time

from profiles.items import Item
from profiles.opinions import Label
from profiles.wire import encode
from tests.deployment import ITEMS, Deployment

MONITOR = {
    "DRIFTLINE_MONITOR__BUCKET_S": "60",
    "DRIFTLINE_MONITOR__WINDOW_S": "600",
    "DRIFTLINE_MONITOR__LATE_S": "0",
    "DRIFTLINE_MONITOR__SEASON_S": "3600",
    "DRIFTLINE_MONITOR__WARM_UP_S": "1800",
    "DRIFTLINE_MONITOR__CALM_S": "300",
    "DRIFTLINE_MONITOR__MIN_LABELS": "10",
    "DRIFTLINE_MONITOR__RETRAIN_LABELS": "10",
    "DRIFTLINE_HTTP__PORT": "0",
}
"""Minutes where a deployment has hours."""


class Newsroom:
    """Posts about one entity, minute by minute of their own time."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.minute = 0
        self._began_s = time.time() - 12 * 3600.0

    def post(self, kind: str) -> None:
        number = f"{self.minute}-{time.monotonic_ns()}"
        item = Item(number, f"{kind} number 1", tags=[kind], attributes={"entity": "Nordbank"})
        at_ms = int((self._began_s + self.minute * 60.0) * 1000)
        self._deployment.producer.send(
            self._deployment.topics.items, key=number.encode(), value=encode(item),
            timestamp_ms=at_ms,
        )  # fmt: skip

    def play(self, minutes: int, tales: int) -> None:
        """One song a minute, a tale every third, and so many more."""
        for _ in range(minutes):
            self.post("song")
            for _ in range(tales + (self.minute % 3 == 0)):
                self.post("tale")
            self.minute += 1
        self._deployment.producer.flush(30)


def label_everything(deployment: Deployment) -> None:
    for number in range(ITEMS):
        is_tale = number < ITEMS // 2
        label = Label(
            f"item-{number}", "negative" if is_tale else "positive", "tale" if is_tale else "song"
        )
        deployment.send(deployment.topics.labels, label.item_id, encode(label))
