"""Erasures in a worker: what it holds of a user goes, a fence and a receipt stay.

    store        profile deleted, its tables rewritten, stores that were set aside removed
    changelog    tombstone, and the fence (`profiles.fences`)
    keys         tombstones; every copy of what they sealed is unreadable from then on
    recommendations, users    tombstones
    dead letters about her    tombstones (`stream.letters_of_users`)

Done twice for one request (a crash before the commit), it sends the same again and leaves what
began after the first time alone.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec

from profiles.erasures import Receipt, decode_erasure
from profiles.errors import BadMessage
from profiles.fences import Fence, record_of
from profiles.key_store import topic_key
from profiles.wire import encode
from stream.chunks import Chunk
from stream.codecs import DeadLetter, check_user_key
from stream.event_path import EventPath
from stream.letters_of_users import find_letters
from stream.publisher import Message, Sent
from stream.source import Outcome, Source
from stream.worker import Worker


async def take_erasures(worker: Worker, chunk: Chunk, event: Any) -> None:
    """Forget users, and send receipts."""
    source = worker.source(chunk)
    dead: list[DeadLetter] = []
    erasures: list[tuple[bytes, Receipt]] = []
    receipts: list[Message] = []
    sent = Sent()
    end = await worker.partitions.events_end(chunk.partition)
    for record in chunk.records:
        try:
            erasure = decode_erasure(record.value)
            user = check_user_key(record, erasure.user_id)
        except BadMessage as error:
            dead.append(DeadLetter(record, error.reason, str(error)))
            continue
        now_s = time.time()
        async with source.order:
            outcome, erased = await worker.state.run(
                forget, worker.path, source, user, end, record.offset, now_s
            )
            await worker.send_outcome(sent, chunk, outcome)
        # What an application declared for her; the newest record of a compacted topic is all of it.
        await worker.publisher.send(
            sent, worker.topics.users, chunk.partition, [Message(user, None)]
        )
        receipt = Receipt(
            erasure.erasure_id,
            erasure.user_id,
            "worker",
            {**erased, "recommendations": 1, "interests": 1},
            erased_at=now_s,
        )
        erasures.append((user, receipt))
    for user, receipt in await _delete_letters(worker, sent, source, erasures):
        receipts.append(Message(user, encode(receipt)))
        worker.metrics.users_erased.inc()
        # A thread: the log waits for the disk, and for whoever else writes to it.
        await asyncio.to_thread(
            worker.audit.append,
            receipt.component,
            "erasure",
            erasure=receipt.erasure_id,
            erased=receipt.erased,
        )
    if receipts:
        users = [message.key for message in receipts if message.key is not None]
        await worker.state.run(source.purge, users)
        await asyncio.to_thread(worker.partitions.forget_aside, chunk.partition)
    await worker.publisher.send(sent, worker.topics.receipts, chunk.partition, receipts)
    await worker.send_dead(sent, chunk, dead)
    await worker.delivery.follow(source, chunk, sent, [event], None)


async def _delete_letters(
    worker: Worker, sent: Sent, source: Source, erasures: list[tuple[bytes, Receipt]]
) -> list[tuple[bytes, Receipt]]:
    """Send tombstones for the users' dead letters.  Returns: receipts that count them."""
    if not erasures:
        return []
    # Letters that are on their way are read, too: no new one is made, since the fences stand.
    async with source.order:
        pass
    await worker.delivery.settled()
    users = {user for user, _ in erasures}
    found = await find_letters(worker.partitions.broker, worker.topics, users)
    for (topic, partition), tombstones in found.tombstones.items():
        await worker.publisher.send(sent, topic, partition, tombstones)
    return [
        (
            user,
            msgspec.structs.replace(
                receipt, erased={**receipt.erased, "dead_letters": found.counts[user]}
            ),
        )
        for user, receipt in erasures
    ]


def forget(
    path: EventPath, source: Source, user: bytes, end: int, request: int, now_s: float
) -> tuple[Outcome, dict[str, int]]:
    """The same as `erase_user`; no words stay in memory, and in no trend what she did."""
    path.forget_words()
    profile = path.profile(source, user)
    outcome, erased = erase_user(source, user, end, request, now_s)
    if erased["profiles"]:
        path.take_out_of_trend(profile)
    return outcome, erased


def erase_user(
    source: Source, user: bytes, end: int, request: int, now_s: float
) -> tuple[Outcome, dict[str, int]]:
    """Delete what a partition holds of a user; on the state thread.

    Args:
        end: where the partition's events end: whatever stands before it never counts again.
        request: the erasure's offset, by which a repetition is known.
    Returns: what is to be sent, and what was erased.
    """
    (stored,) = source.store.get_many([user])
    fence = source.fences.of(user)
    is_repeated = fence is not None and fence.request >= request
    found = 0
    if fence is None or not is_repeated:
        names = [] if source.keys is None else source.keys.names(user)
        fence = Fence(source.topic_key, end, request, now_s, names)
        found = int(stored is not None)
        mark = source.store.watermark
        marked = msgspec.structs.replace(mark, count=mark.count - found, saved_at=now_s)
        source.store.write([user], [None], marked, [record_of(user, fence)])
        source.fences.take([record_of(user, fence)])
        source.owed.users.pop(user, None)
        stored = None
    if stored is None and source.keys is not None:
        source.keys.remove([user])
    # What began after the first time stays.
    tombstones = [Message(user, None)] if stored is None else []
    gone = [Message(topic_key(user, name), None) for name in fence.keys]
    outcome = Outcome([Message(*record_of(user, fence)), *tombstones], tombstones, gone)
    return outcome, {"profiles": found, "changelog": 1, "keys": len(gone)}
