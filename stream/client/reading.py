"""Recommendations as they come: a subscription, and the desk where requests wait for answers.

Both read every partition from now on, in no group, unless a subscription names one: then its
members share the users, and after a restart it goes on where it was.  Delivery is at least once;
what was seen under one `output_id` among the last `REMEMBERED` is not given out again.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Self

import msgspec
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError

from profiles.answers import PREDICTION, Recommendation
from profiles.broker_access import security_options
from profiles.errors import BadMessage, BrokerError, DriftlineError, NoAnswerError, SealError
from profiles.sealing import RECOMMENDATION, is_sealed, no_key
from profiles.settings.kafka import BrokerSettings
from profiles.wire import decode_json
from stream.following import in_background
from stream.key_feed import KeyFeed
from stream.outbox import connect, topic_partitions

REMEMBERED = 10_000
POLL_MS = 500
READ_AGAIN_S = 1.0
ANSWERS = ("request", PREDICTION)
"""Causes of what somebody asked for."""
Unseal = Callable[[bytes, bytes], Awaitable[bytes]]


@asynccontextmanager
async def open_reader(
    broker: BrokerSettings, topic: str, group: str | None = None
) -> AsyncIterator[AIOKafkaConsumer]:
    """A consumer whose position is settled when it is handed out.

    Without a group: the end of every partition, now.  Raises: BrokerError, TopicError.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="latest",
        **security_options(broker),
    )
    await connect(consumer, broker)
    try:
        partitions = await topic_partitions(consumer._client, topic)
        if group is None:
            consumer.assign([TopicPartition(topic, number) for number in partitions[topic]])
        else:
            assigned = _Assigned()
            consumer.subscribe([topic], listener=assigned)
            with suppress(TimeoutError):
                await asyncio.wait_for(assigned.event.wait(), broker.connect_timeout_s)
        for place in consumer.assignment():
            with suppress(IllegalStateError):  # the group has been divided anew meanwhile
                await consumer.position(place)
        yield consumer
    except KafkaError as error:
        raise BrokerError(f"topic {topic} cannot be read: {error!r}") from error
    finally:
        await consumer.stop()


