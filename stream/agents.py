"""The agents: what happens to every message, topic by topic.

    events     apply, recommend                 users      declared interests
    requests   answer                           erasures   forget, and say so
    items      catalogue (every worker, whole)  releases   hot swap (every worker, whole)

Each takes chunks; events those of all partitions that wait (`stream.taking_events`).  A chunk is
acknowledged to Faust only when all that it caused is in Kafka, in the order of its partition; so
what was committed was delivered.  Faust would acknowledge an event whose handler raised: so a bad
record never raises (it is dead-lettered), and anything unforeseen ends the worker
(`Delivery.fail`): better restarted than wrong.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from profiles.answers import PREDICTION, Request, decode_request
from profiles.errors import BadMessage, DriftlineError
from profiles.items import decode_user
from profiles.layers import Floats
from profiles.space import Space
from profiles.tracing import NO_SPAN
from profiles.wire import check_size
from stream.admission import DETAIL, REASON, blank
from stream.broadcast import Broadcast
from stream.chunks import Chunk, ChunkApp, ChunkSchema, Parsed
from stream.codecs import DeadLetter, check_user_key
from stream.erasing import take_erasures
from stream.messages import Cause
from stream.publisher import Message, Sent
from stream.source import Source
from stream.taking_events import EventRounds
from stream.text_reader import Read
from stream.tracing import carried_on, start_round
from stream.words import Unread
from stream.worker import Worker


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
                except DriftlineError as error:
                    worker.delivery.fail(error)
                    return  # raised, Faust would log its trace and give the agent the next chunk
                except Exception as error:
                    worker.delivery.fail(error)
                    raise

        run.__name__ = name
        app.agent(channel, name=name)(run)

    async def run_events(stream: Any) -> None:
        await EventRounds(app, worker).run(stream)

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


def _is_welcome(
    worker: Worker, source: Source, user: bytes, record: Parsed, dead: list[DeadLetter]
) -> bool:
    """Whether to act on what a user sent; an erased one's message may become a dead letter."""
    mode = worker.rules.after_erasure
    if mode == "accept" or source.fences.of(user) is None:
        return True
    if mode == "refuse":
        dead.append(DeadLetter(blank(record), REASON, DETAIL))
    worker.metrics.erased_messages.labels("refused" if mode == "refuse" else "forgotten").inc()
    return False


async def _send_keys(worker: Worker, sent: Sent, source: Source) -> None:
    if keys := source.take_keys():
        await worker.publisher.send(sent, worker.topics.keys, source.number, keys)


async def take_requests(worker: Worker, chunk: Chunk, event: Any) -> None:
    """Answer a chunk of requests."""
    source = worker.source(chunk)
    around = NO_SPAN
    if worker.traces.is_on:
        around = start_round(worker.traces, "driftline.requests", [chunk])
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
        if not _is_welcome(worker, source, user, record, dead):
            continue
        kind = PREDICTION if request.items else "request"
        cause = Cause(kind, request.request_id, topic_id, chunk.partition, record.offset)
        requests.append((user, request, cause))
    answers = await worker.state.run(worker.path.answer, source, requests, time.time())
    while isinstance(answers, Unread):
        read = await worker.reader.read(answers)
        answers = await worker.state.run(_answer, worker, source, requests, read)
    recommended = sum(not request.items for _, request, _ in requests)
    worker.metrics.recommendations.labels("request").inc(recommended)
    sent = Sent()
    if worker.traces.is_on:
        answers = carried_on(worker.traces, around, chunk, answers, sent)
        sent.spans = (*sent.spans, around)
    await _send_keys(worker, sent, source)
    await worker.publisher.send(sent, worker.topics.recommendations, chunk.partition, answers)
    await worker.send_dead(sent, chunk, dead)
    await worker.delivery.follow(source, chunk, sent, [event], chunk.records[0].timestamp)


def _answer(
    worker: Worker, source: Source, requests: list[tuple[bytes, Request, Cause]], read: Read
) -> list[Message] | Unread:
    worker.path.note_read(read)
    return worker.path.answer(source, requests, time.time())


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
            key = check_user_key(record, user.user_id)
            if _is_welcome(worker, source, key, record, dead):
                declared[key] = user.interests
        except BadMessage as error:
            dead.append(DeadLetter(record, error.reason, str(error)))
    sent = Sent()
    for space, users, texts in await _encode_declared(worker, declared):
        async with source.order:
            changed = await worker.state.run(
                worker.path.upkeep.declare, source, users, texts, space, time.time()
            )
            await _send_keys(worker, sent, source)
            await worker.publisher.send(sent, worker.topics.profiles, chunk.partition, changed)
    await worker.send_dead(sent, chunk, dead)
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
