"""What encryption at rest costs on the event path: plain and encrypted, alternating, one core.

The event path alone (decode, load, apply, recommend, seal, store, key store), without Kafka: a
worker does more for each event, so its share is smaller than the ratio here.  Every user of every
chunk gets a recommendation, which is the dearest case: a profile is opened, and profile and
recommendation are sealed.  Rates are per second of processor time, all threads together: other
work on the machine must not decide.  Memory is kept and cycles are looked for as in a worker.

A third arm makes the calls of AES-GCM that the encrypted one made, and nothing else: the ratio
that would be left if all the rest of encryption were free.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from aiokafka.structs import ConsumerRecord
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from prometheus_client import CollectorRegistry

from benchmarks.deployment import synthetic_items
from benchmarks.load import synthetic_events
from learner.bootstrap import bootstrap_release
from profiles.catalog import Catalog
from profiles.config import Settings, load_settings
from profiles.expected import expected_by
from profiles.key_file import VersionedKeys
from profiles.key_store import KeyStore
from profiles.metrics import WorkerMetrics
from profiles.registry import ReleaseStore
from profiles.release import open_release
from profiles.sealing import HEAD_BYTES, NONCE_BYTES, MasterKeys
from profiles.space import Space
from profiles.state import RecordLayout
from profiles.store import PartitionStore
from stream.allocator import collect_seldom, keep_freed_memory
from stream.chunks import Record
from stream.codecs import Rules, decode_chunk
from stream.event_path import EventPath
from stream.source import Outcome, Part, Source

ARMS = ("plain", "encrypted", "ciphers")
TAG_BYTES = 16
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
    collect_seldom()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as root:
        rates = measure(settings, args, Path(root))
    plain, sealed, ciphers = ([1e6 / rate for rate in rates[name]] for name in ARMS)
    result = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "seed": args.seed,
        "events": args.events,
        "users": args.users,
        "items": args.items,
        "chunk": args.chunk,
        "plain_events_per_cpu_s": round(statistics.median(rates["plain"])),
        "encrypted_events_per_cpu_s": round(statistics.median(rates["encrypted"])),
        "ratio": _ratio(plain, sealed),
        "ratio_of_ciphers_alone": _ratio(
            plain, [all_else + calls for all_else, calls in zip(plain, ciphers, strict=True)]
        ),
        "plain_us": round(statistics.median(plain), 2),
        "encryption_us": round(
            statistics.median(
                with_it - without for without, with_it in zip(plain, sealed, strict=True)
            ),
            2,
        ),
        "ciphers_us": round(statistics.median(ciphers), 2),
        "runs": {name: [round(rate) for rate in found] for name, found in rates.items()},
    }
    if args.write:
        # One entry for each number of events: it decides how many users are new.
        kept = json.loads(RESULT.read_text()) if RESULT.exists() else {}
        kept[str(args.events)] = result
        RESULT.write_text(json.dumps(kept, indent=2) + "\n")
    print(json.dumps(result))


def _ratio(plain: list[float], other: list[float]) -> float:
    """Median over the pairs of how much of the plain rate is left.  Units: us per event."""
    return round(statistics.median(one / two for one, two in zip(plain, other, strict=True)), 4)


def measure(settings: Settings, args: argparse.Namespace, root: Path) -> dict[str, list[float]]:
    """Events per second of processor time of every run; a first run of each is not counted."""
    items = synthetic_items(args.items)
    store = ReleaseStore(str(root / "releases"), root / "cache")
    manifest = bootstrap_release(settings, items, store)
    release = open_release(store.fetch(manifest.release_id), expected_by(settings))
    actions = {name: at for at, name in enumerate(sorted(settings.actions))}
    made = synthetic_events(args.events, args.users, args.items, 4, args.seed)
    records = list(map(_record, range(len(made)), made.keys, made.values))
    rules = Rules(actions, settings.serving.max_message_bytes, settings.serving.max_ahead_s)
    rates: dict[str, list[float]] = {name: [] for name in ARMS}
    made_by_run: list[Outcome] = []
    for repeat in range(args.repeats + 1):
        for name in ("plain", "encrypted") if repeat % 2 else ("encrypted", "plain"):
            outcomes: list[Outcome] = []
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
                done = path.apply([Part(source, decoded, at + args.chunk)], time.time())
                if not repeat:
                    assert isinstance(done, list), "no event here is words"
                    outcomes += done
            seconds = time.process_time() - began
            if repeat:
                rates[name].append(len(records) / seconds)
            source.store.close()
            if keys is not None:
                keys.close()
                made_by_run = made_by_run or outcomes
        if repeat:
            rates["ciphers"].append(len(records) / cipher_seconds(made_by_run))
    return rates


def cipher_seconds(outcomes: Sequence[Outcome]) -> float:
    """Processor time of AES-GCM alone for what an encrypted run left, in its order.

    For each chunk: profiles that were there are opened, keys are set up and wrapped for new users,
    recommendations and profiles are sealed; of the same sizes.
    """
    master = AESGCM(os.urandom(32))
    ciphers: dict[bytes, AESGCM] = {}
    stored: dict[bytes, tuple[bytes, bytes]] = {}
    seconds = 0.0
    for outcome in outcomes:
        sealed = [(message.key or b"", message.value or b"") for message in outcome.changelog]
        outputs = [(message.key or b"", message.value or b"") for message in outcome.outputs]
        new = [(user, os.urandom(32)) for user, _ in sealed if user not in ciphers]
        todo = [(user, os.urandom(NONCE_BYTES), _plain(text)) for user, text in outputs + sealed]
        opened = [(user, *stored[user]) for user, _ in sealed if user in stored]
        wrapping = os.urandom(NONCE_BYTES * len(new))
        began = time.process_time()
        for user, nonce, text in opened:
            ciphers[user].decrypt(nonce, text, user)
        for at, (user, data_key) in enumerate(new):
            ciphers[user] = AESGCM(data_key)
            master.encrypt(wrapping[at * NONCE_BYTES : (at + 1) * NONCE_BYTES], data_key, user)
        done = [ciphers[user].encrypt(nonce, text, user) for user, nonce, text in todo]
        seconds += time.process_time() - began
        for (user, nonce, _), text in zip(todo[len(outputs) :], done[len(outputs) :], strict=True):
            stored[user] = (nonce, text)
    return seconds


def _plain(sealed: bytes) -> bytes:
    """Bytes of the size that was sealed."""
    return sealed[HEAD_BYTES:-TAG_BYTES]


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
