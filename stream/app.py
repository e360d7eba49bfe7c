"""A worker process, assembled: the parts, the order in which they start, and how they end.

Start: topics are checked, releases and items are read, the group is joined; a partition is read
once its profiles are restored, the catalogue is complete and a release serves.  Until all of that
holds, `/readyz` says what is missing.  Stop: Faust stops fetching, what is in flight is delivered
and committed, stores close; whatever hangs is cut off after `STOP_WITHIN_S`.  A worker that failed
does not wait for what is in flight: the chunk that failed will never be acknowledged, and Faust
would wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import uvloop
from faust.types import TP
from prometheus_client import CollectorRegistry

from profiles.broker_access import security_options
from profiles.compiled import prepare
from profiles.config import Settings
from profiles.endpoint import Endpoint
from profiles.errors import DriftlineError
from profiles.logs import get_logger
from profiles.metrics import WorkerMetrics
from profiles.topics import Topics, topic_specs
from profiles.tracing import open_traces
from stream.agents import register
from stream.allocator import collect_seldom, keep_freed_memory
from stream.assembly import build_worker, new_app
from stream.broadcast import Broadcast
from stream.chunks import ChunkApp
from stream.closed_transports import hear_of_closed_transports
from stream.instance import instance_directory
from stream.lag import watch_lag, watch_stores
from stream.language_model import LanguageModel
from stream.membership import Membership
from stream.policy_feed import PolicyFeed
from stream.publisher import Publisher
from stream.rules_feed import RulesFeed
from stream.state_thread import StateThread
from stream.topic_admin import check_offsets, check_topics, check_unchanged, topic_ids
from stream.watchdog import Watchdog
from stream.watching import watch_broker, watch_ready, watch_topics
from stream.worker import Worker

log = get_logger("stream.app")

STOP_WITHIN_S = 18.0
FAILED_STOP_WITHIN_S = 5.0
FLUSH_EVERY_S = 0.05
EXIT_STALLED = 75


def run_worker(
    settings: Settings, language_model: LanguageModel, instance: str | None = None
) -> None:
    """Run a worker until SIGINT or SIGTERM.

    Args:
        language_model: the child process that encodes texts; the caller closes it.
        instance: names the worker's own directory under store.directory; default the first one
            that no other worker on this machine holds.
    Raises: DriftlineError for anything that an operator can put right.
    """
    collect_seldom()
    keep_freed_memory()
    hear_of_closed_transports()
    prepare()  # the language model's process takes longer to start than this does
    with instance_directory(settings.store.directory, instance) as directory:
        uvloop.run(_Process(settings, directory, language_model).run())


class _Process:
    """Owns every part of the worker from start to stop."""

    def __init__(self, settings: Settings, directory: Path, language_model: LanguageModel) -> None:
        self._settings = settings
        self._language_model = language_model
        self._directory = directory
        self._membership = Membership(directory)
        self._failure: BaseException | None = None
        self._stop = asyncio.Event()
        self._worker: Worker | None = None
        self._broker_away: str | None = None

    async def run(self) -> None:
        """Start, serve, stop; raise what ended the worker."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._stop.set)
        settings = self._settings
        broker = settings.broker
        access = security_options(broker)
        topics = Topics.under(settings.topics.prefix)
        specs = topic_specs(settings.topics.prefix, settings.topics.partitions)
        language_model = self._language_model
        async with contextlib.AsyncExitStack() as stack:
            await asyncio.to_thread(
                check_topics,
                broker.bootstrap,
                specs,
                broker.connect_timeout_s,
                client_options=access,
            )
            ids = await asyncio.to_thread(
                topic_ids, broker.bootstrap, [spec.name for spec in specs], client_options=access
            )
            # Requests are not among them: nobody waits for the answer to an old one.
            inputs = (topics.events, topics.users, topics.erasures)
            await asyncio.to_thread(
                check_offsets,
                broker.bootstrap,
                settings.serving.group,
                inputs,
                client_options=access,
            )
            registry = CollectorRegistry()
            metrics = WorkerMetrics(registry)
            traces = open_traces(settings.observability, "driftline-worker")
            stack.callback(traces.close)
            state = StateThread()
            stack.callback(state.close)
            publisher = Publisher(broker, topics, f"driftline-{self._directory.name}")
            await publisher.start()
            stack.push_async_callback(publisher.stop)
            app = new_app(settings, self._directory)
            items = Broadcast(app, broker, topics.items)
            releases = Broadcast(app, broker, topics.releases)
            policies = Broadcast(app, broker, topics.policies)
            worker = build_worker(
                settings,
                self._directory,
                topics,
                ids,
                metrics,
                state,
                language_model,
                publisher,
                items,
                self.fail,
                traces,
            )
            self._worker = worker
            stack.push_async_callback(worker.partitions.close)
            register(app, worker, items, releases)
            orders = PolicyFeed(worker.path.catalog, policies, state, metrics)
            orders.follow(app, self.fail)
            self._connect_rebalances(app, worker)
            endpoint = Endpoint(
                settings.http, settings.security, registry, self.why_not_ready, lambda: None
            )
            stack.callback(endpoint.close)
            watchdog = Watchdog(worker.delivery, settings.serving.stall_after_s, EXIT_STALLED)
            stack.callback(watchdog.close)
            tasks = [
                asyncio.create_task(self._guard(language_model.checked()), name="model"),
                asyncio.create_task(self._guard(worker.releases.follow()), name="releases"),
                asyncio.create_task(self._guard(self._flush(worker)), name="flush"),
                asyncio.create_task(self._guard(worker.sweep.run()), name="sweep"),
                asyncio.create_task(self._guard(worker.indexer.run()), name="index"),
                asyncio.create_task(self._guard(worker.reporting.run()), name="reporting"),
                asyncio.create_task(self._guard(worker.trending.keep_running(state)), name="trend"),
                *self._following_rules(worker, state, metrics),
                asyncio.create_task(
                    self._guard(watch_ready(self.why_not_ready, metrics, endpoint.port))
                ),
                asyncio.create_task(
                    self._guard(watch_broker(publisher.reach, self._tell_broker)), name="broker"
                ),
                asyncio.create_task(self._guard(watch_lag(app, worker, topics)), name="lag"),
                asyncio.create_task(self._guard(watch_stores(worker)), name="stores"),
                asyncio.create_task(
                    self._guard(
                        watch_topics(
                            functools.partial(
                                check_unchanged,
                                broker.bootstrap,
                                specs,
                                ids,
                                client_options=access,
                            )
                        )
                    ),
                    name="topics",
                ),
            ]
            stack.push_async_callback(_cancel, tasks)
            log.info("worker starting", instance=self._directory.name, http=endpoint.port)
            await asyncio.to_thread(
                self._membership.leave_behind, broker, settings.serving.group, access
            )
            try:
                await app.start()
                await items.start()
                await releases.start()
                await policies.start()
                tasks.append(asyncio.create_task(self._guard(_read_topics(orders, worker))))
                await self._stop.wait()
            finally:
                log.info("worker stopping")
                if self._failure is None:
                    _cut_off_after(STOP_WITHIN_S, 1)
                    await self._flush_owed(worker, everything=True)
                    await worker.trending.keep(state)
                else:
                    _cut_off_after(FAILED_STOP_WITHIN_S, _exit_code(self._failure))
                    app.conf.stream_wait_empty = False
                await items.stop()
                await releases.stop()
                await policies.stop()
                await app.stop()
                if self._failure is None:
                    await worker.delivery.drained()
        if self._failure is not None:
            raise self._failure

    def _following_rules(
        self, worker: Worker, state: StateThread, metrics: WorkerMetrics
    ) -> list[asyncio.Task[None]]:
        """Business rules, where there is a file of them."""
        file = self._settings.serving.rules
        if file is None:
            return []
        rules = RulesFeed(file, worker.path, state, metrics)
        return [asyncio.create_task(self._guard(rules.run()), name="rules")]

    def why_not_ready(self) -> str | None:
        """What is missing before this worker serves; None when it does."""
        worker = self._worker
        if self._failure is not None:
            return f"failed: {self._failure}"
        if self._stop.is_set():
            return "stopping"
        if worker is None:
            return "starting"
        if self._broker_away is not None:
            return self._broker_away
        if worker.path.space is None:
            if not worker.catalogue.ready.is_set():
                return "reading the catalogue"
            return worker.releases.refusal or (
                "no release is serving yet: start the learner, or wait for its first release"
            )
        if worker.partitions.opening:
            return f"restoring partitions {worker.partitions.opening}"
        if not worker.partitions.joined:
            return "joining the group"
        return None

    def _tell_broker(self, away: str | None) -> None:
        self._broker_away = away

    def fail(self, error: BaseException) -> None:
        """End the worker because of `error`; the first one counts."""
        if self._failure is None:
            self._failure = error
            # A known error becomes one paragraph at the command line; a defect needs its trace.
            trace = None if isinstance(error, DriftlineError) else error
            log.error("worker failed", error=repr(error), exc_info=trace)
        self._stop.set()

    def _connect_rebalances(self, app: ChunkApp, worker: Worker) -> None:
        def is_open(tp: TP) -> bool:
            return worker.path.space is not None and worker.partitions.get(tp.partition) is not None

        app.is_open, app.fetch_again = is_open, worker.pace.fetch_again

        # weak=False: Faust would let go of a local function.
        @app.on_partitions_assigned.connect(weak=False)
        async def on_assigned(_: Any, assigned: set[TP], **__: Any) -> None:
            self._membership.note(app.member_id)
            numbers = {tp.partition for tp in assigned if tp.topic == worker.topics.events}
            await worker.partitions.assign(numbers)

        @app.on_partitions_revoked.connect(weak=False)
        async def on_revoked(_: Any, revoked: set[TP], **__: Any) -> None:
            await worker.delivery.drained()
            # The next owner cannot know what this one still owes.
            await self._flush_owed(worker, everything=True)

    async def _flush(self, worker: Worker) -> None:
        """Send the recommendations whose interval has passed."""
        while True:
            await asyncio.sleep(FLUSH_EVERY_S)
            await self._flush_owed(worker)

    async def _flush_owed(self, worker: Worker, everything: bool = False) -> None:
        for source in worker.partitions.sources():
            if source.owed.users:
                flushed = worker.state.run(worker.path.flush_due, source, time.time(), everything)
                await worker.delivery.change(source, flushed)

    async def _guard(self, work: Any) -> None:
        try:
            await work
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self.fail(error)


async def _read_topics(orders: PolicyFeed, worker: Worker) -> None:
    """Nothing is served before the catalogue is complete, and what is blocked in it known."""
    await orders.read_all()
    await worker.catalogue.read_all()


async def _cancel(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _exit_code(error: BaseException) -> int:
    return error.exit_code if isinstance(error, DriftlineError) else 1


def _cut_off_after(seconds: float, exit_code: int) -> None:
    """Known shutdown hangs must not outlast the operator's patience."""

    def cut_off() -> None:
        log.error("stopping took too long, cut off", seconds=seconds)
        os._exit(exit_code)

    timer = threading.Timer(seconds, cut_off)
    timer.daemon = True
    timer.start()
