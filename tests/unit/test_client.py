"""The client checks like a worker, says what Kafka did not take, and waits for its own answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import CommitFailedError, KafkaError, KafkaTimeoutError
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from profiles.answers import PREDICTION, Recommendation, Request, ScoredItem
from profiles.config import Settings
from profiles.errors import (
    BadMessage,
    BrokerError,
    NoAnswerError,
    ReleaseError,
    SettingsError,
)
from profiles.events import Event
from profiles.items import Item
from profiles.sealing import MAGIC
from profiles.settings.kafka import BrokerSettings
from profiles.tracing import OtlpTraces
from profiles.wire import encode
from stream.chunks import Record
from stream.client import AsyncDriftline, Driftline, asynchronous
from stream.client.payloads import Contract
from stream.client.reading import AnswerDesk, Subscription
from stream.codecs import Rules, decode_chunk
from tests.unit.builders import make_record

pytestmark = pytest.mark.unit

NOW_S = 1_700_000_000.0
SETTINGS = Settings()
CONTRACT = Contract.of(SETTINGS)
GOOD = Event("e1", "ann", "i1", "like", NOW_S)
BAD = {
    "invalid": Event("", "ann", "i1", "like", NOW_S),
    "bad-text": Event("e1", "ann\x00", "i1", "like", NOW_S),
    "bad-value": Event("e1", "ann", "i1", "like", NOW_S, value=1e31),
    "bad-time": Event("e1", "ann", "i1", "like", -1.0),
    "future-dated": Event("e1", "ann", "i1", "like", NOW_S + 1e6),
    "unknown-action": Event("e1", "ann", "i1", "sneeze", NOW_S),
    "oversized": Event("e1", "ann", "i1", "like", NOW_S, context={"x": "y" * 70_000}),
}


@dataclass
class FakeProducer:
    """Acknowledges at once, or fails, or never answers."""

    error: KafkaError | None = None
    client: None = None
    sent: list[tuple[str, bytes, bytes | None]] = field(default_factory=list)
    headers: list[list[tuple[str, bytes]]] = field(default_factory=list)

    async def send(
        self, topic: str, value: bytes | None, *, key: bytes, headers: list[tuple[str, bytes]]
    ) -> asyncio.Future[SimpleNamespace]:
        self.sent.append((topic, key, value))
        self.headers.append(headers)
        answer: asyncio.Future[SimpleNamespace] = asyncio.get_running_loop().create_future()
        if self.error is None:
            answer.set_result(SimpleNamespace())
        else:
            answer.set_exception(self.error)
        return answer


@pytest.fixture
def producer(monkeypatch: pytest.MonkeyPatch) -> FakeProducer:
    """What the client gets instead of a connection; every topic exists."""
    made = FakeProducer()

    @asynccontextmanager
    async def opened(broker: BrokerSettings) -> AsyncIterator[Any]:
        yield made

    async def all_exist(client: object, *names: str) -> dict[str, list[int]]:
        return {name: [0] for name in names}

    monkeypatch.setattr(asynchronous, "open_producer", opened)
    monkeypatch.setattr(asynchronous, "topic_partitions", all_exist)
    return made


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_event_is_refused_with_the_words_of_the_worker(reason: str) -> None:
    with pytest.raises(BadMessage) as refused:
        CONTRACT.events([GOOD, BAD[reason]], NOW_S)
    record = make_record(0, encode(BAD[reason]), BAD[reason].user_id)
    rules = Rules(dict.fromkeys(SETTINGS.actions, 0), CONTRACT.max_bytes, CONTRACT.max_ahead_s)
    (letter,) = decode_chunk([cast(Record, record)], rules, NOW_S).dead
    assert refused.value.reason == letter.reason == reason
    # A worker's clock is this test's: the whole sentence must agree.
    assert str(refused.value) == letter.detail


def test_a_lone_surrogate_is_refused_though_it_cannot_even_be_encoded() -> None:
    with pytest.raises(BadMessage, match="surrogate"):
        CONTRACT.event(Event("e1", "ann\ud800", "i1", "like", NOW_S), NOW_S)


async def test_of_events_with_a_bad_one_among_them_none_is_sent(producer: FakeProducer) -> None:
    async with AsyncDriftline(SETTINGS) as client:
        with pytest.raises(BadMessage):
            await client.send([GOOD, BAD["unknown-action"]])
        assert producer.sent == []


def test_a_span_that_is_open_goes_with_what_is_sent(producer: FakeProducer) -> None:
    traces = OtlpTraces(InMemorySpanExporter(), "shop", share=1.0)
    with Driftline(SETTINGS) as client:
        client.send([GOOD])
        with traces.span("a click") as span:
            client.send([GOOD])
    assert producer.headers == [[], [("traceparent", span.traceparent.encode())]]


def test_every_message_goes_to_its_topic_under_its_key(producer: FakeProducer) -> None:
    with Driftline(SETTINGS, prefix="shop") as client:
        event = client.act("ann", "i1", "rate", value=4.0, ts=5.0, session_id="s")
        client.put_items([Item("i1", "Heat")])
        client.remove_items(["i2"])
        client.declare("ann", "crime films", {"age": 30})
        erasure = client.erase("ann", "asked by letter")
    topics = [(topic, key) for topic, key, _ in producer.sent]
    assert topics == [
        ("shop.events.v1", b"ann"),
        ("shop.items.v1", b"i1"),
        ("shop.items.v1", b"i2"),
        ("shop.users.v1", b"ann"),
        ("shop.erasures.v1", b"ann"),
    ]
    values = [json.loads(value or b"{}") for _, _, value in producer.sent]
    assert values[0] == {
        "event_id": event.event_id, "user_id": "ann", "item_id": "i1", "action": "rate",
        "ts": 5.0, "value": 4.0, "session_id": "s",
    }  # fmt: skip
    assert producer.sent[2][2] is None
    assert values[4]["erasure_id"] == erasure


def test_what_kafka_did_not_take_is_said_and_leaving_does_not_hide_it(
    producer: FakeProducer,
) -> None:
    with Driftline(SETTINGS) as client:
        producer.error = KafkaTimeoutError("gone")
        with pytest.raises(BrokerError, match="acknowledged 0 of 1 messages"):
            client.act("ann", "i1", "like")
        producer.error = None
        client.act("ann", "i1", "like")


def test_a_client_that_is_not_open_says_so() -> None:
    async def act() -> None:
        await AsyncDriftline(SETTINGS).act("ann", "i1", "like")

    with pytest.raises(SettingsError, match="inside `with`"):
        asyncio.run(act())


class FakeConsumer:
    """Hands out batches of records, then nothing."""

    def __init__(self, *batches: list[Any], error: KafkaError | None = None) -> None:
        self.batches = list(batches)
        self.commits = 0
        self.error = error

    async def getmany(self, timeout_ms: int) -> dict[str, list[Any]]:
        await asyncio.sleep(0)
        if isinstance(self.error, KafkaTimeoutError):
            raise self.error
        return {"place": self.batches.pop(0)} if self.batches else {}

    async def commit(self) -> None:
        self.commits += 1
        if isinstance(self.error, CommitFailedError):
            raise self.error


def answered(user: str, output: str, cause_id: str = "r1", cause: str = "request") -> Any:
    value = Recommendation(output, user, [], "r", "r", 1, cause, cause_id, 0, 0, 1.0)
    return make_record(0, encode(value), user)


async def unsealed(user: bytes, payload: bytes) -> bytes:
    """Opens what a test has sealed with nothing but a mark in front."""
    return payload.removeprefix(MAGIC)


async def test_an_encrypted_answer_is_opened_only_for_who_waits() -> None:
    desk = AnswerDesk(unsealed)
    sealed = [answered(user, f"of {user}") for user in ("ann", "bob")]
    for record in sealed:
        record.value = MAGIC + record.value
    place = desk.expect("ann", "r1")
    for record in sealed:
        desk.take(record)
    assert len(desk._opening) == 1
    assert (await desk.answer("ann", "r1", place, 5.0)).output_id == "of ann"


async def test_a_subscription_gives_each_output_once_and_only_of_its_users() -> None:
    tombstone, broken = make_record(0, b"", "ann"), make_record(0, b"{", "ann")
    tombstone.value = None
    consumer = FakeConsumer(
        [answered("ann", "o1"), answered("bob", "o2"), tombstone, broken],
        [answered("ann", "o1"), answered("ann", "o3")],
    )
    subscription = Subscription(cast(AIOKafkaConsumer, consumer), {"ann": "ann"}, group=False)
    found = [await subscription.next(1.0), await anext(subscription)]
    assert [entry.output_id for entry in found if entry] == ["o1", "o3"]
    assert await subscription.next(0.0) is None
    assert consumer.commits == 0


async def test_a_group_commits_a_batch_only_when_more_is_asked_for() -> None:
    consumer = FakeConsumer([answered("ann", "o1"), answered("ann", "o2")], [answered("b", "o3")])
    subscription = Subscription(cast(AIOKafkaConsumer, consumer), None, group=True)
    await anext(subscription)
    await anext(subscription)
    assert consumer.commits == 0
    await anext(subscription)
    assert consumer.commits == 1


async def test_a_commit_that_comes_after_a_rebalance_does_no_harm() -> None:
    consumer = FakeConsumer(
        [answered("ann", "o1")], [answered("b", "o2")], error=CommitFailedError()
    )
    subscription = Subscription(cast(AIOKafkaConsumer, consumer), None, group=True)
    assert [(await anext(subscription)).output_id for _ in range(2)] == ["o1", "o2"]


async def test_who_waits_hears_that_answers_cannot_be_read() -> None:
    consumer = FakeConsumer(error=KafkaTimeoutError("gone"))
    desk = AnswerDesk(unsealed)
    place = desk.expect("ann", "r1")
    reading = asyncio.create_task(desk._read(cast(AIOKafkaConsumer, consumer)))
    with pytest.raises(BrokerError, match="answers cannot be read"):
        await desk.answer("ann", "r1", place, 5.0)
    reading.cancel()


async def test_an_answer_reaches_the_request_it_is_for_and_a_missing_one_times_out() -> None:
    records = [answered("ann", "o1", "r2"), answered("ann", "o2", "r1", cause="event")]
    desk = AnswerDesk(unsealed)
    places = {name: desk.expect("ann", name) for name in ("r1", "r2")}
    for record in records:
        desk.take(record)
    assert (await desk.answer("ann", "r2", places["r2"], 5.0)).output_id == "o1"
    with pytest.raises(NoAnswerError, match="request r1 within 0 s"):
        await desk.answer("ann", "r1", places["r1"], 0.0)
    assert desk._waiting == {}


async def test_a_prediction_reaches_who_asked_and_no_subscription() -> None:
    predicted = answered("ann", "o1", "r1", cause=PREDICTION)
    desk = AnswerDesk(unsealed)
    place = desk.expect("ann", "r1")
    desk.take(predicted)
    assert (await desk.answer("ann", "r1", place, 5.0)).output_id == "o1"

    consumer = FakeConsumer([predicted, answered("ann", "o2")])
    subscription = Subscription(cast(AIOKafkaConsumer, consumer), None, group=False)
    assert (await anext(subscription)).output_id == "o2"


async def test_a_release_without_calibration_is_said_and_not_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Request] = []
    answer = Recommendation(
        "o1", "ann", [ScoredItem("i1", 1.0)], "r7", "r7", 1, PREDICTION, "q", 0, 0, 1.0
    )

    async def ask(self: AsyncDriftline, request: Request, timeout_s: float) -> Recommendation:
        asked.append(request)
        return answer

    monkeypatch.setattr(AsyncDriftline, "_ask", ask)
    client = AsyncDriftline(SETTINGS)
    with pytest.raises(ReleaseError, match=r"'r7' gives no probabilities.*multi_task"):
        await client.predict("ann", ["i1", "i2"])
    assert [request.items for request in asked] == [["i1", "i2"]]
    with pytest.raises(SettingsError, match="at least one item"):
        await client.predict("ann", [])
