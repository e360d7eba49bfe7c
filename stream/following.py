"""What readers that follow topics from outside a group need: a consumer, and a task beside it.

The API's read model and the readers of encrypted recommendations both read a topic to its present
end and go on in the background until they are left.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from profiles.broker_access import security_options
from profiles.errors import BrokerError
from profiles.settings.kafka import BrokerSettings
from stream.outbox import connect


@asynccontextmanager
async def open_reader(
    broker: BrokerSettings, what: str, **options: Any
) -> AsyncIterator[AIOKafkaConsumer]:
    """A started consumer in no group, which is stopped at the end.

    `what` it reads, for the error; `options` are aiokafka's own, hence Any.
    Raises: BrokerError, also for what Kafka refuses while it is open.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker.bootstrap,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        **security_options(broker),
        **options,
    )
    await connect(consumer, broker)
    try:
        yield consumer
    except KafkaError as error:
        raise BrokerError(f"{what} cannot be read: {error!r}") from error
    finally:
        await consumer.stop()


@asynccontextmanager
async def in_background(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Runs `work` as a task that is cancelled at the end."""
    running = asyncio.create_task(work)
    try:
        yield
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