class _Assigned(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka is untyped
    """Is set when the group has given us our share, which may be none."""

    def __init__(self) -> None:
        self.event = asyncio.Event()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Nothing is kept by partition."""

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """The group has been divided."""
        self.event.set()


class Subscription:
    """An endless iterator of recommendations; `next` is its form with a timeout.

    `users`: from the name that stands in the topics to the id that is given out.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        users: Mapping[str, str] | None,
        group: bool,
        keys: KeyFeed | None = None,
    ) -> None:
        self._consumer = consumer
        self._keys = keys
        self._users = None
        if users is not None:
            self._users = {name.encode(): user for name, user in users.items()}
        self._commits = group
        self._ready: deque[Recommendation] = deque()
        self._seen: OrderedDict[str, None] = OrderedDict()
        self._given = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Recommendation:
        while (found := await self.next(timeout_s=POLL_MS / 1000)) is None:
            pass
        return found

    async def next(self, timeout_s: float) -> Recommendation | None:
        """The next one, or None if none comes within the time.  Raises: BrokerError."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._ready:
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return None
            try:
                if self._commits and self._given:
                    # Whoever asks for more is done with what was handed out.
                    with suppress(CommitFailedError):  # now another member's, who reads it again
                        await self._consumer.commit()
                    self._given = False
                fetched = await self._consumer.getmany(timeout_ms=int(left_s * 1000) + 1)
            except KafkaError as error:
                raise BrokerError(f"recommendations cannot be read: {error!r}") from error
            for records in fetched.values():
                self._given = True
                for record in records:
                    await self._take(record)
        return self._ready.popleft()

    async def _take(self, record: Any) -> None:  # Any: aiokafka's ConsumerRecord
        if record.value is None or (self._users is not None and record.key not in self._users):
            return  # a tombstone says that the user was erased
        with suppress(BadMessage):
            found = decode_json(await _readable(record, self._keys), Recommendation)
            if found.output_id in self._seen or found.cause == PREDICTION:
                return  # a prediction is for who asked for it: nothing of it is to be shown
            self._seen[found.output_id] = None
            if self._users is not None:
                found = msgspec.structs.replace(found, user_id=self._users[record.key])
            if len(self._seen) > REMEMBERED:
                self._seen.popitem(last=False)
            self._ready.append(found)


class AnswerDesk:
    """Hands the answer of a request to whoever waits for it.

    Either it reads the topic itself (`opened`), or somebody who reads it anyway gives it every
    record (`take`).  `unseal`: an encrypted payload of a user, opened; raises SealError.
    """

    def __init__(self, unseal: Unseal) -> None:
        self._unseal = unseal
        self._opening: set[asyncio.Task[None]] = set()
        self._waiting: dict[bytes, dict[str, asyncio.Future[Recommendation]]] = {}

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, broker: BrokerSettings, topic: str, keys: KeyFeed | None = None
    ) -> AsyncIterator[Self]:
        """A desk whose reader runs until it is left.  Raises: BrokerError, TopicError."""

        async def unseal(user: bytes, payload: bytes) -> bytes:
            return await _unsealed(user, payload, keys)

        async with open_reader(broker, topic) as consumer:
            desk = cls(unseal)
            async with in_background(desk._read(consumer)):
                yield desk

    def expect(self, user_id: str, request_id: str) -> asyncio.Future[Recommendation]:
        """A place to wait at; taken before the request is sent."""
        waiting: asyncio.Future[Recommendation] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(user_id.encode(), {})[request_id] = waiting
        return waiting

    async def answer(
        self, user_id: str, request_id: str, waiting: asyncio.Future[Recommendation], wait_s: float
    ) -> Recommendation:
        """Wait for it.  Raises: NoAnswerError, BrokerError."""
        try:
            return await asyncio.wait_for(waiting, wait_s)
        except TimeoutError:
            raise NoAnswerError(
                f"no answer to request {request_id} within {wait_s:g} s; is a worker ready "
                "(/readyz), and does a release serve (`driftline releases list`)?"
            ) from None
        finally:
            self.forget(user_id, request_id)

    def forget(self, user_id: str, request_id: str) -> None:
        """Give a place up."""
        user = user_id.encode()
        if requests := self._waiting.get(user):
            requests.pop(request_id, None)
            if not requests:
                del self._waiting[user]

    def take(self, record: Any) -> None:  # Any: aiokafka's ConsumerRecord
        """Everybody's recommendations pass here: only those of a user who waits are decoded."""
        if record.key not in self._waiting or not record.value:
            return
        if not is_sealed(record.value):
            self._hand_over(record.key, record.value)
            return
        task = asyncio.create_task(self._open(record.key, record.value))
        self._opening.add(task)
        task.add_done_callback(self._opening.discard)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            try:
                fetched = await consumer.getmany(timeout_ms=POLL_MS)
            except KafkaError as error:
                self._fail(BrokerError(f"answers cannot be read: {error!r}"))
                await asyncio.sleep(READ_AGAIN_S)
                continue
            for records in fetched.values():
                for record in records:
                    self.take(record)

    def _fail(self, error: DriftlineError) -> None:
        """Everybody who waits hears of it."""
        for requests in self._waiting.values():
            for waiting in requests.values():
                if not waiting.done():
                    waiting.set_exception(error)

    async def _open(self, user: bytes, payload: bytes) -> None:
        try:
            self._hand_over(user, await self._unseal(user, payload))
        except SealError as error:
            self._fail(error)

    def _hand_over(self, user: bytes, payload: bytes) -> None:
        with suppress(BadMessage):
            answer = decode_json(payload, Recommendation)
            waiting = self._waiting.get(user, {}).get(answer.cause_id)
            if answer.cause in ANSWERS and waiting is not None and not waiting.done():
                waiting.set_result(answer)


async def _readable(record: Any, keys: KeyFeed | None) -> bytes:  # Any: aiokafka's ConsumerRecord
    """A recommendation's bytes, opened.  Raises: as `_unsealed`."""
    payload: bytes = record.value
    return await _unsealed(record.key, payload, keys) if is_sealed(payload) else payload


async def _unsealed(user: bytes, payload: bytes, keys: KeyFeed | None) -> bytes:
    """An encrypted recommendation, opened; empty when its user's key is gone.

    Raises: SealError when there is no master key, or a wrong one.
    """
    if keys is None:
        raise no_key()
    return await keys.open(RECOMMENDATION, user, payload) or b""
