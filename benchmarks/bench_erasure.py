"""How long an erasure takes where 100,000 users are held: worker's stores and learner's buffer.

All users in one partition (the dearest case), encrypted, with random profiles of 30 events; the
replay buffer holds ten events of each.  Without Kafka: the few records that an erasure sends and
the topics' compaction are not in it.
"""

from __future__ import annotations

import argparse
import json
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from learner.records import Row
from learner.replay import ReplayBuffer
from learner.sealed_disk import LearnerKeys
from profiles.config import load_settings
from profiles.key_file import VersionedKeys
from profiles.key_store import KeyStore
from profiles.sealing import PROFILE, MasterKeys
from profiles.state import RecordLayout, empty_records, encode_records
from profiles.store import PartitionStore, Watermark
from stream.erasing import erase_user
from stream.source import Source

RESULT = Path(__file__).parent / "results" / "erasure.json"
BLOCK = 5_000
EVENTS = 10
SERVICE = MasterKeys(VersionedKeys({1: bytes(32)}))


def main() -> None:
    """Fill, erase, print; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help=f"write {RESULT.name}")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        worker = erase_in_worker(args.users, args.seed, Path(root))
        learner = erase_in_learner(args.users, Path(root))
    result = {
        "machine": f"{platform.machine()}, Python {platform.python_version()}",
        "seed": args.seed,
        "users": args.users,
        "worker_first_s": worker[0],
        "worker_second_s": worker[1],
        "learner_first_s": learner[0],
        "learner_second_s": learner[1],
    }
    if args.write:
        RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result))


def erase_in_worker(users: int, seed: int, root: Path) -> list[float]:
    """Seconds of two erasures, one after the other, deletions made physical."""
    layout = RecordLayout.of(load_settings())
    rng = np.random.default_rng(seed)
    store = PartitionStore(root / "partition-0")
    source = Source(0, store, "events", "id", keys=KeyStore(root / "keys-0", SERVICE))
    assert source.keys is not None, "made above"
    for start in range(0, users, BLOCK):
        names = [b"user-%d" % number for number in range(start, min(start + BLOCK, users))]
        records = empty_records(layout, len(names))
        records["events"] = 30
        records["history"]["item"] = rng.integers(2**60, size=records["history"].shape)
        records["state"] = rng.normal(size=records["state"].shape)
        sealed = source.keys.sealer.seal_many(PROFILE, names, encode_records(layout, records))
        source.take_keys()
        store.write(names, sealed, Watermark(count=start + len(names)))
    seconds: list[float] = []
    for number in (users // 3, users // 2):
        user = b"user-%d" % number
        began = time.perf_counter()
        erase_user(source, user, users, number, time.time())
        source.purge([user])
        seconds.append(round(time.perf_counter() - began, 2))
    store.close()
    source.keys.close()
    return seconds


def erase_in_learner(users: int, root: Path) -> list[float]:
    """The same in the replay buffer."""
    keys = LearnerKeys(root / "learner-keys", SERVICE)
    buffer = ReplayBuffer(
        root / "buffer",
        buffer_bytes=256 * 2**20,
        sequence_length=50,
        seed=0,
        actions=["like"],
        keys=keys,
    )
    number = 0
    for start in range(0, users, BLOCK):
        rows = []
        for user in range(start, min(start + BLOCK, users)):
            for _ in range(EVENTS):
                rows.append(
                    Row(0, number, user + 1, number % 999, 0, 1.0, 1e9 + number, number + 1)
                )
                number += 1
        buffer.ingest("events", rows, {0: number})
    buffer.finish_round(buffer.next_order, (2e9, 0), 1)
    seconds: list[float] = []
    for user in (users // 3, users // 2):
        began = time.perf_counter()
        buffer.erase([user])
        seconds.append(round(time.perf_counter() - began, 2))
    buffer.close()
    keys.close()
    return seconds


if __name__ == "__main__":
    main()
