"""Synthetic behaviour events: made ahead of time, then poured in at once or sent at a fixed pace.

Events are made and encoded before any clock runs, so that a pace can be held.  The open loop sends
event n at its intended time whatever the worker does, and latency counts from that time: a stall
then shows in every event it delays (no coordinated omission).

What surprised us: aiokafka's `send` costs 40 us per record, more than a worker spends on one; whole
batches for a named partition cost about 2.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.structs import TopicPartition

from profiles.events import Event
from profiles.wire import encode
from stream.user_rights import partition_of

BATCH_BYTES = 500_000
TICK_S = 0.002
"""The generator wakes this often; what is due by then is sent together."""


@dataclass(frozen=True, slots=True)
class Events:
    """Encoded events.  What they say, `ids` to `ts` (N,), belongs to `keys` and `values`."""

    keys: list[bytes]
    values: list[bytes]
    ids: list[str]
    users: npt.NDArray[np.int64]
    items: npt.NDArray[np.int64]
    ts: npt.NDArray[np.float64]
    partitions: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.keys)


def synthetic_events(
    count: int, users: int, items: int, partitions: int, seed: int, name: str = "e"
) -> Events:
    """Clicks of uniformly drawn users on uniformly drawn items, one second apart, not in future.

    Event n is called `<name><n>`.
    """
    rng = np.random.default_rng(seed)
    who, what = rng.integers(users, size=count), rng.integers(items, size=count)
    ids = [f"{name}{at}" for at in range(count)]
    ts = time.time() - count + np.arange(count, dtype=np.float64)
    values = [
        encode(Event(event_id, f"user-{user}", f"item-{item}", "click", when))
        for event_id, user, item, when in zip(
            ids, who.tolist(), what.tolist(), ts.tolist(), strict=True
        )
    ]
    keys = [f"user-{user}".encode() for user in who.tolist()]
    place = {key: partition_of(key, partitions) for key in set(keys)}
    partitions_of = np.array([place[key] for key in keys])
    return Events(keys, values, ids, who, what, ts, partitions_of)


def fill(bootstrap: str, topic: str, events: Events) -> None:
    """Pour every event into a topic, in order within each partition, as fast as it goes."""
    asyncio.run(_fill(bootstrap, topic, events))


async def _fill(bootstrap: str, topic: str, events: Events) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=2 * BATCH_BYTES)
    await producer.start()
    try:
        for partition in np.unique(events.partitions).tolist():
            batch = producer.create_batch()
            for at in np.flatnonzero(events.partitions == partition).tolist():
                batch.append(timestamp=None, key=events.keys[at], value=events.values[at])
                if batch.size() >= BATCH_BYTES:
                    await producer.send_batch(batch, topic, partition=partition)
                    batch = producer.create_batch()
            if batch.record_count():
                await producer.send_batch(batch, topic, partition=partition)
        await producer.flush()
    finally:
        await producer.stop()


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The fields of a recommendation that a measurement reads."""

    output_id: str
    user_id: str
    release_id: str
    profile_release_id: str
    cause_id: str


@dataclass(slots=True)
class OpenLoop:
    """What an open-loop run saw.  Times are Unix seconds.

    `intended_s` (N,) when each event was to be sent, `sent_s` (N,) when it was handed to the
    producer, `answered_s` (N,) when a recommendation that includes it was read, NaN for never.
    `mixed` counts outputs whose profile was of another release than their items, `repeated`
    outputs that came twice, `by_release` outputs per release.
    """

    intended_s: npt.NDArray[np.float64]
    sent_s: npt.NDArray[np.float64]
    answered_s: npt.NDArray[np.float64]
    outputs: int = 0
    mixed: int = 0
    repeated: int = 0
    by_release: dict[str, int] = field(default_factory=dict)

    @property
    def latencies_s(self) -> npt.NDArray[np.float64]:
        """From the intended send to the readable answer; NaN for unanswered ones.  Shapes: (N,)."""
        return self.answered_s - self.intended_s

    @property
    def lateness_s(self) -> npt.NDArray[np.float64]:
        """How late the generator itself was.  It is part of the latency above.  Shapes: (N,)."""
        return self.sent_s - self.intended_s


async def open_loop(
    bootstrap: str,
    events_topic: str,
    answers_topic: str,
    events: Events,
    rate: float,
    drain_s: float = 20.0,
) -> OpenLoop:
    """Send events at `rate` a second and read what comes back.

    One recommendation may answer several events of its user: it answers every one sent up to its
    cause, since the profile it was made from includes them.
    """
    count = len(events)
    reader = AIOKafkaConsumer(
        bootstrap_servers=bootstrap, enable_auto_commit=False, fetch_max_wait_ms=5
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, linger_ms=0, max_batch_size=2 * BATCH_BYTES
    )
    await reader.start()
    await producer.start()
    try:
        numbers = await producer.partitions_for(answers_topic)
        places = [TopicPartition(answers_topic, number) for number in sorted(numbers)]
        reader.assign(places)
        await reader.seek_to_end(*places)
        for place in places:
            await reader.position(place)  # a seek happens at the first use
        start_s = time.time() + 0.5
        intended_s = start_s + np.arange(count) / rate
        run = OpenLoop(intended_s, np.full(count, np.nan), np.full(count, np.nan))
        reading = asyncio.create_task(_read(reader, run, events))
        await _send(producer, events_topic, events, run)
        with contextlib.suppress(TimeoutError):  # unanswered events stay NaN
            await asyncio.wait_for(reading, drain_s)
        return run
    finally:
        await producer.stop()
        await reader.stop()


async def _send(producer: Any, topic: str, events: Events, run: OpenLoop) -> None:
    at, count = 0, len(events)
    while at < count:
        now_s = time.time()
        upto = int(np.searchsorted(run.intended_s, now_s, side="right"))
        if upto > at:
            batches: dict[int, Any] = {}
            for n, partition in enumerate(events.partitions[at:upto].tolist(), start=at):
                batch = batches.get(partition) or batches.setdefault(
                    partition, producer.create_batch()
                )
                batch.append(timestamp=None, key=events.keys[n], value=events.values[n])
            run.sent_s[at:upto] = now_s
            for partition, batch in batches.items():
                await producer.send_batch(batch, topic, partition=partition)
            at = upto
        await asyncio.sleep(TICK_S)
    await producer.flush()


async def _read(reader: Any, run: OpenLoop, events: Events) -> None:
    """Read answers until every event has one."""
    decoder = msgspec.json.Decoder(Answer)
    # Events of each user, in order; an answer to one of them answers those before it.
    waiting: dict[str, list[int]] = {}
    for at in range(len(events) - 1, -1, -1):
        waiting.setdefault(f"user-{events.users[at]}", []).append(at)
    left = len(events)
    seen: set[str] = set()
    while left:
        fetched = await reader.getmany(timeout_ms=50)
        now_s = time.time()
        for records in fetched.values():
            for record in records:
                if not record.value:
                    continue
                answer = decoder.decode(record.value)
                run.outputs += 1
                run.mixed += answer.release_id != answer.profile_release_id
                run.repeated += answer.output_id in seen
                seen.add(answer.output_id)
                run.by_release[answer.release_id] = run.by_release.get(answer.release_id, 0) + 1
                cause = int(answer.cause_id.lstrip("abcdefghijklmnopqrstuvwxyz-"))
                pending = waiting.get(answer.user_id, [])
                while pending and pending[-1] <= cause:
                    run.answered_s[pending.pop()] = now_s
                    left -= 1
