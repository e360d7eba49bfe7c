"""The floor under an event: our own parts alone, on one core, with no Kafka and no event loop.

`python -m benchmarks.throughput.floor EVENTS USERS ITEMS SEED RELEASE DIRECTORY` prints one JSON
line of rates in events (users for the last two) per second.  `floor` is decode, store and model one
after another: what the event path could reach if moving events cost nothing.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from aiokafka.structs import ConsumerRecord

from benchmarks.deployment import synthetic_items
from benchmarks.load import synthetic_events
from profiles.applying import apply_batch
from profiles.catalog import Catalog
from profiles.config import load_settings
from profiles.expected import expected_by
from profiles.judging import Batch
from profiles.release import open_release
from profiles.space import Space
from profiles.state import RecordLayout, Records, decode_records, empty_records, encode_records
from profiles.store import PartitionStore, Watermark
from profiles.updater import Steps, advance_all, start_state
from stream.chunks import Record
from stream.codecs import Decoded, Rules, decode_chunk, to_batch
from stream.messages import Cause
from stream.outputs import Recommender

TOPIC_KEY = 1


def main() -> None:
    events, users, items, seed = map(int, sys.argv[1:5])
    print(json.dumps(measure(events, users, items, seed, Path(sys.argv[5]), Path(sys.argv[6]))))


def measure(
    count: int, users: int, items: int, seed: int, release: Path, directory: Path
) -> dict[str, float]:
    """Rates per second, each part over the same chunks of the worker's own size."""
    settings = load_settings()
    size = settings.serving.chunk_records
    layout = RecordLayout.of(settings)
    catalog = Catalog()
    for item in synthetic_items(items):
        catalog.put(item)
    space = Space(open_release(release, expected_by(settings)), catalog, layout.seen_bytes)
    actions = {name: at for at, name in enumerate(sorted(settings.actions))}
    rules = Rules(actions, settings.serving.max_message_bytes, settings.serving.max_ahead_s)
    chunks = list(_chunks(count, users, items, seed, size))
    rates: dict[str, float] = {}

    def timed(name: str, work: Callable[[], int]) -> None:
        started = time.perf_counter()
        done = work()
        rates[name] = round(done / (time.perf_counter() - started), 1)

    decoded: list[Decoded] = []

    def decode() -> int:
        decoded.extend(decode_chunk(chunk, rules, time.time()) for chunk in chunks)
        return sum(len(one.events) for one in decoded)

    timed("decode", decode)
    batches: list[tuple[Batch, list[bytes]]] = []

    def columns() -> int:
        columns = [to_batch([one], catalog, actions) for one in decoded]
        batches.extend((one.batch, one.users) for one in columns)
        return count

    timed("to_batch", columns)
    store = PartitionStore(directory)
    nobody = encode_records(layout, empty_records(layout, 1))[0]
    # Filled once, so that reads find records: a worker's usual case.
    everyone = sorted({user for _, names in batches for user in names})
    for at in range(0, len(everyone), size):
        part = everyone[at : at + size]
        store.write(part, [nobody] * len(part), Watermark(count=at + len(part)))

    def store_round() -> int:
        for _, names in batches:
            found = store.get_many(names)
            store.write(names, found, store.watermark)
        return count

    timed("store", store_round)
    rows = np.arange(size) % len(catalog)
    steps = Steps(
        space.picked(rows[:, None], catalog.keys[rows][:, None]),
        np.zeros((size, 1), dtype=np.int64),
        np.zeros((size, 1), dtype=np.float32),
        np.full((size, 1), 60.0),
    )
    state, mask = start_state(space.head, size), np.ones((size, 1), dtype=np.bool_)

    def arithmetic() -> int:
        for _ in chunks:
            advance_all(space.head, state, steps, mask)
        return size * len(chunks)

    timed("model", arithmetic)
    loaded: list[Records] = []

    def codec() -> int:
        for _, names in batches:
            payloads = [nobody if one is None else one for one in store.get_many(names)]
            records, tails = decode_records(layout, payloads)
            loaded.append(records)
            encode_records(layout, records, tails)
        return count

    timed("get_and_record_codec", codec)

    def apply() -> int:
        for records, (batch, _) in zip(loaded, batches, strict=True):
            apply_batch(
                records, batch, space, catalog, TOPIC_KEY, settings.serving.prequential_share
            )
        return count

    timed("apply_batch", apply)
    recommender = Recommender(catalog, settings.serving)
    cause = Cause("event", "e0", "t", 0, 0)

    def recommend() -> int:
        made = 0
        for records, (_, names) in list(zip(loaded, batches, strict=True))[:20]:
            who = [name.decode() for name in names]
            made += len(
                recommender.for_events(records, who, [cause] * len(who), space, time.time())
            )
        return made

    timed("recommend", recommend)
    store.close()
    rates["floor"] = round(1.0 / sum(1.0 / rates[part] for part in ("decode", "store", "model")), 1)
    return rates


def _chunks(count: int, users: int, items: int, seed: int, size: int) -> Iterator[list[Record]]:
    events = synthetic_events(count, users, items, 4, seed)
    for start in range(0, count, size):
        yield [
            ConsumerRecord(
                topic="t",
                partition=0,
                offset=at,
                timestamp=0,
                timestamp_type=0,
                key=events.keys[at],
                value=events.values[at],
                checksum=None,
                serialized_key_size=-1,
                serialized_value_size=-1,
                headers=(),
            )
            for at in range(start, min(start + size, count))
        ]


if __name__ == "__main__":
    main()
