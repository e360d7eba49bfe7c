"""What a longer history costs: the rebuild of a profile at a swap, and its bytes on disk."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.deployment import synthetic_items
from benchmarks.harness import Result, say
from benchmarks.scale.growth import exponent
from benchmarks.scale.synthetic import profiles
from benchmarks.scale.users import layout_of, made_up_space
from profiles.catalog import Catalog
from profiles.config import Settings
from profiles.rebuild import rebuild
from profiles.state import encode_records
from profiles.store import PartitionStore, Watermark

USERS = 2_000
ITEMS = 2_000


def measure(lengths: list[int], settings: Settings, seed: int) -> Result:
    """Microseconds per rebuilt user and bytes per stored one, rings full."""
    catalog = Catalog()
    for item in synthetic_items(ITEMS):
        catalog.put(item)
    space = made_up_space(settings, catalog, seed)
    rows = []
    for length in lengths:
        layout = layout_of(settings, length)
        chance = np.random.default_rng(seed)
        records = profiles(layout, np.full(USERS, 2 * length), 1, 1, chance)
        known = chance.integers(ITEMS, size=records["history"]["item"].shape)
        records["history"]["item"] = catalog.keys[known]
        some = np.arange(USERS)
        slice_users = settings.serving.sweep_users
        started = time.perf_counter()
        for at in range(0, USERS, slice_users):
            rebuild(records, some[at : at + slice_users], space, catalog)
        rebuild_us = 1e6 * (time.perf_counter() - started) / USERS
        with tempfile.TemporaryDirectory(prefix="driftline-bench-") as directory:
            store = PartitionStore(Path(directory) / "store")
            names = [f"user-{at}".encode() for at in range(USERS)]
            store.write(names, encode_records(layout, records), Watermark(count=USERS))
            store.flush()
            store.compact()
            disk = sum(file.stat().st_size for file in (Path(directory) / "store").glob("*.sst"))
            store.close()
        rows.append(
            {
                "history": length,
                "rebuild_us": round(rebuild_us, 1),
                "record_bytes": layout.whole_bytes,
                "disk_bytes_per_user": round(disk / USERS, 1),
            }
        )
        say(f"history: {rows[-1]}")
    return {
        "profiles": "synthetic, rings full",
        "sizes": rows,
        "exponent_rebuild": exponent(lengths, [row["rebuild_us"] for row in rows]),
        "exponent_disk": exponent(lengths, [row["disk_bytes_per_user"] for row in rows]),
    }
