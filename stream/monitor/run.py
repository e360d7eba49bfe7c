"""The process `driftline monitor`: its parts, and how they start and end.

One per domain: a second one on this machine is refused (by the lock of its directory), one
elsewhere would tell every alert a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal

from prometheus_client import CollectorRegistry

from profiles.config import Settings
from profiles.endpoint import Endpoint
from profiles.logs import get_logger
from profiles.metrics import MonitorMetrics
from profiles.topics import Topics
from stream.following import in_background, open_reader
from stream.instance import instance_directory
from stream.language_model import LanguageModel
from stream.monitor.reading import Reader
from stream.monitor.service import Monitor
from stream.publisher import Publisher
from stream.watching import watch_broker

log = get_logger("stream.monitor")


def run_monitor(settings: Settings, language_model: LanguageModel) -> None:
    """Monitor until SIGINT or SIGTERM.  Raises: DriftlineError for what an operator can right."""
    asyncio.run(_run(settings, language_model))


async def _run(settings: Settings, language_model: LanguageModel) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    registry = CollectorRegistry()
    metrics = MonitorMetrics(registry)
    away: list[str | None] = [None]
    async with contextlib.AsyncExitStack() as stack:
        directory = stack.enter_context(instance_directory(settings.store.directory, "monitor"))
        consumer = await stack.enter_async_context(
            open_reader(
                settings.broker,
                "the monitor's topics",
                group_id=settings.monitor.group,
                max_partition_fetch_bytes=4 * 2**20,
            )
        )
        topics = Topics.under(settings.topics.prefix)
        publisher = Publisher(settings.broker, topics, "driftline-monitor")
        await publisher.start()
        stack.push_async_callback(publisher.stop)
        reader = Reader(settings, language_model, directory / "releases")
        monitor = Monitor(settings, reader, consumer, publisher, metrics)
        stack.push_async_callback(monitor.close)

        def why_not_ready() -> str | None:
            reason = away[0] or monitor.why_not_ready()
            metrics.ready.set(reason is None)
            return reason

        def tell(reason: str | None) -> None:
            away[0] = reason
            why_not_ready()

        endpoint = Endpoint(settings.http, settings.security, registry, why_not_ready, lambda: None)
        stack.callback(endpoint.close)
        log.info("monitor starting", http=endpoint.port)
        await language_model.checked()
        await monitor.begin()
        await stack.enter_async_context(in_background(watch_broker(publisher.reach, tell)))
        stopping = asyncio.create_task(stop.wait())
        while not stop.is_set():
            turn = asyncio.create_task(monitor.turn())
            await asyncio.wait({turn, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                # A turn that waits for the broker or the language model may be cut: nothing that
                # it has not committed is lost.
                turn.cancel()
                await asyncio.gather(turn, return_exceptions=True)
                break
            turn.result()
        log.info("monitor stopping")
