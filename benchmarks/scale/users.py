"""Event path and disk against the number of users: in one process, on a real store.

The broker adds the same to every event whatever the number of users, so it is left out; what may
grow is the store: reads that miss its cache, compaction, bytes.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
from aiokafka.structs import ConsumerRecord
from prometheus_client import CollectorRegistry

from benchmarks.deployment import synthetic_items
from benchmarks.harness import Result, say
from benchmarks.load import synthetic_events
from benchmarks.scale.growth import exponent
from benchmarks.scale.synthetic import profiles, random_head, typical_events
from profiles.catalog import Catalog
from profiles.config import Settings
from profiles.manifest import Manifest
from profiles.metrics import WorkerMetrics
from profiles.release import ItemTable, Release
from profiles.space import Space
from profiles.state import RecordLayout, encode_records
from profiles.store import PartitionStore, Watermark
from profiles.wire import key64
from stream.codecs import Rules, decode_chunk
from stream.event_path import EventPath
from stream.source import Part, Source

ITEMS = 10_000
FILL = 10_000
TOPIC = "events-id"


def layout_of(settings: Settings, history: int | None = None) -> RecordLayout:
    """The record of these settings."""
    layout = RecordLayout.of(settings)
    return replace(layout, history=history) if history else layout


def made_up_space(settings: Settings, catalog: Catalog, seed: int) -> Space:
    """A space of random vectors over a catalogue."""
    model, count = settings.model, len(catalog)
    actions = tuple(sorted(settings.actions))
    head = random_head(model.dim, model.layers, model.hidden, actions, seed)
    chance = np.random.default_rng(seed)
    vectors = chance.normal(size=(count, model.dim)).astype(np.float32)
    nothing = np.zeros(count, np.float32)
    table = ItemTable(
        catalog.keys.copy(), catalog.text_keys.copy(), vectors, vectors, nothing, nothing
    )
    manifest = Manifest(
        1, 1, None, 0.0, "none", "", "mean", 8, 8, head.shape, list(actions), [], {}, {}, [],
        release_id="r00001-synthetic",
    )  # fmt: skip
    release = Release(manifest, Path(), head, table, np.zeros((0, 8), np.float32))
    return Space(release, catalog, settings.profile.seen_bytes)


def filled_store(
    directory: Path, layout: RecordLayout, users: int, release: int, seed: int
) -> tuple[PartitionStore, int]:
    """A store of synthetic users, flushed and compacted.  Returns: it, and its bytes on disk."""
    store = PartitionStore(directory)
    chance = np.random.default_rng(seed)
    for start in range(0, users, FILL):
        names = [f"user-{at}".encode() for at in range(start, min(start + FILL, users))]
        events = typical_events(len(names), chance)
        records = profiles(layout, events, release, key64("another topic"), chance)
        store.write(names, encode_records(layout, records), Watermark(count=start + len(names)))
    store.flush()
    store.compact()
    return store, sum(file.stat().st_size for file in directory.glob("*.sst"))


def measure(sizes: list[int], events: int, settings: Settings, seed: int) -> Result:
    """Microseconds per event and bytes per user over numbers of users."""
    catalog = Catalog()
    for item in synthetic_items(ITEMS):
        catalog.put(item)
    space = made_up_space(settings, catalog, seed)
    rows = [_size(size, events, catalog, space, settings, seed) for size in sizes]
    counts = [row["users"] for row in rows]
    return {
        "profiles": "synthetic, 30 events on average (geometric)",
        "record_bytes": layout_of(settings).whole_bytes,
        "sizes": rows,
        "exponent_event": exponent(counts, [row["event_us"] for row in rows]),
        "exponent_disk": exponent(counts, [row["disk_bytes"] for row in rows]),
    }


def _size(
    users: int, count: int, catalog: Catalog, space: Space, settings: Settings, seed: int
) -> Result:
    layout = layout_of(settings)
    actions = {name: at for at, name in enumerate(sorted(settings.actions))}
    path = EventPath(layout, settings.serving, actions, catalog, WorkerMetrics(CollectorRegistry()))
    path.space = space
    rules = Rules(actions, settings.serving.max_message_bytes, settings.serving.max_ahead_s)
    with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory:
        started = time.perf_counter()
        store, disk_bytes = filled_store(
            Path(directory) / "partition-0", layout, users, int(space.key), seed
        )
        fill_s = time.perf_counter() - started
        source = Source(0, store, "events", TOPIC)
        made = synthetic_events(count, users, ITEMS, 1, seed)
        size = settings.serving.chunk_records
        chunks = [
            [
                ConsumerRecord(
                    "events", 0, at, 0, 0, made.keys[at], made.values[at], None, -1, -1, ()
                )
                for at in range(start, min(start + size, count))
            ]
            for start in range(0, count, size)
        ]
        # The first chunk touches everything once; it is not counted.
        seconds: list[float] = []
        for chunk in chunks:
            begun = time.perf_counter()
            decoded = decode_chunk(chunk, rules, time.time())
            # Far behind, as in a catch-up: recommending costs the same whatever the users.
            path.apply([Part(source, decoded, chunk[-1].offset + 1, 10**9)], time.time())
            seconds.append(time.perf_counter() - begun)
        store.close()
    row = {
        "users": users,
        "event_us": round(1e6 * float(np.median(seconds[1:])) / size, 2),
        "disk_bytes": disk_bytes,
        "disk_bytes_per_user": round(disk_bytes / users, 1),
        "fill_s": round(fill_s, 1),
    }
    say(f"users: {msgspec.json.encode(row).decode()}")
    return row
