"""What encryption at rest costs on the event path: plain and encrypted, alternating, one core.

The event path alone (decode, load, apply, recommend, seal, store, key store), without Kafka: a
worker does more for each event, so its share is smaller than the ratio here.  Every user of every
chunk gets a recommendation, which is the dearest case: a profile is opened, and profile and
recommendation are sealed.  Rates are per second of processor time, all threads together: other
work on the machine must not decide.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

from aiokafka.structs import ConsumerRecord
from prometheus_client import CollectorRegistry

from benchmarks.deployment import synthetic_items
from benchmarks.load import synthetic_events
from learner.bootstrap import bootstrap_release, expected_release
from profiles.catalog import Catalog
from profiles.config import Settings, load_settings
from profiles.key_file import VersionedKeys
from profiles.key_store import KeyStore
from profiles.metrics import WorkerMetrics
from profiles.registry import ReleaseStore
from profiles.release import open_release
from profiles.sealing import MasterKeys
from profiles.space import Space
from profiles.state import RecordLayout
from profiles.store import PartitionStore
from stream.chunks import Record
from stream.codecs import Rules, decode_chunk
from stream.event_path import EventPath
from stream.source import Part, Source

RESULT = Path(__file__).parent / "results" / "encryption.json"


def main() -> None:
    """Parse, measure, print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--items", type=int, default=2_000)
    parser.add_argument("--chunk", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"put it into {RESULT.name}")
    args = parser.parse_args()
    settings = load_settings()
    with tempfile.TemporaryDirectory() as root:
        rates = measure(settings, args, Path(root))
    plain, sealed = (statistics.median(rates[name]) for name in ("plain", "encrypted"))
    pairs = zip(rates["encrypted"], rates["plain"], strict=True)
    result = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "seed": args.seed,
        "events": args.events,
        "users": args.users,
        "items": args.items,
        "chunk": args.chunk,
        "plain_events_per_cpu_s": round(plain),
        "encrypted_events_per_cpu_s": round(sealed),
        "ratio": round(statistics.median(one / other for one, other in pairs), 4),
        "runs": {name: [round(rate) for rate in found] for name, found in rates.items()},
    }
    if args.write:
        # One entry for each number of events: it decides how many users are new.
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        kept[str(args.events)] = result
        RESULT.write_text(json.dumps(kept, indent=2) + "\n")
    print(json.dumps(result))


def measure(settings: Settings, args: argparse.Namespace, root: Path) -> dict[str, list[float]]:
    """Events per second of processor time of every run; a first run of each is not counted."""
    items = synthetic_items(args.items)
    store = ReleaseStore(str(root / "releases"), root / "cache")
    manifest = bootstrap_release(settings, items, store)
    release = open_release(store.fetch(manifest.release_id), expected_release(settings))
    actions = {name: at for at, name in enumerate(sorted(settings.actions))}
    made = synthetic_events(args.events, args.users, args.items, 4, args.seed)
    records = list(map(_record, range(len(made)), made.keys, made.values))
    rules = Rules(actions, settings.serving.max_message_bytes, settings.serving.max_ahead_s)
    rates: dict[str, list[float]] = {"plain": [], "encrypted": []}
    for repeat in range(args.repeats + 1):
        for name in ("plain", "encrypted") if repeat % 2 else ("encrypted", "plain"):
            catalog = Catalog()
            for item in items:
                catalog.put(item)
            path = EventPath(
                RecordLayout.of(settings),
                settings.serving.model_copy(update={"user_interval_s": 0.0}),
                actions,
                catalog,
                WorkerMetrics(CollectorRegistry()),
            )
            path.space = Space(release, catalog, settings.profile.seen_bytes)
            place = root / f"{name}-{repeat}"
            keys = None
            if name == "encrypted":
                keys = KeyStore(place / "keys-0", MasterKeys(VersionedKeys({1: bytes(32)})))
            source = Source(0, PartitionStore(place / "partition-0"), "events", "id", keys=keys)
            began = time.process_time()
            for at in range(0, len(records), args.chunk):
                decoded = decode_chunk(records[at : at + args.chunk], rules, time.time())
                path.apply([Part(source, decoded, at + args.chunk)], time.time())
                source.take_keys()
            seconds = time.process_time() - began
            if repeat:
                rates[name].append(len(records) / seconds)
            source.store.close()
            if keys is not None:
                keys.close()
    return rates


def _record(offset: int, key: bytes, value: bytes) -> Record:
    return ConsumerRecord(
        topic="events",
        partition=0,
        offset=offset,
        timestamp=0,
        timestamp_type=0,
        key=key,
        value=value,
        checksum=None,
        serialized_key_size=-1,
        serialized_value_size=-1,
        headers=(),
    )


if __name__ == "__main__":
    main()
