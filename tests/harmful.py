"""A release that does harm: a good one whose items have changed places, signed and all."""

from __future__ import annotations

import dataclasses
import shutil
import time

import msgspec
import numpy as np

from profiles.registry import ReleaseStore
from profiles.release import Release, write_release


def publish_permuted(store: ReleaseStore, parent: Release, sequence: int, seed: int = 0) -> str:
    """Publish a child of `parent` that gives every item another item's vector; returns its id.

    Shapes, norms, hashes and the adapter are right: no worker can refuse it.
    """
    order = np.random.default_rng(seed).permutation(len(parent.items.keys))
    items = dataclasses.replace(
        parent.items, vectors=parent.items.vectors[order], bias=parent.items.bias[order]
    )
    manifest = msgspec.structs.replace(
        parent.manifest, sequence=sequence, parent_id=parent.release_id, created_at=time.time()
    )
    workspace = store.workspace()
    shutil.copytree(parent.directory / "adapter", workspace / "adapter")
    write_release(workspace, manifest, parent.head, items, parent.probe_vectors)
    return store.publish(workspace)
