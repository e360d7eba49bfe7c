"""From the changelog to a store: a real broker, the worker's own restore, side by side."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path

import numpy as np
from aiokafka import AIOKafkaProducer
from prometheus_client import CollectorRegistry

from benchmarks.deployment import WORKER_CORE, broker
from benchmarks.harness import Result, pinned, say
from benchmarks.scale.growth import exponent
from benchmarks.scale.synthetic import profiles, typical_events
from benchmarks.scale.users import layout_of
from profiles.config import Settings
from profiles.metrics import WorkerMetrics
from profiles.settings.kafka import BrokerSettings
from profiles.state import RecordLayout, encode_records
from profiles.store import PartitionStore
from profiles.topics import Topics, topic_specs
from stream.restore import restore
from stream.state_thread import StateThread
from stream.topic_admin import create_topics

PARTITIONS = 4
BATCH_BYTES = 900_000


def measure(sizes: list[int], settings: Settings, seed: int) -> Result:
    """Seconds from an empty store to the end of the changelog."""
    layout = layout_of(settings)
    rows = []
    with broker() as kafka:
        for size in sizes:
            topics = Topics.under(f"restore-{size}")
            create_topics(kafka.bootstrap, topic_specs(f"restore-{size}", PARTITIONS))
            asyncio.run(_fill(kafka.bootstrap, topics.profiles, layout, size, seed))
            with (
                tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory,
                pinned(WORKER_CORE),
            ):
                access = BrokerSettings(bootstrap=kafka.bootstrap)
                seconds = asyncio.run(
                    _restore(access, topics.profiles, layout, Path(directory), size)
                )
            rows.append(
                {
                    "profiles": size,
                    "seconds": round(seconds, 2),
                    "seconds_per_100k": round(seconds * 1e5 / size, 2),
                }
            )
            say(f"restore: {rows[-1]}")
    return {
        "profiles": "synthetic, one changelog record each",
        "partitions": PARTITIONS,
        "sizes": rows,
        "exponent": exponent(sizes, [row["seconds"] for row in rows]),
    }


async def _fill(bootstrap: str, topic: str, layout: RecordLayout, count: int, seed: int) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=2 * BATCH_BYTES)
    await producer.start()
    chance = np.random.default_rng(seed)
    try:
        for start in range(0, count, 5_000):
            users = range(start, min(start + 5_000, count))
            records = profiles(layout, typical_events(len(users), chance), 1, 1, chance)
            payloads = encode_records(layout, records)
            for partition in range(PARTITIONS):
                batch = producer.create_batch()
                for at in range(partition, len(users), PARTITIONS):
                    key = f"user-{users[at]}".encode()
                    batch.append(timestamp=None, key=key, value=payloads[at])
                    if batch.size() >= BATCH_BYTES:
                        await producer.send_batch(batch, topic, partition=partition)
                        batch = producer.create_batch()
                if batch.record_count():
                    await producer.send_batch(batch, topic, partition=partition)
        await producer.flush()
    finally:
        await producer.stop()


async def _restore(
    kafka: BrokerSettings, topic: str, layout: RecordLayout, directory: Path, expected: int
) -> float:
    state, metrics = StateThread(), WorkerMetrics(CollectorRegistry())
    stores = [PartitionStore(directory / f"partition-{n}") for n in range(PARTITIONS)]
    started = time.perf_counter()
    await asyncio.gather(
        *(
            restore(store, layout, kafka, topic, number, state, metrics)
            for number, store in enumerate(stores)
        )
    )
    seconds = time.perf_counter() - started
    found = sum(store.check() for store in stores)
    for store in stores:
        store.close()
    state.close()
    if found != expected:
        raise RuntimeError(f"restored {found} profiles of {expected}")
    return seconds
