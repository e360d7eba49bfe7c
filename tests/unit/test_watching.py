"""A worker looks after its topics: wrong twice in a row ends it, a broker that is away does not."""

from __future__ import annotations

import pytest

from profiles.errors import BrokerError, TopicError
from stream.watching import watch_topics

pytestmark = pytest.mark.unit

GONE = TopicError("topic 'x' does not exist")
AWAY = BrokerError("no Kafka answered")
DEFECT = ValueError("the end of the list")


class Looks:
    """What each look finds; None for all well."""

    def __init__(self, *found: Exception | None) -> None:
        self.left = list(found)

    def __call__(self) -> None:
        error = self.left.pop(0) if self.left else DEFECT
        if error is not None:
            raise error


@pytest.mark.parametrize(
    "looks",
    [
        Looks(None, GONE, GONE),
        Looks(GONE, None, GONE, AWAY, GONE),
        Looks(AWAY, AWAY, AWAY, GONE, GONE),
    ],
)
async def test_topics_that_are_wrong_twice_end_the_worker(looks: Looks) -> None:
    with pytest.raises(TopicError):
        await watch_topics(looks, pause_s=0.0)
    assert looks.left == []


@pytest.mark.parametrize("looks", [Looks(AWAY, AWAY, AWAY), Looks(GONE, None, GONE, None)])
async def test_a_broker_that_is_away_or_wrong_once_does_not(looks: Looks) -> None:
    with pytest.raises(ValueError, match="the end of the list"):
        await watch_topics(looks, pause_s=0.0)
