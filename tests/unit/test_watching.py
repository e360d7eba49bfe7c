"""A worker looks after its topics: wrong twice in a row ends it, a broker that is away does not."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from profiles.errors import BrokerError, TopicError
from stream.watching import watch_broker, watch_topics

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


async def test_a_broker_that_refuses_or_says_nothing_is_told_of_until_it_answers() -> None:
    told: list[str | None] = []

    async def ask() -> None:
        match len(told):
            case 1:
                raise KafkaConnectionError("refused")
            case 2:
                await asyncio.Event().wait()
            case 4:
                raise DEFECT

    with pytest.raises(ValueError, match="the end of the list"):
        await watch_broker(ask, told.append, pause_s=0.0, answer_s=0.01)
    assert [away is None for away in told] == [True, False, False, True]
    assert "refused" in str(told[1])
