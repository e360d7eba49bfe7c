"""The agents: what happens to every message, topic by topic.

    events     apply, recommend                 users      declared interests
    requests   answer                           erasures   forget, and say so
    items      catalogue (every worker, whole)  releases   hot swap (every worker, whole)

Each takes chunks, events those of all partitions that wait.  A chunk is acknowledged to Faust only
when all that it caused is in Kafka, in the order of its partition; so what was committed was
delivered.  Faust would acknowledge an event
whose handler raised: so a bad record never raises (it is dead-lettered), and anything unforeseen
ends the worker (`Delivery.fail`): better restarted than wrong.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np

from profiles.audit import AuditLog
from profiles.errors import BadMessage
from profiles.events import (
    Receipt,
    check_size,
    decode_erasure,
    decode_request,
    decode_user,
    encode,
)
from profiles.head import Floats
from profiles.metrics import WorkerMetrics
from profiles.settings.serving import ServingSettings
from profiles.space import Space
from profiles.topics import Topics
from stream.broadcast import Broadcast
from stream.catalogue_feed import CatalogueFeed
from stream.chunks import Chunk, ChunkApp, ChunkSchema
from stream.codecs import (
    DeadLetter,
    Decoded,
    Rules,
    check_user_key,
    decode_chunk,
    drop_unknown,
    rows_of,
    unknown_items,
)
from stream.delivery import Delivery
from stream.event_path import EventPath
from stream.indexing import Indexer
from stream.language_model import LanguageModel
from stream.outputs import Cause
from stream.partitions import Partitions
from stream.publisher import Message, Publisher, Sent
from stream.release_feed import ReleaseFeed
from stream.reporting import Reporting
from stream.rounds import Rounds, Taken, by_partition
from stream.source import Outcome, Part, Source
from stream.state_thread import StateThread
from stream.sweep import Sweep


@dataclass(frozen=True, slots=True)
class Worker:
    """The parts that agents work with."""

    path: EventPath
    partitions: Partitions
    catalogue: CatalogueFeed
    releases: ReleaseFeed
    indexer: Indexer
    reporting: Reporting
    sweep: Sweep
    language_model: LanguageModel
    publisher: Publisher
    delivery: Delivery
    state: StateThread
    metrics: WorkerMetrics
    topics: Topics
    rules: Rules
    settings: ServingSettings
    audit: AuditLog

    def source(self, chunk: Chunk) -> Source:
        """The open partition that a chunk belongs to."""
        source = self.partitions.get(chunk.partition)
        assert source is not None, "agents wait for a partition to open"
        return source


def register(app: ChunkApp, worker: Worker, items: Broadcast, releases: Broadcast) -> None:
    """Declare the agents on the app."""
    topics = worker.topics

    def keyed(name: str) -> Any:  # Faust's topic type is generic in codecs that chunks bypass
        return app.topic(name, schema=ChunkSchema(), allow_empty=True)

    def agent(channel: Any, name: str, handle: Any) -> None:
        async def run(stream: Any) -> None:
            async for event in stream.noack().events():
                # A partition that comes back in a rebalance is read again before it opens, and a
                # fetch that was under way then still arrives.
                opened = await worker.partitions.opened(event.value.partition)
                if opened is None or event.message.generation_id != app.consumer_generation_id:
                    continue  # never acknowledged: whoever owns the partition fetches it again
                try:
                    await handle(worker, event.value, event)
                except Exception as error:
                    worker.delivery.fail(error)
                    raise

        run.__name__ = name
        app.agent(channel, name=name)(run)

    async def run_events(stream: Any) -> None:
        # Faust hands over one chunk at a time; what arrives while a round is worked on is the next.
        rounds = Rounds(worker.settings.chunk_records)
        taking = asyncio.create_task(_take_rounds(app, worker, rounds), name="rounds")
        try:
            async for event in stream.noack().events():
                await rounds.put(event)
        finally:
            taking.cancel()
            await asyncio.gather(taking, return_exceptions=True)

    app.agent(keyed(topics.events), name="events")(run_events)
    agent(keyed(topics.requests), "requests", take_requests)
    agent(keyed(topics.users), "users", take_users)
    agent(keyed(topics.erasures), "erasures", take_erasures)

    async def run_items(stream: Any) -> None:
        async for chunk in stream:
            try:
                await worker.catalogue.take(chunk)
            except Exception as error:
                worker.delivery.fail(error)
                raise

    async def run_releases(stream: Any) -> None:
        async for chunk in stream:
            worker.releases.take(chunk)
            releases.handled(chunk)

    app.agent(items.channel, name="items")(run_items)
    app.agent(releases.channel, name="releases")(run_releases)


async def _take_rounds(app: ChunkApp, worker: Worker, rounds: Rounds) -> None:
    while True:
        events = await rounds.take()
        try:
            for partition in {event.value.partition for event in events}:
                await worker.partitions.opened(partition)
            # An older generation's are never acknowledged: whoever owns the partition fetches them.
            now = [e for e in events if e.message.generation_id == app.consumer_generation_id]
            taken = [
                (source, one)
                for one in by_partition(now)
                if (source := worker.partitions.get(one.chunk.partition)) is not None
            ]
            if taken:
                await take_events(worker, taken)
        except Exception as error:
            worker.delivery.fail(error)
            raise


async def take_events(worker: Worker, taken: Sequence[tuple[Source, Taken]]) -> None:
    """Apply a round of behaviour events and recommend."""
    sent = [Sent() for _ in taken]
    async with AsyncExitStack() as held:
        for source, _ in taken:
            await held.enter_async_context(source.order)
        tried = await worker.state.run(_try_apply, worker, taken)
        for (_, outcome), own, (_, one) in zip(tried, sent, taken, strict=True):
            if outcome is not None:
                await _send_outcome(worker, own, one.chunk, outcome)
    for first_try, own, (source, one) in zip(tried, sent, taken, strict=True):
        decoded, outcome = first_try
        if outcome is None:
            decoded, outcome = await _apply_when_known(worker, source, one, decoded, own)
        await _send_dead(worker, own, one.chunk, decoded.dead)
        oldest_ms = one.chunk.records[0].timestamp if outcome.outputs else None
        await worker.delivery.follow(source, one.chunk, own, one.events, oldest_ms)
    worker.metrics.batch_events.observe(sum(len(one.chunk.records) for _, one in taken))


async def _apply_when_known(
    worker: Worker, source: Source, one: Taken, decoded: Decoded, sent: Sent
) -> tuple[Decoded, Outcome]:
    """The rare case: an event of an item that the catalogue lacks, or has no vector for yet."""
    missing = unknown_items(decoded, worker.path.catalog)
    if missing:
        await worker.catalogue.wait_for(missing, worker.settings.catalogue_wait_s)
    while True:
        await worker.catalogue.fill_all()
        async with source.order:
            decoded, outcome = await worker.state.run(_apply_known, worker, source, one, decoded)
            if outcome is not None:
                await _send_outcome(worker, sent, one.chunk, outcome)
                return decoded, outcome


async def _send_outcome(worker: Worker, sent: Sent, chunk: Chunk, outcome: Outcome) -> None:
    with worker.metrics.batch_seconds.labels("publish").time():
        topics = worker.topics
        await worker.publisher.send(sent, topics.profiles, chunk.partition, outcome.changelog)
        await worker.publisher.send(sent, topics.recommendations, chunk.partition, outcome.outputs)


def _try_apply(
    worker: Worker, taken: Sequence[tuple[Source, Taken]]
) -> list[tuple[Decoded, Outcome | None]]:
    """The usual case in one visit to the state thread: every item known and encoded.

    A partition with one that is not is left out; it waits alone.
    """
    now_s = time.time()
    decoded = [decode_chunk(one.chunk.records, worker.rules, now_s) for _, one in taken]
    ready = [at for at, events in enumerate(decoded) if _encoded(worker, events)]
    outcomes: list[Outcome | None] = [None] * len(taken)
    parts = [_part(*taken[at], decoded[at]) for at in ready]
    for at, outcome in zip(ready, _apply(worker, parts), strict=True):
        outcomes[at] = outcome
    return list(zip(decoded, outcomes, strict=True))


def _apply_known(
    worker: Worker, source: Source, one: Taken, decoded: Decoded
) -> tuple[Decoded, Outcome | None]:
    """After waiting: what is still unknown is dead; None if a vector is still missing."""
    decoded = drop_unknown(decoded, worker.path.catalog)
    if not _encoded(worker, decoded):
        return decoded, None
    return decoded, _apply(worker, [_part(source, one, decoded)])[0]


def _part(source: Source, one: Taken, decoded: Decoded) -> Part:
    end = one.chunk.records[-1].offset + 1
    return Part(source, decoded, end, behind=max(0, one.chunk.end - end))


def _apply(worker: Worker, parts: Sequence[Part]) -> list[Outcome]:
    if not parts:
        return []
    with worker.metrics.batch_seconds.labels("apply").time():
        return worker.path.apply(parts, time.time())


def _encoded(worker: Worker, decoded: Decoded) -> bool:
    """Whether the item of every event is known and has a vector in every resident space."""
    rows = rows_of(decoded.events, worker.path.catalog)
    # Resident spaces cover the whole catalogue: a flip and every item message see to that.
    return bool(
        (rows >= 0).all() and all(space.known[rows].all() for space in worker.path.resident)
    )


async def take_requests(worker: Worker, chunk: Chunk, event: Any) -> None:
    """Answer a chunk of requests."""
    source = worker.source(chunk)
    dead: list[DeadLetter] = []
    requests = []
    topic_id = worker.delivery.topic_ids[chunk.topic]
    for record in chunk.records:
        try:
            check_size(record.value, worker.rules.max_bytes)
            request = decode_request(record.value)
            user = check_user_key(record, request.user_id)
        except BadMessage as error:
            dead.append(DeadLetter(record, error.reason, str(error)))
            continue
        cause = Cause("request", request.request_id, topic_id, chunk.partition, record.offset)
        requests.append((user, request, cause))
    answers = await worker.state.run(worker.path.answer, source, requests, time.time())
    worker.metrics.recommendations.labels("request").inc(len(answers))
    sent = Sent()
    await worker.publisher.send(sent, worker.topics.recommendations, chunk.partition, answers)
    await _send_dead(worker, sent, chunk, dead)
    await worker.delivery.follow(source, chunk, sent, [event], chunk.records[0].timestamp)


async def take_users(worker: Worker, chunk: Chunk, event: Any) -> None:
    """Store what users declare about themselves."""
    source = worker.source(chunk)
    dead: list[DeadLetter] = []
    declared: dict[bytes, str] = {}
    for record in chunk.records:
        if record.key and not record.value:
            declared[record.key] = ""
            continue
        try:
            check_size(record.value, worker.rules.max_bytes)
            user = decode_user(record.value or b"")
            declared[check_user_key(record, user.user_id)] = user.interests
        except BadMessage as error:
            dead.append(DeadLetter(record, error.reason, str(error)))
    sent = Sent()
    for space, users, texts in await _encode_declared(worker, declared):
        async with source.order:
            changed = await worker.state.run(
                worker.path.declare, source, users, texts, space, time.time()
            )
            await worker.publisher.send(sent, worker.topics.profiles, chunk.partition, changed)
    await _send_dead(worker, sent, chunk, dead)
    await worker.delivery.follow(source, chunk, sent, [event], None)


async def _encode_declared(
    worker: Worker, declared: dict[bytes, str]
) -> list[tuple[Space, list[tuple[bytes, str]], Floats]]:
    """What users declared, encoded in the space that serves each of them.

    A swap may happen while a text is being encoded: then its vector is of the old space, is
    recognised as such wherever it is read, and is encoded again here.
    """
    while True:
        arrangement = worker.path.arrangement
        found = []
        for arm in worker.path.arms(list(declared)) if declared else ():
            pairs = list(declared.items())
            users = [pairs[at] for at in np.flatnonzero(arm.members).tolist()]
            if users:
                adapter = arm.space.release.adapter_directory
                texts = await worker.language_model.encode(adapter, [text for _, text in users])
                found.append((arm.space, users, texts))
        if arrangement == worker.path.arrangement:
            return found


async def take_erasures(worker: Worker, chunk: Chunk, event: Any) -> None:
    """Forget users: profile, changelog, recommendations; and send a receipt."""
    source = worker.source(chunk)
    dead: list[DeadLetter] = []
    receipts: list[Message] = []
    sent = Sent()
    for record in chunk.records:
        try:
            erasure = decode_erasure(record.value)
            user = check_user_key(record, erasure.user_id)
        except BadMessage as error:
            dead.append(DeadLetter(record, error.reason, str(error)))
            continue
        async with source.order:
            tombstones, found = await worker.state.run(
                worker.path.erase, source, [user], time.time()
            )
            await _send_outcome(worker, sent, chunk, Outcome(tombstones, tombstones))
        receipt = Receipt(
            erasure.erasure_id,
            erasure.user_id,
            "worker",
            {"profiles": found, "changelog": 1, "recommendations": 1},
            erased_at=time.time(),
        )
        receipts.append(Message(user, encode(receipt)))
        # A thread: the log waits for the disk, and for whoever else writes to it.
        await asyncio.to_thread(
            worker.audit.append,
            receipt.component,
            "erasure",
            erasure=receipt.erasure_id,
            erased=receipt.erased,
        )
    await worker.publisher.send(sent, worker.topics.receipts, chunk.partition, receipts)
    await _send_dead(worker, sent, chunk, dead)
    await worker.delivery.follow(source, chunk, sent, [event], None)


async def _send_dead(worker: Worker, sent: Sent, chunk: Chunk, dead: list[DeadLetter]) -> None:
    await worker.publisher.send_dead(sent, chunk.topic, chunk.partition, dead)
    for letter in dead:
        worker.metrics.dead_letters.labels(chunk.topic, letter.reason).inc()
