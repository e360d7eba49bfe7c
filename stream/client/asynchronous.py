"""Driftline from Python, awaiting: produce, declare, ask, subscribe, erase.

    async with AsyncDriftline() as driftline:
        await driftline.act("alice", "tent-1", "like")
        answer = await driftline.recommend("alice", k=3)

Everything goes through Kafka, so it works from any machine that reaches the broker.  A call that
sends returns when Kafka has acknowledged.  The settings (environment or TOML) must name the
deployment's prefix and actions, because events are checked against them before they leave.  A span
of OpenTelemetry's that is open goes with what is sent, as the header `traceparent`.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import msgspec
from aiokafka.errors import KafkaError

from profiles.answers import Filters, Recommendation, Request
from profiles.config import Settings, load_settings
from profiles.erasures import Erasure
from profiles.errors import BrokerError, ReleaseError, SettingsError
from profiles.events import Event
from profiles.items import Item, User
from profiles.pseudonyms import Pseudonyms, names_of
from profiles.sealing import MasterKeys
from profiles.topics import Topics
from profiles.tracing import current_headers
from profiles.wire import Context, Scalar, check_key
from stream.client.payloads import Contract, Payload
from stream.client.reading import AnswerDesk, Subscription, open_reader
from stream.key_feed import KeyFeed
from stream.outbox import DELIVERY_TIMEOUT_S, WINDOW, look_at, open_producer, topic_partitions


class AsyncDriftline:
    """A client of one deployment.  Use it as an async context manager; safe for many tasks."""

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        bootstrap: str | None = None,
        prefix: str | None = None,
        pseudonyms: Pseudonyms | None = None,
        answers: AnswerDesk | None = None,
    ) -> None:
        """`settings` default to what `load_settings` reads; the others win over them.

        `pseudonyms` stand in the topics for user ids (docs/privacy.md); what is asked about a
        user comes back under the id that was asked with.  `answers`: of a process that reads
        recommendations anyway and hands them to it; else one is opened by the first question.

        Raises: SettingsError.
        """
        settings = settings or load_settings()
        broker = settings.broker
        self._broker = broker.model_copy(update={"bootstrap": bootstrap}) if bootstrap else broker
        self._topics = Topics.under(prefix or settings.topics.prefix)
        contract = Contract.of(settings)
        self._contract = replace(contract, names=pseudonyms) if pseudonyms else contract
        self._stack = AsyncExitStack()
        self._producer: Any = None  # Any: aiokafka is untyped
        self._desk = answers
        self._key_service = MasterKeys.of(settings.privacy)
        self._key_feed: KeyFeed | None = None
        self._opening = asyncio.Lock()
        self._undelivered: BrokerError | None = None

    async def __aenter__(self) -> Self:
        """Connect.  Raises: BrokerError, TopicError."""
        producer = await self._stack.enter_async_context(open_producer(self._broker))
        topics = self._topics
        try:
            await topic_partitions(
                producer.client, topics.events, topics.items, topics.users, topics.requests
            )
        except BaseException:
            await self._stack.aclose()
            raise
        self._producer = producer
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._producer = None
        if error is None and self._undelivered is not None:
            # Kafka is away: leaving must not wait for it.
            kind, error = type(self._undelivered), self._undelivered
        await self._stack.__aexit__(kind, error, trace)

    async def act(
        self,
        user_id: str,
        item_id: str,
        action: str,
        *,
        value: float | None = None,
        ts: float | None = None,
        event_id: str | None = None,
        session_id: str | None = None,
        context: Context | None = None,
        text: str | None = None,
    ) -> Event:
        """Send one event; `ts` is now and `event_id` a new one unless given; `text` is what the
        user said about the item.

        Raises: BadMessage when a worker would refuse it; BrokerError.
        """
        event = Event(
            event_id or uuid.uuid4().hex,
            user_id,
            item_id,
            action,
            time.time() if ts is None else ts,
            value,
            session_id,
            context,
            text,
        )
        await self.send([event])
        return event

    async def say(
        self, user_id: str, text: str, action: str, *, event_id: str | None = None
    ) -> Event:
        """Send words that are about no item: a search, a question, a comment.

        Raises: as `act`.
        """
        return await self.act(user_id, "", action, text=text, event_id=event_id)

    async def send(self, events: Iterable[Event]) -> int:
        """Send events; the same `event_id` again is the same event again.  Returns how many.

        All are checked before the first one leaves.  Raises: BadMessage; BrokerError.
        """
        payloads = self._contract.events(events, time.time())
        await self._deliver(self._topics.events, payloads)
        return len(payloads)

    async def put_items(self, items: Iterable[Item]) -> int:
        """Add items to the catalogue or replace them; before the events that name them.

        Raises: BadMessage; BrokerError.
        """
        payloads = [self._contract.message(item.item_id, item) for item in items]
        await self._deliver(self._topics.items, payloads)
        return len(payloads)

    async def remove_items(self, item_ids: Iterable[str]) -> None:
        """Take items out of the catalogue.  Raises: BadMessage; BrokerError."""
        await self._deliver(self._topics.items, [(item_id, None) for item_id in item_ids])

    async def declare(
        self, user_id: str, interests: str, attributes: Mapping[str, Scalar] | None = None
    ) -> None:
        """Say in words what a user likes, which counts from her first recommendation on.

        Raises: BadMessage; BrokerError.
        """
        user = User(user_id, interests, dict(attributes or {}))
        await self._deliver(self._topics.users, [self._contract.message(user_id, user)])

    async def recommend(
        self,
        user_id: str,
        k: int = 10,
        *,
        filters: Filters | None = None,
        exclude: Sequence[str] = (),
        context: Context | None = None,
        timeout_s: float = 10.0,
    ) -> Recommendation:
        """Ask for recommendations now and wait for them.

        Raises: NoAnswerError when no worker answers in time; BadMessage; BrokerError.
        """
        request = Request(
            uuid.uuid4().hex, user_id, k, filters or Filters(), list(exclude), context
        )
        return await self._ask(request, timeout_s)

    async def predict(
        self, user_id: str, items: Sequence[str], *, timeout_s: float = 10.0
    ) -> Recommendation:
        """How likely an act of the user on each of these items would be a positive one.

        Returns: the items, the most likely first, each with its `probability`; those that the
            catalogue or the release does not have, and blocked ones, are missing.
        Raises: ReleaseError when the serving release gives no probabilities; SettingsError for no
            items; NoAnswerError when no worker answers in time; BadMessage; BrokerError.
        """
        if not items:
            raise SettingsError("predict() wants at least one item id")
        answer = await self._ask(Request(uuid.uuid4().hex, user_id, items=list(items)), timeout_s)
        if any(item.probability is None for item in answer.items):
            raise ReleaseError(
                f"release {answer.release_id!r} gives no probabilities: it was learned with "
                "learner.objective = 'next_item', or its validation had too few events of one "
                "verdict; with 'click' or 'multi_task' the next round's release gives them"
            )
        return answer

    async def _ask(self, request: Request, timeout_s: float) -> Recommendation:
        user_id = request.user_id
        payload = self._contract.message(user_id, request)
        desk = await self._answers()
        name = self._contract.key(user_id)
        waiting = desk.expect(name, request.request_id)
        try:
            await self._deliver(self._topics.requests, [payload])
        except BaseException:
            desk.forget(name, request.request_id)
            raise
        answer = await desk.answer(name, request.request_id, waiting, timeout_s)
        return msgspec.structs.replace(answer, user_id=user_id)

    @asynccontextmanager
    async def subscribe(
        self, users: Collection[str] | None = None, group: str | None = None
    ) -> AsyncIterator[Subscription]:
        """Recommendations as they are made, of `users` or of all, each once.

        Args:
            group: processes that name one share the users between them, and go on after a
                restart where they were (at least once); without one, from now on.
        Raises: BrokerError, TopicError.
        """
        keys = await self._keys()
        async with open_reader(self._broker, self._topics.recommendations, group) as consumer:
            known = None
            if users is not None:
                names = self._contract.names
                known = {name: user for user in users for name in names_of(names, user)}
            yield Subscription(consumer, known, group is not None, keys)

    async def erase(self, user_id: str, reason: str = "") -> str:
        """Ask that a user be forgotten.  Returns: the id that the receipts will carry.

        Raises: BadMessage; BrokerError.
        """
        erasure = Erasure(uuid.uuid4().hex, user_id, time.time(), reason)
        await self._deliver(self._topics.erasures, self._contract.erasures(erasure))
        return erasure.erasure_id

    async def _answers(self) -> AnswerDesk:
        """The reader of answers, opened by the first question: who only produces has none."""
        if self._desk is not None:
            return self._desk
        keys = await self._keys()
        async with self._opening:
            if self._desk is None:
                self._desk = await self._stack.enter_async_context(
                    AnswerDesk.opened(self._broker, self._topics.recommendations, keys)
                )
            return self._desk

    async def _keys(self) -> KeyFeed | None:
        """The users' keys, followed from the first reading on; None where nothing is encrypted."""
        if self._key_service is None:
            return None
        async with self._opening:
            if self._key_feed is None:
                self._key_feed = await self._stack.enter_async_context(
                    KeyFeed.opened(self._broker, self._topics.keys, self._key_service)
                )
            return self._key_feed

    async def _deliver(self, topic: str, payloads: Sequence[Payload]) -> None:
        """Send and wait for every acknowledgement.  Raises: BadMessage (a bad key), BrokerError."""
        if self._producer is None:
            raise SettingsError("use the client inside `with` (or `async with`): it is not open")
        records = [(check_key(key), value) for key, value in payloads]
        for start in range(0, len(records), WINDOW):
            await self._send_window(topic, records[start : start + WINDOW])

    async def _send_window(self, topic: str, records: list[tuple[bytes, bytes | None]]) -> None:
        sent: list[asyncio.Future[Any]] = []  # Any: aiokafka's RecordMetadata is untyped
        headers = current_headers()
        try:
            async with asyncio.timeout(DELIVERY_TIMEOUT_S):
                for key, value in records:
                    sent.append(await self._producer.send(topic, value, key=key, headers=headers))
                # Not `gather`: its cancellation would reach into the producer's own futures.
                await asyncio.wait(sent)
            for future in sent:
                future.result()
        except (KafkaError, OSError, TimeoutError) as error:
            for future in sent:
                future.add_done_callback(look_at)
            acked = sum(future.done() and future.exception() is None for future in sent)
            self._undelivered = BrokerError(
                f"Kafka acknowledged {acked} of {len(records)} messages to {topic} within "
                f"{DELIVERY_TIMEOUT_S:g} s ({error!r}); send them again when it is back: event ids "
                "make repeated events harmless"
            )
            raise self._undelivered from error
        self._undelivered = None
